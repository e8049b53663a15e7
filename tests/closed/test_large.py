"""Exponentials divided by sums of exponentials: finite where autograd of the same forward is not, and right there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import codegen
from tests.closed.forms import Draw

Softplus = torch.nn.functional.softplus


def over_two(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return n.exp() / (a.exp() + b.exp())


def over_a_sum(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return n.exp() / (a[:, None] * b).exp().sum(1)


def over_one_more(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n - b).exp() / (1 + a.exp())


def two_over_two(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n.exp() + b.exp()) / (a.exp() + (a - b).exp())


def squared_share(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n.exp() / (n.exp() + a.exp() + b.exp())) ** 2


def contrast(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return n * (a.exp() - b.exp()) / (a.exp() + b.exp())


def with_a_baseline(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n.exp() + a.exp()) / (1 + n.exp() + a.exp()) * b


def against_a_root(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ((2 * a).exp() + (2 * b).exp()).sqrt() / (a.exp() + b.exp()) * n


def logistic_mixture(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    share = b.exp() / b.exp().sum()
    z = n[:, None] - a
    return (share * (-z).exp() / (1 + (-z).exp()) ** 2).sum(1)


def over_a_scalar(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return n.exp() / (a.exp().sum() + b.exp().sum())


def ratio_of_sums(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n[:, None] + a).exp().sum(1) / (a[:, None] + b).exp().sum(1)


def by_a_logarithm(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n - torch.logaddexp(a, b)).exp()


def log_sum(*terms: Tensor) -> Tensor:
    return torch.stack(terms).logsumexp(0)


SAME: dict[Any, Any] = {
    over_two: lambda n, a, b: (n - log_sum(a, b)).exp(),
    over_a_sum: lambda n, a, b: (n - (a[:, None] * b).logsumexp(1)).exp(),
    over_one_more: lambda n, a, b: (n - b - Softplus(a, threshold=40)).exp(),
    two_over_two: lambda n, a, b: (n - log_sum(a, a - b)).exp() + (b - log_sum(a, a - b)).exp(),
    squared_share: lambda n, a, b: (2 * (n - log_sum(n, a, b))).exp(),
    contrast: lambda n, a, b: n * ((a - b) / 2).tanh(),
    with_a_baseline: lambda n, a, b: b * Softplus(log_sum(n, a), threshold=40).sub(log_sum(n, a)).neg().exp(),
    against_a_root: lambda n, a, b: n * (log_sum(2 * a, 2 * b) / 2 - log_sum(a, b)).exp(),
    logistic_mixture: lambda n, a, b: (
        (b.log_softmax(0) - (n[:, None] - a).abs() - 2 * (-(n[:, None] - a).abs()).exp().log1p()).exp().sum(1)
    ),
    over_a_scalar: lambda n, a, b: (n - torch.cat([a, b]).logsumexp(0)).exp(),
    ratio_of_sums: lambda n, a, b: ((n[:, None] + a).logsumexp(1) - (a[:, None] + b).logsumexp(1)).exp(),
    by_a_logarithm: lambda n, a, b: (n - log_sum(a, b)).exp(),
}
"""Each forward as it is written by somebody who minds."""


def gradients(forward: Any, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    return torch.autograd.grad(forward(*leaves).sum(), leaves)


@pytest.mark.parametrize("forward", SAME, ids=lambda f: f.__name__)
def test_quotients_of_exponentials(forward: Any) -> None:
    inputs = [Draw(k).normal(6) for k in range(3)]
    program = codegen.generate(forward, *inputs)
    assert codegen.check(program, *inputs).ok
    lost = False
    for factor in (1e4, -1e4):
        for which in (*range(3), None):
            large = [t * factor if which in (k, None) else t for k, t in enumerate(inputs)]
            true = SAME[forward](*large)
            out, saved = program.forward(*large)
            torch.testing.assert_close(out, true)
            told = true.isfinite()
            given = [told.double(), *[g.isfinite() for g in gradients(SAME[forward], large)]]
            lost = lost or not all(bool(g.isfinite().all()) for g in (forward(*large), *gradients(forward, large)))
            if bool(told.all()) and all(bool(g.all()) for g in given):
                found = program.backward(saved)
                for ours, theirs in zip(found.values(), gradients(SAME[forward], large), strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert lost


def test_a_quotient_of_two_differences_is_a_tanh() -> None:
    program = codegen.generate(contrast, *[Draw(k).normal(6) for k in range(3)])
    assert "tanh" in program.source
    assert "exp()" not in program.source


def test_an_exponent_keeps_the_logarithm_that_is_subtracted_in_it() -> None:
    program = codegen.generate(by_a_logarithm, *[Draw(k).normal(6) for k in range(3)])
    assert "(n - torch.logaddexp(a, b)).exp()" in program.source


def test_the_rule_is_named() -> None:
    program = codegen.generate(over_two, *[Draw(k).normal(6) for k in range(3)])
    assert any("exp(f - log z) for a sum z" in s.rule for s in program.derivation.trail)


def gumbel(x: Tensor) -> Tensor:
    return (-x).exp() * (-(-x).exp()).exp()


def gumbel_at(x: Tensor) -> Tensor:
    z = (x - 0.5) / 3.0
    return (-(z + (-z).exp())).exp() / 3.0


def never_before(x: Tensor) -> Tensor:
    return (-(x / 2).exp()).exp()


@pytest.mark.parametrize("forward", [gumbel, gumbel_at, never_before], ids=lambda f: f.__name__)
def test_exponentials_of_exponentials(forward: Any) -> None:
    """Their slopes are products of what overflows and what is 0 there."""
    x = Draw(0).normal(6)
    program = codegen.generate(forward, x)
    assert codegen.check(program, x).ok
    for given in (x, 3 * x, torch.tensor([1e4, -1e4, 800.0, -800.0, 0.0, -2e4], dtype=torch.float64)):
        leaf = given.clone().requires_grad_()
        (naive,) = torch.autograd.grad(forward(leaf).sum(), leaf)
        out, saved = program.forward(given)
        torch.testing.assert_close(out, forward(given).nan_to_num(0.0))
        torch.testing.assert_close(program.backward(saved)["x"], naive.nan_to_num(0.0))
        assert given.abs().max() < 100 or bool(naive.isnan().any())


def taught(x: Tensor, h: Tensor, w: Tensor) -> Tensor:
    p = x.exp() / x.exp().sum(1, keepdim=True)
    return -((h @ w).sigmoid() * p.log()).sum(1).mean()


def test_shares_keep_their_logarithm_where_their_targets_come_later() -> None:
    """The logarithm is read beside a product of matrices that the shares do not wait for."""
    d = Draw(0)
    x, h, w = d.normal(5, 4), d.normal(5, 3), d.normal(3, 4)
    program = codegen.generate(taught, x, h, w)
    for scale in (1.0, 1e4):
        leaves = [t.clone().requires_grad_() for t in (scale * x, h, w)]
        true = -((leaves[1] @ leaves[2]).sigmoid() * leaves[0].log_softmax(1)).sum(1).mean()
        out, grads = program.value_and_grad(scale * x, h, w)
        torch.testing.assert_close(out, true.detach())
        for name, slope in zip(grads, torch.autograd.grad(true, leaves), strict=True):
            torch.testing.assert_close(grads[name], slope)


def smoothed(x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(x, y, label_smoothing=0.1)


def weighted(x: Tensor, y: Tensor) -> Tensor:
    return (0.3 * x.logsumexp(1) - 0.3 * x[torch.arange(len(x)), y]).mean()


@pytest.mark.parametrize("forward", [smoothed, weighted])
@pytest.mark.parametrize("offset", [0.0, 1000.0, 10000.0])
def test_a_multiple_of_a_logarithm_of_shares_keeps_its_digits(forward: Any, offset: float) -> None:
    """`0.9 log(sum(exp x)) - 0.9 x[y]` are both as large as x."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 10, generator=g), torch.randint(0, 10, (64,), generator=g)
    program = codegen.generate(forward, x, y)
    logp = (x + offset).double().log_softmax(1)
    picked = -logp[torch.arange(64), y]
    true = 0.9 * picked - 0.1 * logp.mean(1) if forward is smoothed else 0.3 * picked
    assert abs(program.forward(x + offset, y)[0].double() - true.mean()) < 1e-6


def step(a: Tensor, t: Tensor) -> Tensor:
    """Of the forward algorithm of a hidden Markov model."""
    return torch.log(torch.exp(a) @ torch.exp(t))


def test_a_product_of_exponentials_under_a_logarithm_is_a_logsumexp() -> None:
    a, t = Draw(0).normal(5, 4), Draw(1).normal(4, 3)
    program = codegen.generate(step, a, t)
    for large in ((1e4 * a, t), (a, 1e4 * t), (1e4 * a, 1e4 * t), (-1e4 * a, t)):
        leaves = [x.clone().requires_grad_() for x in large]
        true = (leaves[0][:, :, None] + leaves[1]).logsumexp(1)
        out, saved = program.forward(*large)
        torch.testing.assert_close(out, true.detach())
        found = program.backward(saved)
        for ours, theirs in zip(found.values(), torch.autograd.grad(true.sum(), leaves), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_matrices_are_multiplied_where_there_are_too_many_sums() -> None:
    program = codegen.generate(step, Draw(0).normal(64, 64), Draw(1).normal(64, 64))
    assert "logsumexp" not in program.source
    assert "@" in program.source[program.source.index("def forward") : program.source.index("def backward")]


def between(x: Tensor, start: Tensor) -> Tensor:
    """An event of rate exp(x) that is known to be within one of equal intervals."""
    rate = torch.exp(x)
    return -torch.log(torch.exp(-rate * start) - torch.exp(-rate * (start + 0.5)))


def before_or_not(x: Tensor, y: Tensor) -> Tensor:
    """A truth with the probability 1 - exp(-exp(x)), the complementary log-log link."""
    p = 1 - torch.exp(-torch.exp(x))
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p))


def test_a_difference_of_exponentials_of_small_rates_keeps_its_logarithm() -> None:
    """log(1 - exp(-exp(x) / 2)) is x - log(2) where exp(x) is nothing, which autograd takes for the logarithm of zero."""
    draw = Draw(0)
    start = draw.positive(6)
    program = codegen.generate(between, draw.normal(6), start, wrt=("x",))
    x = torch.tensor([-1e4, -800.0, -60.0, -39.0, -3.0, 2.0], dtype=torch.float64)
    out, grads = program.value_and_grad(x, start)
    rate, half = x.exp(), x.exp() / 2
    small = torch.where(x < -30, x - math.log(2) - half / 2, (-(-half).expm1()).log())
    torch.testing.assert_close(out, rate * start - small, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        grads["x"], rate * start - torch.where(half == 0, 1, half / half.expm1()), rtol=1e-12, atol=0
    )


def test_an_exponential_with_a_weight_of_zero_is_none() -> None:
    draw = Draw(0)
    y = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    program = codegen.generate(before_or_not, draw.normal(5), y, wrt=("x",))
    x = torch.tensor([1e4, -1e4, 2.0, -1e4, 2.0], dtype=torch.float64)
    out, grads = program.value_and_grad(x, y)
    e = x[2].exp()
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(out, torch.stack([zero, -x[1], -(-(-e).expm1()).log(), zero, e]))
    torch.testing.assert_close(grads["x"], torch.stack([zero, zero - 1, -e / e.expm1(), zero, e]))
    moving = codegen.generate(before_or_not, draw.normal(5), y)  # the slope by a weight is not zero where the weight is
    torch.testing.assert_close(moving.value_and_grad(x[2:4], y[[2, 4]])[1]["y"][0], (-(-e).expm1()).log().neg() - e)


def test_one_less_an_exponential_of_a_sum_of_exponentials() -> None:
    """That any of several events occurs, whose rates are exponentials: with no rate left, it is the logarithm of their sum."""
    program = codegen.generate(lambda x: -torch.log(1 - torch.exp(-torch.exp(x).sum(1))), Draw(0).normal(4, 3))
    x = torch.tensor([[-1e4, 1e4, 3.0], [-900.0, -901.0, -1e4], [0.5, -0.5, 0.0]], dtype=torch.float64)
    out, grads = program.value_and_grad(x)
    z = x[2].exp().sum()
    lost = x[1].logsumexp(0)
    torch.testing.assert_close(out, torch.stack([0 * z, -lost, -(-(-z).expm1()).log()]))
    slopes = torch.stack([0 * x[0], -x[1].softmax(0), -x[2].exp() / z.expm1()])
    torch.testing.assert_close(grads["x"], slopes)


def weibull(x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    scale = torch.exp(x)
    return -torch.log(k / scale * (t / scale) ** (k - 1) * torch.exp(-((t / scale) ** k)))


def test_the_logarithm_of_a_power_of_exponentials_is_that_of_the_exponents() -> None:
    draw = Draw(0)
    program = codegen.generate(weibull, draw.normal(4), draw.positive(4), draw.positive(4), wrt=("x", "k"))
    x, k, t = torch.tensor([[1e4, 800.0, 0.0, 0.5], [0.7, 2.0, 1.0, 1.5], [1.0, 0.5, 0.0, 2.0]], dtype=torch.float64)
    out, grads = program.value_and_grad(x, k, t)
    log = t.log() - x  # 0 to the power of 0 is one, and its slope 0
    u, power = torch.where(t == 0, 0, log), torch.where(t == 0, 0, (k * log).exp())
    torch.testing.assert_close(out, power + x - k.log() - (k - 1) * u)
    torch.testing.assert_close(grads["x"], (1 - power) * k)
    torch.testing.assert_close(grads["k"], (power - 1) * u - 1 / k)
