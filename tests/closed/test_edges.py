"""Where the algebra is right and the floats are not: overflow, masked rows, truth values added up, constants of another dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from codegen.emit import sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

INF = float("inf")

ADDED: dict[str, Callable[..., Any]] = {
    "logaddexp": lambda x, y: 2 * torch.logaddexp(x, y),
    "logaddexp2": lambda x, y: 2 * torch.logaddexp2(x, y),
    "summed over pairs": lambda x, y: torch.logaddexp(x[:, None], y).sum(0),
    "of itself": lambda x, y: torch.logaddexp(torch.logaddexp(x, y), 2 * x),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", ADDED)
def test_logarithms_of_sums_of_exponentials(name: str, mode: str) -> None:
    """Large entries, equal ones, and one that is minus infinity."""
    x = torch.tensor([1e3, -1e3, 3.0, 2.0, 1.0], dtype=torch.float64)
    y = torch.tensor([1e3, -3e3, -INF, 1e3, -2.0], dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, y)]
    wanted = ADDED[name](*leaves)
    program = codegen.generate(ADDED[name], x, y, mode=mode)
    out, saved = program.forward(x, y)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-12, atol=0)
    grads = program.backward(saved)
    for name_of_input, theirs in zip(("x", "y"), torch.autograd.grad(wanted.sum(), leaves), strict=True):
        torch.testing.assert_close(grads[name_of_input], theirs, rtol=1e-12, atol=1e-300)


def test_a_naive_one_is_stable_too() -> None:
    """autograd of this gives inf and nan."""
    x, y = torch.tensor([1e3, -1e3, 2.0]).double(), torch.tensor([1e3, -1e3, 1e4]).double()
    program = codegen.generate(lambda x, y: (x.exp() + y.exp()).log(), x, y)
    out, saved = program.forward(x, y)
    torch.testing.assert_close(out, torch.logaddexp(x, y))
    assert torch.equal(program.backward(saved)["x"], torch.tensor([0.5, 0.5, 0.0]).double())


FACTORS: dict[str, Callable[..., Any]] = {
    "a gate that starts at zero": lambda s, x: (s * x).sum(),
    "its tanh": lambda s, x: (s.tanh() * x).sum(),
    "a mean": lambda s, x: (s.mean() * x).mean(),
    "squared errors": lambda s, x: ((s * x) ** 2).sum(),
    "two of them": lambda s, x: (s * x * s.sin()).sum().tanh(),
    "rows": lambda s, x: (s * x.softmax(0)).sum(),
    "in a product of matrices": lambda s, x: ((s * torch.ones(3, 1, dtype=torch.float64)) @ x[None]).tanh(),
}


@pytest.mark.parametrize("name", FACTORS)
def test_what_a_sum_is_multiplied_by_may_be_zero(name: str) -> None:
    """The sum is not what the product is over the factor then."""
    s, x = torch.tensor(0.5, dtype=torch.float64), torch.linspace(-1, 2, 5, dtype=torch.float64)
    program = codegen.generate(FACTORS[name], s, x)
    for value in (0.5, 0.0):
        leaves = [torch.full_like(s, value).requires_grad_(), x.clone().requires_grad_()]
        wanted = torch.autograd.grad(FACTORS[name](*leaves).sum(), leaves)
        _, saved = program.forward(*[t.detach() for t in leaves])
        for mine, theirs in zip(program.backward(saved).values(), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


WEIGHTED: dict[str, Callable[..., Any]] = {
    "a gate": lambda v, k: torch.sigmoid(k) * ((k.exp() * v).sum(0) / k.exp().sum(0)),
    "squared": lambda v, k: ((k.exp() * v).sum(0) / k.exp().sum(0)) ** 2 * k.tanh(),
    "a share of it": lambda v, k: k.exp() * v / (1 + (k.exp() * v).sum(0)),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_what_is_weighted_by_exponentials_may_sum_to_zero(name: str) -> None:
    """Exponentials are positive, what they are multiplied by is not: the sum of it is divided by nowhere."""
    k = torch.linspace(-1, 2, 10, dtype=torch.float64).view(5, 2)
    program = codegen.generate(WEIGHTED[name], k.sin(), k)
    for v in (k.sin(), torch.zeros_like(k)):
        leaves = [v.clone().requires_grad_(), k.clone().requires_grad_()]
        wanted = torch.autograd.grad(WEIGHTED[name](*leaves).sum(), leaves)
        _, saved = program.forward(v, k)
        for mine, theirs in zip(program.backward(saved).values(), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


MASKED: dict[str, Callable[..., Any]] = {
    "a mask computed after": lambda s, y: torch.log(1 + (torch.exp(s) * (1 - y)).sum(1)).mean(),
    "a mask that is given": lambda s, y: torch.log(1 + (torch.exp(s) * y).sum(1)).mean(),
    "both, multi-label by a threshold at zero": lambda s, y: (
        torch.log(1 + (torch.exp(s) * (1 - y)).sum(1)) + torch.log(1 + (torch.exp(-s) * y).sum(1))
    ).mean(),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_exponentials_do_not_overflow(name: str) -> None:
    """Where they are large, the logarithm of one more than their sum is the largest of them, or 0."""
    y = (torch.arange(24).view(4, 6) % 5 < 2).double()
    s = 1e4 * torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6).flip(0)
    program = codegen.generate(MASKED[name], s, y, wrt=("s",))
    out, saved = program.forward(s, y)
    largest = [(torch.where(m > 0, t, 0).amax(1).relu()).mean() for t, m in ((s, 1 - y), (s, y), (-s, y))]
    wanted = {"a mask computed after": largest[0], "a mask that is given": largest[1]}.get(
        name, largest[0] + largest[2]
    )
    torch.testing.assert_close(out, wanted)
    (grad,) = program.backward(saved).values()
    assert bool(grad.isfinite().all())
    assert float(grad.abs().max()) <= 1


def off_diagonal(x: Tensor) -> Tensor:
    return 1 - torch.eye(len(x), dtype=x.dtype)


ALL_BUT_ONE: dict[str, Callable[..., Any]] = {
    "exponentials": lambda x: (x.exp() * off_diagonal(x)).sum(1).sqrt().mean(),
    "squares": lambda x: (x**2 * off_diagonal(x)).sum(1).sqrt().mean(),
    "read twice": lambda x: (lambda e: (e.tanh().sum(1) / e.sum(1)).mean())(x.exp() * off_diagonal(x)),
}


@pytest.mark.parametrize("name", ALL_BUT_ONE)
def test_what_is_left_out_of_a_sum_may_be_larger_by_far(name: str) -> None:
    """The sum over all less what is left out would be what rounding left of it."""
    x = torch.linspace(-2, 1, 36).view(6, 6).sin() + 18 * torch.eye(6)
    leaf = x.double().requires_grad_()
    wanted = ALL_BUT_ONE[name](leaf)
    program = codegen.generate(ALL_BUT_ONE[name], x)
    out, saved = program.forward(x)
    torch.testing.assert_close(out.double(), wanted.detach(), rtol=1e-6, atol=0)
    (theirs,) = torch.autograd.grad(wanted, leaf)
    torch.testing.assert_close(program.backward(saved)["x"].double(), theirs, rtol=1e-5, atol=1e-7)


def test_a_row_that_is_masked_altogether() -> None:
    """Its logarithm of a sum is minus infinity; what is passed back to what is masked is 0."""
    x = torch.randn(3, 2, 1, 2, dtype=torch.float64)
    mask = torch.tensor([[True, True], [False, True], [False, False]])[:, :, None, None]
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(torch.masked.logsumexp(leaf, (1, 3), mask=mask).sum(), leaf)
    program = codegen.generate(lambda x, mask: torch.masked.logsumexp(x, (1, 3), mask=mask), x, mask)
    _, saved = program.forward(x, mask)
    torch.testing.assert_close(program.backward(saved)["x"], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_a_mean_over_nothing_is_undefined(mode: str, size: int) -> None:
    """0/0 where all is masked, also where the count is over one place; what is passed back there is zero."""

    def forward(x: Tensor, m: Tensor) -> Tensor:
        return torch.where(m, x, 0).sum(1, keepdim=True) / m.sum(1, keepdim=True)

    x = torch.randn(2, size, 2, dtype=torch.float64, requires_grad=True)
    m = torch.tensor([True, False]).expand(2, size, 2)
    out, saved = (program := codegen.generate(forward, x.detach(), m, mode=mode)).forward(x.detach(), m)
    true = forward(x, m)
    assert true.isnan().any()
    torch.testing.assert_close(out, true.detach(), equal_nan=True)
    (expected,) = torch.autograd.grad(true, x, torch.ones_like(true))
    assert torch.equal(program.backward(saved)["x"][..., 0], expected[..., 0])


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("reduce", ["amin", "amax", "mean"])
def test_truth_values_are_added_up_as_floats(reduce: str) -> None:
    """How many entries share an extreme value is a sum of comparisons at places."""
    x, src = torch.randn(5, 4).double(), torch.randn(5, 6).double()
    index = torch.tensor([0, 1, 2, 3, 0, 1])

    def forward(x: Tensor, src: Tensor) -> Tensor:
        return x.index_reduce(1, index, src, reduce)

    leaves = [t.clone().requires_grad_() for t in (x, src)]
    wanted = torch.autograd.grad(forward(*leaves).sum(), leaves)
    program = codegen.generate(forward, x, src)
    _, saved = program.forward(x, src)
    for name, theirs in zip(("x", "src"), wanted, strict=True):
        torch.testing.assert_close(program.backward(saved)[name], theirs, rtol=1e-12, atol=1e-12)


CONSTANTS: tuple[Callable[[int], Tensor], ...] = (
    lambda n: torch.arange(0.5, n + 0.5, dtype=torch.float64) * 0.1,
    lambda n: torch.linspace(0, 1, n, dtype=torch.float64),
    lambda n: torch.eye(n, dtype=torch.float64) / 3,
    lambda n: torch.full((n,), 0.3, dtype=torch.float32) + 1,
    lambda n: torch.arange(n) / 3,
    lambda n: torch.arange(n, dtype=torch.float16) + 1,
    lambda n: torch.full((n,), 2.7, dtype=torch.int64),
    lambda n: torch.ones(n, dtype=torch.bool),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_results_that_read_no_input(mode: str, dtype: torch.dtype) -> None:
    """They are the forward's to the last bit, whatever precision the inputs have."""

    def forward(x: Tensor) -> tuple[Tensor, ...]:
        return x * 2, *[made(x.shape[0]) for made in CONSTANTS]

    x = torch.randn(3, dtype=dtype)
    out, _ = codegen.generate(forward, x, mode=mode).forward(x)
    for mine, theirs in zip(out, forward(x), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_values_that_cancel_out_of_a_result(mode: str, dtype: torch.dtype) -> None:
    """What is left reads only sizes, and has the precision of what was there."""

    def forward(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x - x, (0, 2), value=1.0).tanh() * torch.arange(5)

    x = torch.randn(2, 3).to(dtype)
    program = codegen.generate(forward, x, mode=mode)
    out, grads = program.value_and_grad(x)
    assert out.dtype == grads["x"].dtype == dtype
    torch.testing.assert_close(out, forward(x))


def test_a_cell_that_only_a_region_has() -> None:
    """The logistic function inside of silu gets a cotangent of its own, and counts of places are tensors without a cotangent."""

    def forward(w: Tensor, i: Tensor) -> Tensor:
        return torch.nn.functional.silu(w[i].index_add(0, i * 0, w[i]))

    w, i = torch.randn(3, 2, dtype=torch.float64), torch.tensor([1, 0, 2, 0])
    program = codegen.generate(forward, w, i)
    assert codegen.check(program, w, i).ok
    leaf = w.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: program.function(t, i), (leaf,))


SIZED: dict[str, Callable[[Tensor], Tensor]] = {
    "distance": lambda x: torch.nn.functional.pairwise_distance(x, x).tanh(),
    "trigonometric": lambda x: torch.ones_like(x).sum(1).sin() * (x * 0).sum(1).cos(),
    "quotient": lambda x: torch.ones_like(x).sum().exp() / (1 + torch.ones_like(x).sum(0).erf()),
    "lgamma": lambda x: torch.ones_like(x).sum(0).lgamma() + torch.ones_like(x).sum(0).digamma(),
    "sigmoid": lambda x: (
        (torch.ones_like(x).sum() / 7).sigmoid() * x + torch.nn.functional.gelu(torch.ones_like(x).sum())
    ),
    "steps": lambda x: (torch.ones_like(x).sum(0) / 3).floor() + (torch.ones_like(x).sum(0) - 3.3).sign() * x,
    "kinks": lambda x: (torch.ones_like(x).sum(0) - 3.3).relu() + (torch.ones_like(x).sum(0) - 3.3).abs() * x,
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", SIZED)
def test_functions_of_sizes(name: str, mode: str) -> None:
    """Numbers that follow from sizes go through every function in the result's precision."""
    for shape in ((2, 3), (4, 1), (1, 3)):
        x = torch.randn(shape, dtype=torch.float64)
        program = codegen.generate(SIZED[name], x, mode=mode)
        out, _ = program.forward(x)
        assert out.dtype == x.dtype
        torch.testing.assert_close(out, SIZED[name](x), rtol=1e-14, atol=1e-14)
        assert codegen.check(program, x).ok


def test_one_name_in_a_block() -> None:
    """What is saved is a tuple, on one line and where that is too long."""
    for returned in ("out", "out, " * 40):
        text = "\n".join(sequence(["x"], ",)", 4, f"return ({returned}), ("))
        compile(f"def f():\n    {text}", "block", "exec")
        assert text.replace(" ", "").replace("\n", "").endswith("(x,)")


def test_what_is_the_largest_is_what_the_forward_compared() -> None:
    """In another order of operations the largest element is not equal to the maximum to the last bit."""

    def forward(v: torch.Tensor) -> torch.Tensor:
        z = (v - v.mean(0, keepdim=True)) * (v.var(0, keepdim=True, correction=0) + 1e-2).rsqrt()
        return z.amax(0)

    program = codegen.generate(forward, torch.randn(3, 1, dtype=torch.float64))
    for seed in range(40):
        v = torch.randn(3, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
        (true,) = torch.autograd.grad(forward(v).sum(), v)
        _, saved = program.forward(v.detach())
        torch.testing.assert_close(program.backward(saved)["v"], true)


HIDDEN: dict[str, Callable[..., Any]] = {
    "filled": lambda x, m: x.masked_fill(m, -INF).logsumexp(1),
    "chosen": lambda x, m: torch.where(m, x, -INF).logsumexp(1).sum(),
    "shares": lambda x, m: torch.where(m, x, -INF).exp() / torch.where(m, x, -INF).exp().sum(1, keepdim=True),
}


@pytest.mark.parametrize("shape", [(4, 5), (5, 5), (64, 4), (9, 2)], ids=str)
@pytest.mark.parametrize("name", HIDDEN)
def test_masks_of_minus_infinity_do_not_keep_a_form_from_being_judged(name: str, shape: tuple[int, int]) -> None:
    """A row without any entry has no shares; the gates look where it has."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    m = torch.rand(shape, generator=g) > 0.5
    program = codegen.generate(HIDDEN[name], x, m)
    m[:, 0], m[:, 1] = True, False
    near = x.clone().requires_grad_()
    wanted = HIDDEN[name](near, m)
    cotangent = torch.randn(wanted.shape, generator=g, dtype=torch.float64)
    (theirs,) = torch.autograd.grad(wanted, near, cotangent)
    for offset in (0.0, 1e4):
        _, saved = program.forward(x + offset, m)
        torch.testing.assert_close(program.backward(saved, cotangent)["x"], theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_a_clamp_moves_with_neither_bound_where_they_meet(mode: str) -> None:
    """As in torch: the lower bound's slope is 1 below it where it is below the upper one."""
    x = torch.tensor([-3.0, 0.0, 3.0, -3.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    low = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 2.0, 1.0], dtype=torch.float64)
    high = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, low, high)]
    theirs = torch.autograd.grad(torch.clamp(*leaves).sum(), leaves)
    program = codegen.generate(lambda x, low, high: x.clamp(low, high), x, low, high, mode=mode)
    mine = program.backward(program.forward(x, low, high)[1])
    assert all(torch.equal(mine[n], g) for n, g in zip(("x", "low", "high"), theirs, strict=True))
    program = codegen.generate(lambda x, high: x.clamp(torch.full_like(x, -1.0), high), x, high, mode=mode)
    assert torch.equal(program.forward(x, high)[0], x.clamp(-1.0, 1.0))


RECTIFIED: dict[str, Callable[..., Any]] = {
    "root": lambda x: x.relu().sqrt(),
    "power": lambda x: x * x.relu() ** 0.3,
    "reciprocal root": lambda x: x.clamp(min=0).rsqrt(),
    "reciprocal": lambda x: 1 / torch.where(x > 0, x, 0),
    "logarithm": lambda x: x.relu().log(),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", RECTIFIED)
def test_what_is_infinite_where_a_gate_is_shut(name: str, mode: str) -> None:
    """The slope there is not what the case that is left says, 1/0: it is masked, and autograd gives 0."""
    x = torch.linspace(-2, 3, 12, dtype=torch.float64).view(3, 4)
    leaf = x.clone().requires_grad_()
    wanted = RECTIFIED[name](leaf)
    program = codegen.generate(RECTIFIED[name], x, mode=mode)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, wanted.detach())
    (theirs,) = torch.autograd.grad(wanted, leaf, torch.ones_like(wanted))
    torch.testing.assert_close(program.backward(saved)["x"], theirs, rtol=1e-12, atol=0)
    assert theirs[0, 0] == 0


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_the_sign_of_a_zero_that_is_known(mode: str) -> None:
    """It is a positive one; 1/0 is no number that a rule could compare."""
    x = torch.tensor([[-1.5, 2.0], [0.5, -3.0]], dtype=torch.float64)
    program = codegen.generate(lambda x: x.copysign((x - x) ** 2) * x, x, mode=mode)
    out, saved = program.forward(x)
    assert torch.equal(out, x.abs() * x)
    assert torch.equal(program.backward(saved)["x"], 2 * x.abs())


PAIRS: dict[str, Callable[..., Any]] = {
    "cdist": lambda x, y: torch.cdist(x, y, p=INF),
    "pdist": lambda x, y: torch.pdist(x + 0 * y.sum(), p=INF),
    "cdist of batches": lambda x, y: torch.cdist(torch.stack([x, 2 * x]), y, p=INF),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", PAIRS)
def test_coordinates_that_are_the_largest_together_have_all_of_a_gradient(name: str, mode: str) -> None:
    """torch's distances pass it whole to each of them, where its norms share it out; equal points have none."""
    forward = PAIRS[name]
    x = torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [2.0, 0.0, -2.0], [0.3, 0.1, 0.2]], dtype=torch.float64)
    y = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, 0.0], [0.5, 0.0, 4.0]], dtype=torch.float64)
    program = codegen.generate(forward, x, y, mode=mode)
    found: list[Any] = []
    for f in (program.function, forward):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        out = f(*leaves)
        weights = torch.arange(1.0, 1.0 + out.numel(), dtype=torch.float64).view_as(out)
        found.append((out.detach(), torch.autograd.grad((out * weights).sum(), leaves)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_numbers_that_are_compared_with_infinity(mode: str) -> None:
    def forward(x: Tensor) -> Tensor:
        return (x * torch.isclose(x, x)).sum() + (x * torch.isclose(x, x + 0.5)).square().sum()

    x = torch.tensor([-2.0, 0.0, 3.0, 1e300, 1e6], dtype=torch.float64)
    program = codegen.generate(forward, torch.randn(5, dtype=torch.float64), mode=mode)
    leaf = x.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(forward(leaf), leaf)
    torch.testing.assert_close(program.value_and_grad(x)[1]["x"], theirs)


def beyond(x: Tensor) -> Tensor:
    return torch.logcumsumexp(x, 1)


def masked_sums(x: Tensor) -> Tensor:
    return torch.logcumsumexp(x.masked_fill(x > 2.5, -INF), 1).exp()


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", [beyond, masked_sums])
def test_running_sums_that_begin_with_nothing(forward: Callable[..., Any], mode: str) -> None:
    """Their shares are undefined up to the first term, which is not passed on to those that come after."""
    x = torch.tensor([[-INF, 3.0, 1.0, 2.0, -INF, 0.5], [3.0, 3.0, 1.0, -1.0, 3.0, 2.0], [-1.0] * 6]).double()
    x = x if forward is beyond else x.clamp(min=-9)
    program = codegen.generate(forward, torch.randn(3, 6, dtype=torch.float64), mode=mode)
    leaf = x.clone().requires_grad_()
    weights = torch.linspace(-1, 2, 18, dtype=torch.float64).view(3, 6)
    (theirs,) = torch.autograd.grad(forward(leaf), leaf, weights)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, forward(x))
    found = program.backward(saved, weights)["x"]
    torch.testing.assert_close(found, theirs, equal_nan=True, rtol=1e-12, atol=1e-14)
    assert int(found.isfinite().sum()) == (17 if forward is beyond else 18)


def test_what_is_compared_alone_gets_no_gradient() -> None:
    """The slope of `1 / gap` is infinite where the largest is, and what comes back to it is nothing, which is not 0 times that."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        gap = x.amax(0) - x
        return torch.where(torch.isfinite(1 / gap), gap, 0.0).sum()

    x = torch.tensor([[1.0, 2.0], [4.0, -3.0], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    (true,) = torch.autograd.grad(forward(x), x)
    torch.testing.assert_close(codegen.generate(forward, x.detach()).value_and_grad(x.detach())[1]["x"], true)


def test_what_is_a_number_of_a_size_is_written_in_numbers() -> None:
    """Of one class each share is 1, and exponentials of those are numbers, too."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        shares = x.unsqueeze(-1).softmax(-1).squeeze(-1)
        return -shares.log_softmax(-1).sum() + torch.nn.functional.cross_entropy(shares, x.argmax(-1), reduction="sum")

    x = torch.tensor([[1.0, 2.0, -1.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(codegen.generate(forward, x).forward(x)[0], forward(x))


def unit(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return (x / x.norm(dim=1, keepdim=True) * g).sum()


def standardised(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return ((x - x.mean(0)) / x.std(0) * g).sum()


def softened(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return (x / (x.norm(dim=1, keepdim=True) + 1e-3) * g).sum()


@pytest.mark.parametrize("forward", [unit, standardised])
def test_a_sum_that_is_divided_by_zero_needs_no_choice(forward) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    program = codegen.generate(forward, x, y)
    assert "where(" not in program.source
    for still in (False, True):
        leaves = [(torch.zeros_like(x) if still else x).requires_grad_(), y.clone().requires_grad_()]
        true = torch.autograd.grad(forward(*leaves), leaves)
        _, found = program.value_and_grad(*(t.detach() for t in leaves))
        assert torch.equal(found["x"].isfinite(), true[0].isfinite())
        if not still:
            torch.testing.assert_close(tuple(found.values()), true)


def test_a_choice_stays_where_nothing_else_is_divided_by_zero() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    x[2] = 0
    leaves = [x.requires_grad_(), y.requires_grad_()]
    true = torch.autograd.grad(softened(*leaves), leaves)
    _, found = codegen.generate(softened, x.detach(), y.detach()).value_and_grad(x.detach(), y.detach())
    torch.testing.assert_close(tuple(found.values()), true)
