"""Exponentials that are summed and overflow as they are written: the largest exponent is taken out, and nothing is passed back to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import codegen
from codegen.closed import code
from codegen.closed.regions import rows
from tests.closed.forms import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.closed.regions.cells import Cell


def shares_beside_one(s, v):
    e = s.exp()
    return (e / (1 + e.sum(1, keepdim=True))) * v


def weighted(s, v):
    e = (-s).exp()
    return (e * v).sum(1) / e.sum(1)


def two_at_once(s, v):
    return torch.log(1 + s.exp().sum(1) * v.exp().sum(1))


def masked(s, v):
    return torch.log(1 + (s.exp() * (v > 0)).sum(1))


def mean_over_two(s, v):
    return (2 * s.view(3, 2, 3)).exp().mean((1, 2)).log() * v.sum()


FORWARDS = [shares_beside_one, weighted, two_at_once, masked, mean_over_two]


@pytest.mark.parametrize("forward", FORWARDS)
def test_nothing_overflows(forward) -> None:
    """As in the limit: only differences of exponents count."""
    draw = torch.Generator().manual_seed(0)
    s, v = (torch.randn(3, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    program = codegen.generate(forward, s, v)
    assert program.writer is not None
    assert all("differs" not in why for r in program.writer.regions.values() for why in r.code.refused)
    for factor in (1.0, 20.0):
        leaves = [(factor * s).requires_grad_(), v.clone().requires_grad_()]
        out = forward(*leaves)
        grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        true = torch.autograd.grad(out, leaves, grad, allow_unused=True)
        mine, saved = program.forward(factor * s, v)
        torch.testing.assert_close(mine, out.detach())
        grads = program.backward(saved, grad)
        for name, wanted in zip("sv", true, strict=True):
            torch.testing.assert_close(grads[name], torch.zeros_like(v) if wanted is None else wanted)
    out, saved = program.forward(1e4 * s.abs(), v)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in program.backward(saved).values())


def seen(s):
    e = s.exp()
    return e.sum(1) + (e / e.sum(1, keepdim=True)).square().sum(1)


def over_both(s):
    e = s.exp()
    return ((1 + e.sum(1)).log() + (1 + e.sum(0)).log()).sum()


def test_a_scale_that_is_seen_stays() -> None:
    """In a result, and of rows and columns at once."""
    s = torch.randn(4, 4, dtype=torch.float64)
    for forward in (seen, over_both):
        program = codegen.generate(forward, s)
        assert "amax" not in program.source
        assert codegen.check(program, s).ok


def divided_last(s, v):
    e = (s / 3).exp()
    return (e @ v.T) / e.sum(1, keepdim=True)


def divided_by_another(s, v):
    e = (s / 3).exp()
    return (e @ v.T) / e.sum(0)[:3, None]


def test_rows_divided_by_their_sums_are_a_product_with_shares() -> None:
    """Not so where the sums are of other rows, or the product is a result too."""
    draw = torch.Generator().manual_seed(0)
    s, v = (torch.randn(3, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    both = lambda s, v: (divided_last(s, v), s.exp() @ v.T)  # noqa: E731
    for forward, shares in ((divided_last, True), (divided_by_another, False), (both, True)):
        program = codegen.generate(forward, s, v)
        assert ("softmax(1)" in program.source) == shares
        assert codegen.check(program, s, v).ok
    program = codegen.generate(divided_last, s, v)
    out, saved = program.forward(1e4 * s, v)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in program.backward(saved).values())


def meant(s, y):
    e = s.exp()
    return (1 - e[torch.arange(len(y)), y] / e.sum(1)).square().mean()


def on_the_diagonal(s, y):
    e = (2 * s[:, : len(y)]).exp()
    return (3 * torch.diag(e) / e.sum(0)).sqrt().sum()


def of_another_row(s, y):
    e = s.exp()
    return (e[torch.arange(len(y)), y] / e.sum(1).flip(0)).log().sum()


@pytest.mark.parametrize(("forward", "whole"), [(meant, True), (on_the_diagonal, True), (of_another_row, False)])
def test_a_quotient_at_one_place_of_a_row_is_read_from_its_shares(forward: Any, whole: bool) -> None:
    """So that nothing is scaled by hand; what is divided by the sum of another row is no share."""
    draw = torch.Generator().manual_seed(0)
    s, y = torch.randn(4, 6, generator=draw, dtype=torch.float64), torch.tensor([5, 0, 2, 2])
    program = codegen.generate(forward, s, y)
    assert codegen.check(program, s, y).ok
    if whole:
        assert "amax" not in program.source
        assert program.source.count(".softmax(") == 1
        out, grads = program.value_and_grad(1e4 * s, y)
        assert out.isfinite()
        assert (
            forward is on_the_diagonal or grads["s"].isfinite().all()
        )  # the slope of the root of a share of 0 is infinite


def noise(s, q):
    p = s.exp()
    return -(p / (p + 3 * q)).log().mean()


def saturating(s, q):
    e = (s / 2).exp()
    return e / (q + e) * q


def beside_a_tensor(s, q):
    return (s.exp() + q).log()


OWN = {
    noise: lambda s, q: torch.nn.functional.softplus((3 * q).log() - s).mean(),
    saturating: lambda s, q: (s / 2 - q.log()).sigmoid() * q,
    beside_a_tensor: lambda s, q: torch.logaddexp(s, q.log()),
}
"""By kernels that do not overflow, for positive tensors."""


@pytest.mark.parametrize("forward", OWN, ids=lambda f: f.__name__)
def test_an_exponential_beside_a_tensor_is_scaled_by_its_own(forward: Any) -> None:
    """The tensor may be zero or negative, too."""
    s = torch.tensor([-3.0, -0.5, 0.0, 0.4, 2.0, 1.0], dtype=torch.float64)
    q = torch.tensor([0.3, 2.0, 1.0, 0.5, 0.7, 0.2], dtype=torch.float64)
    program = codegen.generate(forward, s, q)
    any_sign = torch.tensor([0.3, 2.0, 1.0, 0.0, 0.7, -0.2], dtype=torch.float64)
    for given, other, true in ((s, q, forward), (s, any_sign, forward), (1e4 * s, q, OWN[forward])):
        leaves = [t.clone().requires_grad_() for t in (given, other)]
        wanted = true(*leaves)
        out, saved = program.forward(given, other)
        torch.testing.assert_close(out, wanted.detach())
        slopes = torch.autograd.grad(wanted.sum(), leaves)
        for found, slope in zip(program.backward(saved).values(), slopes, strict=True):
            torch.testing.assert_close(found, slope)


def beta(a, b):
    return ((a.exp() + b.exp()).lgamma() - b.exp().lgamma()).sum()


def test_exponentials_are_not_told_by_shares_that_have_lost_them() -> None:
    """1 - a/(a + b) has no digit of b left where a is much larger; the sum is not divided by here."""
    a, b = torch.full((4,), 30.0, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    leaf = b.clone().requires_grad_()
    (true,) = torch.autograd.grad(beta(a, leaf), leaf)
    program = codegen.generate(beta, a, b)
    torch.testing.assert_close(program.backward(program.forward(a, b)[1])["b"], true, rtol=1e-10, atol=0)


@pytest.mark.parametrize("right", [True, False])
def test_rows_with_shares_are_proven_to_be_the_same(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the last factor is another value, and is not taken."""
    given = rows.quotients

    def planted(cell: Cell, known: dict[str, Cell]) -> Iterator[rows.Quotient]:
        for found in given(cell, known):
            *before, last = found.parts
            yield found if right else replace(found, parts=(*before, replace(last, expr=2 * last.expr)))

    monkeypatch.setattr(rows, "quotients", planted)
    monkeypatch.setattr(code, "_codes", {})
    inputs = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    program = codegen.generate(divided_last, *inputs)
    assert codegen.check(program, *inputs).ok
    assert (".softmax(1)" in program.source) == right


@pytest.mark.parametrize(
    "total", [lambda e: torch.log(1 + e.sum(1)).sum(), lambda e: (e / e.sum(1, keepdim=True)).square().sum()]
)
def test_a_weight_that_is_zero_has_its_gradient(total) -> None:
    """It masks what it is multiplied by, but what it passes on itself is no zero."""
    s = torch.randn(4, 4, dtype=torch.float64)
    weight = (1 - torch.eye(4, dtype=torch.float64)).requires_grad_()
    program = codegen.generate(lambda s, w: total(s.exp() * w).square(), s, weight)
    (true,) = torch.autograd.grad(total(s.exp() * weight).square(), weight)
    torch.testing.assert_close(program.value_and_grad(s, weight.detach())[1]["w"], true)


def collision(x):
    e = x.exp()
    return ((e / e.sum(1, keepdim=True)) ** 2).sum()


def test_products_of_exponentials_that_are_merely_summed_stay_products() -> None:
    program = codegen.generate(collision, torch.randn(3, 4, dtype=torch.float64))
    forward = program.source.split("def backward")[0]
    assert ".exp()" not in forward
    assert "log" not in forward
    assert "softmax(1)" in forward


def beside_a_sum(q, n):
    return (torch.log(torch.exp(q) + torch.exp(n).sum(1)) - q).mean()


def beside_a_mean(q, n):
    return (torch.log(2 * torch.exp(q) + torch.exp(n / 2).mean(1)) - q).sum()


def two_sums(q, n):
    return torch.log(torch.exp(q).sum() + 3 * torch.exp(n).sum())


def two_sums_and_one(q, n):
    return torch.log(torch.exp(q) + torch.exp(n[:, :4]).sum(1) + torch.exp(n[:, 4]))


def share_of_one(q, n):
    return torch.exp(q) / (torch.exp(q) + torch.exp(2 * n).sum(1))


def beside_a_product(q, n):
    """The exponential is made before the product is, and added to what is made of it."""
    own = (q[:, None] * n).sum(1) / 0.2
    return (torch.log(torch.exp(own) + torch.exp(n @ n.T / 0.2).sum(1)) - own).mean()


BESIDE = [beside_a_sum, beside_a_mean, two_sums, two_sums_and_one, share_of_one, beside_a_product]


@pytest.mark.parametrize("forward", BESIDE)
def test_a_sum_of_exponentials_beside_another_does_not_overflow(forward) -> None:
    """The larger one may be either of them."""
    draw = torch.Generator().manual_seed(0)
    q, n = torch.randn(4, generator=draw, dtype=torch.float64), torch.randn(4, 6, generator=draw, dtype=torch.float64)
    program = codegen.generate(forward, q, n)
    report = codegen.check(program, q, n)
    assert report.ok, report.failures
    factors = (1e2, -1e2) if forward is beside_a_product else (1e4, -1e4)
    for factor in factors:
        out, grads = program.value_and_grad(factor * q, factor * n)
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in grads.values())


def sum_read_elsewhere(q, n):
    e = torch.exp(n)
    s = e.sum(1)
    return (torch.log(torch.exp(q) + s) + (e / s[:, None]).square().sum(1)).mean()


def test_a_sum_of_exponentials_that_shares_are_made_of_stays() -> None:
    q, n = torch.randn(4, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    program = codegen.generate(sum_read_elsewhere, q, n)
    assert program.source.count("logsumexp") == 0
    assert codegen.check(program, q, n).ok


def over_edges(z: Tensor, h: Tensor, to: Tensor) -> Tensor:
    e = z.exp()
    return ((e / torch.zeros(4, dtype=z.dtype).index_add(0, to, e)[to])[:, None] * h).square().sum()


def with_a_floor(z: Tensor, h: Tensor, to: Tensor) -> Tensor:
    e = torch.nn.functional.leaky_relu(z, 0.2).exp()
    total = torch.zeros(4, dtype=z.dtype).scatter_add(0, to, e) + 1e-16
    return ((e / total.gather(0, to))[:, None] * h).square().sum()


def careful(z: Tensor, h: Tensor, to: Tensor, floor: float = 0.0) -> Tensor:
    top = torch.full((4,), -torch.inf, dtype=z.dtype).scatter_reduce(0, to, z.detach(), "amax")
    least = top.clamp(min=0) if floor else top
    e = (z - least[to]).exp()
    total = torch.zeros(4, dtype=z.dtype).index_add(0, to, e) + (floor * (-least).exp() if floor else 0)
    return ((e / total[to])[:, None] * h).square().sum()


@pytest.mark.parametrize("forward", [over_edges, with_a_floor])
def test_sums_at_places_have_a_largest_exponent_each(forward: Any) -> None:
    """The attention of a graph's nodes to their neighbours; node 3 has none."""
    to = torch.tensor([0, 1, 1, 2, 0, 1, 2])
    z, h = Draw(0).normal(7), Draw(1).normal(7, 3)
    program = codegen.generate(forward, z, h, to)
    assert codegen.check(program, z, h, to).ok
    assert "scatter_reduce(-1, to, " in program.source
    for factor in (1.0, 1e4, -1e4):
        leaves = [(factor * z).requires_grad_(), h.clone().requires_grad_()]
        floor = 1e-16 if forward is with_a_floor else 0.0
        scores = torch.nn.functional.leaky_relu(leaves[0], 0.2) if floor else leaves[0]
        true = careful(scores, leaves[1], to, floor)
        out, saved = program.forward(factor * z, h, to)
        torch.testing.assert_close(out, true)
        for ours, theirs in zip(program.backward(saved).values(), torch.autograd.grad(true, leaves), strict=False):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def over_edges_by_head(z: Tensor, h: Tensor, to: Tensor) -> Tensor:
    e = z.exp()
    share = e / torch.zeros(4, z.shape[1], dtype=z.dtype).index_add(0, to, e)[to]
    return torch.zeros(4, z.shape[1], dtype=z.dtype).index_add(0, to, share * h).square().sum()


def test_every_head_has_a_largest_exponent_at_each_place() -> None:
    to = torch.tensor([0, 1, 1, 2, 0, 1, 2])
    z, h = Draw(0).normal(7, 2), Draw(1).normal(7, 2)
    program = codegen.generate(over_edges_by_head, z, h, to)
    assert codegen.check(program, z, h, to).ok
    assert 'scatter_reduce(0, to.unsqueeze(-1).expand_as(z), z, "amax")' in program.source
    for factor in (1.0, 1e4, -1e4):
        leaves = [(factor * z).requires_grad_(), h.clone().requires_grad_()]
        share = torch.zeros(7, 2, dtype=z.dtype)
        for node in range(3):
            share = share.index_put((to == node,), leaves[0][to == node].softmax(0))
        true = torch.zeros(4, 2, dtype=z.dtype).index_add(0, to, share * leaves[1]).square().sum()
        out, saved = program.forward(factor * z, h, to)
        torch.testing.assert_close(out, true)
        for ours, theirs in zip(program.backward(saved).values(), torch.autograd.grad(true, leaves), strict=False):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_logarithms_of_sums_at_places() -> None:
    """Node 3 has nothing to add up: its logarithm is -inf, and passes nothing back."""
    to, z = torch.tensor([0, 1, 1, 2, 0, 1, 2]), Draw(0).normal(7)
    program = codegen.generate(lambda z, to: torch.zeros(4, dtype=z.dtype).index_add(0, to, z.exp()).log(), z, to)
    for factor in (1.0, 1e4, -1e4):
        leaf = (factor * z).requires_grad_()
        true = torch.stack([leaf[to == node].logsumexp(0) for node in range(4)])
        out, saved = program.forward(factor * z, to)
        torch.testing.assert_close(out, true)
        torch.testing.assert_close(program.backward(saved)["z"], torch.autograd.grad(true[:3].sum(), leaf)[0])
