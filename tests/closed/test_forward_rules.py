"""Rules that rewrite a forward: where they hold, what is emitted then, and where they must not be used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.regions.indifferent import RULE as STILL
from codegen.closed.regions.roots import with_roots
from tests.closed.trail import gaps_of

if TYPE_CHECKING:
    from collections.abc import Callable

G = torch.Generator().manual_seed(0)
X = torch.randn(4, 5, generator=G, dtype=torch.float64)
S = torch.randn(4, 4, generator=G, dtype=torch.float64)
Y = torch.tensor([0, 3, 1, 4])


def emitted(forward: Callable[..., Any], *inputs: torch.Tensor) -> str:
    """The emitted file of a forward, whose values and gradients are autograd's."""
    program = codegen.generate(forward, *inputs)
    assert gaps_of(program) == []
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    out = forward(*leaves)
    wanted = [t for t in leaves if t.requires_grad]
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    mine, saved = program.forward(*inputs)
    torch.testing.assert_close(mine, out.detach())
    given = [t.clone() for t in (grad_out, *inputs)]
    grads = program.backward(saved, grad_out)
    assert all(map(torch.equal, given, (grad_out, *inputs)))
    for mine, true in zip(grads.values(), torch.autograd.grad(out, wanted, grad_out), strict=True):
        torch.testing.assert_close(mine, true)
    return program.source


def left_out(s, number=1.0, mask=None):
    e = (s - s.diagonal()[:, None]).exp()
    return torch.log(number + (e * (1 - torch.eye(4, dtype=s.dtype) if mask is None else mask)).sum(1)).sum()


def test_what_is_left_out_of_a_sum_completes_it() -> None:
    assert "logsumexp" in emitted(left_out, S)


@pytest.mark.parametrize("number", [2.0, 0.5])
def test_another_number_does_not(number: float) -> None:
    assert "logsumexp" not in emitted(lambda s: left_out(s, number), S)


def test_nor_does_another_place() -> None:
    """A weight that is 0 has a gradient all the same, where it is no constant."""
    moved = 1 - torch.eye(4, dtype=torch.float64).roll(1, 0)
    with torch.no_grad():
        assert not torch.allclose(left_out(S), left_out(S, mask=moved))
    emitted(lambda s, m: left_out(s, mask=m), S, moved)


def one_hot_margin(x, y):
    t = 2 * F.one_hot(y, x.shape[1]).to(x.dtype) - 1
    return torch.relu(1 - t * x).sum()


def diagonal_labels(s):
    labels = 2 * torch.eye(4, dtype=s.dtype) - 1
    return torch.log(1 + torch.exp(-labels * s)).sum()


def margin_by_choice(x, m, y):
    z = torch.where(F.one_hot(y, x.shape[1]) > 0, x - m[y][:, None], x)
    return z.log_softmax(1)[torch.arange(4), y].sum()


@pytest.mark.parametrize(
    ("forward", "inputs", "places"),
    [(one_hot_margin, (X, Y), ".gather(1, y.unsqueeze(-1))"), (diagonal_labels, (S,), ".diagonal().sub_(")],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_ones_at_places_are_no_tensor(forward: Any, inputs: Any, places: str) -> None:
    source = emitted(forward, *inputs)
    assert places in source
    assert "==" not in source[source.index("def forward(") : source.index("def backward(")].replace("!=", "")


def smoothed(x, y):
    k = x.shape[1]
    q = torch.full_like(x, 0.1 / (k - 1)).scatter(1, y[:, None], 0.9)
    return (q * (q.log() - x.log_softmax(1))).sum()


def test_targets_of_a_divergence_are_two_numbers() -> None:
    """What sizes decide is a number, too, and what the targets sum to is one."""
    source = emitted(smoothed, X, Y)
    assert "==" not in source[source.index("def forward(") : source.index("def backward(")].replace("!=", "")
    assert "dx = (x_softmax - 1 / (10 * (k - 1))) * grad_out\n" in source


def test_a_choice_by_place_adds_the_difference() -> None:
    source = emitted(margin_by_choice, X, torch.rand(5, generator=G, dtype=torch.float64), Y)
    assert "torch.where" not in source
    assert "x.index_put((torch.arange(4), y), -m[y], accumulate=True)" in source


def test_a_choice_between_two_tensors_stays_one() -> None:
    assert "torch.where" in emitted(lambda s, t: torch.where(torch.eye(4) > 0, s, t).square().sum(), S, S.T.clone())


@pytest.mark.parametrize("number", [3.0, 0.25])
def test_a_number_beside_an_exponential_is_a_one_beside_another(number: float) -> None:
    def forward(x):
        mu = x.exp()
        return (mu / (mu + number)).log().sum() + 2 * (number / (mu + number)).log().sum()

    source = emitted(forward, X)
    assert "sigmoid" in source
    program = codegen.generate(forward, X)
    out, grads = program.value_and_grad(X * 1e4)
    assert out.isfinite()
    assert grads["x"].isfinite().all()


@pytest.mark.parametrize(
    ("number", "root"),
    [
        (math.sqrt(2), sp.sqrt(2)),
        (1 / math.sqrt(2), sp.sqrt(2) / 2),
        (-math.sqrt(2 / math.pi), -sp.sqrt(2 / sp.pi)),
        (1 / math.sqrt(2 * math.pi), 1 / sp.sqrt(2 * sp.pi)),
        (math.sqrt(2) * (1 + 1e-14), None),
        (0.044715, None),
        (math.log(2), None),
        (math.e, None),
        (1 / 3, None),
        (0.1 + 0.2, None),
    ],
)
def test_decimals_that_are_roots_to_the_last_bit(number: float, root: Any) -> None:
    x, decimal = sp.Symbol("x"), sp.Rational(repr(number))
    assert sp.simplify(with_roots(decimal * x) - (decimal if root is None else root) * x) == 0


def test_the_slope_of_a_wave_is_the_other_wave() -> None:
    source = emitted(lambda x: (x.sin() * x.cos()).sum(), X)
    assert source.count(".sin()") == source.count(".cos()") == 1


def test_the_slopes_of_gates_are_kernels() -> None:
    assert "gelu_backward" in emitted(lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), X)
    assert "silu_backward" in emitted(lambda x: x / (1 + torch.exp(-x)), X)
    assert "mish_backward" in emitted(lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), X)
    scaled = emitted(lambda x: x / (1 + torch.exp(-1.7 * x)), X)
    assert "silu" not in scaled
    other = emitted(lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.0447 * x**3))), X)
    assert "gelu" not in other


@pytest.mark.parametrize("centre", [lambda s: s - 0.5, lambda s: s - (1 - s), lambda s: 3 - 6 * s])
def test_a_centred_sigmoid_is_a_tanh(centre: Any) -> None:
    source = emitted(lambda x: centre(torch.sigmoid(2 * x)), X)
    assert "x.tanh()" in source
    assert "sigmoid(" not in source


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("gate", [lambda x: x / (1 + torch.exp(-x)), lambda x: x * torch.tanh(torch.log(1 + x.exp()))])
def test_kernels_without_a_second_derivative_are_written_out_for_one(gate: Any) -> None:
    """Under transforms too, which give no sign of what is differentiated where."""
    program = codegen.generate(lambda x, w: gate(x @ w).square().sum(), X, X.T)
    second, true = (torch.func.hessian(f, argnums=1)(X, X.T) for f in (program.function, program.original))
    torch.testing.assert_close(second, true)
    _, along = torch.func.jvp(lambda w: torch.func.grad(program.function, argnums=1)(X, w), (X.T,), (X.T,))
    torch.testing.assert_close(along, torch.einsum("ijkl,kl->ij", true, X.T))


def test_a_minus_goes_in_front_of_a_sum() -> None:
    source = emitted(lambda x: torch.log(1 + torch.exp(-x)).sum(), X)
    assert "-torch.nn.functional.logsigmoid(x).sum()" in source


def test_what_is_centred_is_not_centred_again() -> None:
    """The mean of centred rows is zero: their variance does not take it."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(0)
        return (1 - (x.var(0) + 1e-4).sqrt()).relu().mean() + (x.T @ x).square().sum()

    source = emitted(forward, torch.cat([X, 2 * X, X.sin()]))
    first = source[source.index("def forward(") : source.index("def backward(")]
    assert first.count(".mean(0)") == 1 + first.count("_rounded.mean(0)")


def test_a_power_is_written_as_a_power() -> None:
    """Its definition says what it is where the base is 0; what is passed back is held to that."""
    e = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    source = emitted(lambda x, p: (x.abs() ** p).sum(), torch.cat([X[:3], X[:1] * 0 + 1]), e)
    forward = source[source.index("def forward(") : source.index("def backward(")]
    assert "**" in forward
    assert "where" not in forward


def test_sums_that_differ_in_a_number_are_one() -> None:
    source = emitted(lambda x: x * (x**2).mean(1, keepdim=True) + (x**2).sum(1, keepdim=True), X)
    forward = source[source.index("def forward(") : source.index("def backward(")]
    assert forward.count("** 2)") == 1


def test_a_root_serves_what_is_divided_by_it() -> None:
    def tweedie(x, y):
        mu = torch.exp(x)
        return (y * mu**-0.5 + mu**0.5).sum()

    source = emitted(tweedie, X, X + 1)
    forward = source[source.index("def forward(") : source.index("def backward(")]
    assert forward.count("sqrt()") == 1


def test_the_minus_goes_to_who_reads_a_product() -> None:
    source = emitted(lambda x, y: (3 - (-x * y.exp()) + x).square().sum(), X, X + 1)
    assert "-x" not in source[source.index("def forward(") : source.index("def backward(")]


def normalised_twice(x, w):
    h = x @ w
    u = h / (h**2).sum(1, keepdim=True).sqrt()
    return (u / u.abs().sum(1, keepdim=True)).cumsum(1).sin().sum()


def rescaled_between(x, w):
    h = x @ w
    c = h.abs().amax(1, keepdim=True)
    return (torch.log((h / c) ** 2 @ w**2) + 2 * c.log()).sin().sum()


def stilled(forward: Callable[..., Any], *inputs: torch.Tensor) -> set[str]:
    """What nothing is passed back to, because the result of a forward does not change with it."""
    emitted(forward, *inputs)
    writer = codegen.generate(forward, *inputs).writer
    assert writer is not None
    return {n.name for n in writer.structure.notes if n.rule == STILL}


@pytest.mark.parametrize(("forward", "still"), [(normalised_twice, "u_sqrt"), (rescaled_between, "c")])
def test_nothing_is_passed_back_to_a_scale_that_cancels(forward: Callable[..., Any], still: str) -> None:
    assert stilled(forward, X[:, :4], S) == {still}


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, w: (x @ w / (x @ w).abs().sum(1, keepdim=True) + 1).log().sum(),
        lambda x, w: ((x - x.mean(1, keepdim=True)) @ w).sin().sum(),
        lambda x, w: torch.log((x.exp() / (c := x.exp().sum(1, keepdim=True))) @ w**2).sum() + 2 * c.log().sum(),
    ],
)
def test_something_is_where_it_does_not(forward: Callable[..., Any]) -> None:
    assert not stilled(forward, X[:, :4], S)


def weighed_by_gates(h, x, wf, wi):
    f, i = torch.sigmoid(x @ wf), torch.sigmoid(x @ wi)
    return f / (f + i) * h + i / (f + i) * x


def test_a_gate_that_is_a_factor_of_a_quotient_is_computed_once() -> None:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(s, generator=g, dtype=torch.float64) for s in ((5, 4), (5, 4), (4, 4), (4, 4))]
    source = codegen.generate(weighed_by_gates, *inputs).source.partition("def step")[0]
    assert source.count(".sigmoid()") == 2


def test_a_sum_that_is_the_result_is_not_added_up_again() -> None:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(s, generator=g, dtype=torch.float64) for s in ((5, 4), (5, 4), (4, 4), (4, 4))]
    source = codegen.generate(weighed_by_gates, *inputs).source
    assert "(h - out) * grad_out" in source
    assert "(x - out) * grad_out" in source


def shifted_margin(x, y):
    z = x - x.amax(1, keepdim=True)
    return (z.exp().sum(1).log() - z[torch.arange(4), y]).sum()


def shifted_shares(x):
    z = x - x.amax(1, keepdim=True)
    return z - z.exp().sum(1, keepdim=True).log()


def test_what_is_subtracted_from_logits_is_left_out_of_differences() -> None:
    """So is what is subtracted where one of them is picked; what something else reads is computed all the same."""
    assert "max(" not in emitted(shifted_margin, X, Y).replace("softmax(", "")
    source = emitted(shifted_shares, X)
    assert ".log_softmax(1)" in source
    assert "max(" not in source.replace("softmax(", "")
    emitted(lambda x, y: shifted_margin(x, y) + (x - x.amax(1, keepdim=True)).square().mean(), X, Y)


def zero_inflated(x, a):
    p = 1 / (1 + torch.exp(-a))
    return torch.log(p + (1 - p) * torch.exp(-x.exp())).sum()


def test_what_stands_in_an_exponent_is_read_there() -> None:
    """A mixture of a gate's two sides is one gate over another, and an exponential in an exponent is computed once."""
    source = emitted(zero_inflated, X, S[:, :1])
    assert source.count("x.exp()") == 1
    program = codegen.generate(zero_inflated, X, S[:, :1])
    out, grads = program.value_and_grad(X, 1e4 * S[:, :1])
    assert all(t.isfinite().all() for t in (out, *grads.values()))
