"""Where a function is flat its slope is a small difference of large numbers, which a closed form must not lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import pytest
import torch

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

FLAT: dict[str, Callable[..., Any]] = {
    "tanh of tanh of a sum": lambda x, w: ((x - w) ** 2).sum().tanh().tanh(),
    "three times tanh": lambda x, w: (x * w).tanh().tanh().tanh(),
    "sigmoid of sigmoid": lambda x, w: (-(x**2) - w**2).sigmoid().sigmoid(),
    "squares of slopes": lambda x, w: (1 - x.tanh() ** 2) ** 2 * (1 - w.tanh() ** 2),
}


@pytest.mark.parametrize("name", FLAT)
def test_gradients_are_as_accurate_as_autograds(name: str) -> None:
    def inputs(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(k)
        x, w = torch.randn(2, 2, 3, generator=g, dtype=torch.float64)
        return 3 * x, w

    program = codegen.generate(FLAT[name], *inputs(0))
    for k in range(8):
        report = codegen.check(program, *inputs(k))
        assert report.ok, report.failures


def softplus_of_a_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.log(1 + torch.exp(-x * y))


def ranked(u: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.logsigmoid((u * i).sum(-1) - (u * j).sum(-1)).mean()


def test_a_slope_of_almost_nothing_keeps_its_digits_where_that_costs_nothing() -> None:
    """`sigmoid(g) - 1` has none at g = 36, where `-sigmoid(-g)` has all, and only one of the two is kept."""
    for forward, inputs in (
        (softplus_of_a_product, [torch.tensor(6.0), torch.tensor(6.0)]),
        (ranked, [torch.full((2, 4), 3.0), torch.full((2, 4), 3.0), torch.zeros(2, 4)]),
    ):
        given = [t.double() for t in inputs]
        leaves = [t.clone().requires_grad_() for t in given]
        true = torch.autograd.grad(forward(*leaves), leaves)
        program = codegen.generate(forward, *given)
        found = program.backward(program.forward(*given)[1])
        for own, other in zip(found.values(), true, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=0)


def guessed(z: torch.Tensor, c: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The three-parameter model of item response theory: who does not know still guesses right with probability c."""
    p = c + (1 - c) * torch.sigmoid(z)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).sum()


def test_what_a_mixture_lacks_of_one_is_told_where_it_rounds_to_one() -> None:
    """`1 - (c + (1 - c) sigmoid(z))` is `(1 - c) sigmoid(-z)`, whose logarithm is finite at any z; autograd has nan from 40 on."""
    z = torch.tensor([-1e4, -40.0, -3.0, 0.2, 3.0, 40.0, 1e4], dtype=torch.float64).repeat(2)
    y = torch.arange(2, dtype=torch.float64).repeat_interleave(7)
    c = torch.tensor(0.2, dtype=torch.float64)
    loss, found = codegen.generate(guessed, z, c, y).value_and_grad(z, c, y)
    with mpmath.workdps(50):
        true = [exact_slopes(mpmath.mpf(float(a)), mpmath.mpf(float(c)), int(b)) for a, b in zip(z, y, strict=True)]
    torch.testing.assert_close(loss, torch.tensor(float(sum(t[0] for t in true)), dtype=torch.float64))
    torch.testing.assert_close(found["z"], torch.tensor([float(t[1]) for t in true], dtype=torch.float64))
    torch.testing.assert_close(found["c"], torch.tensor(float(sum(t[2] for t in true)), dtype=torch.float64))


def of_shares(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy(torch.sigmoid(z), y, reduction="sum")


def by_hand(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    p = 1 / (1 + torch.exp(-z))
    return -(y * p.log().clamp(min=-100) + (1 - y) * (1 - p).log().clamp(min=-100)).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forward", [of_shares, by_hand])
def test_a_bounded_logarithm_of_a_sigmoid_is_told_where_it_rounds(
    forward: Callable[..., Any], dtype: torch.dtype
) -> None:
    """The loss is -100 at the most, and its slope 0 from there on; float64 autograd has that from 37 on, and float32's from 17 on."""
    at = [-1e4, -120.0, -95.0, -40.0, -20.0, -3.0, 0.2, 3.0, 20.0, 40.0, 95.0, 120.0, 1e4]
    z = torch.tensor(at, dtype=dtype).repeat(3)
    y = torch.tensor([0.0, 0.25, 1.0], dtype=dtype).repeat_interleave(len(at))
    loss, found = codegen.generate(forward, z, y).value_and_grad(z, y)
    with mpmath.workdps(60):
        true = [bounded(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(z, y, strict=True)]
    torch.testing.assert_close(loss, torch.tensor(float(sum(t[0] for t in true)), dtype=dtype))
    for name, k in (("z", 1), ("y", 2)):
        torch.testing.assert_close(found[name], torch.tensor([float(t[k]) for t in true], dtype=dtype))


def bounded(z: Any, y: Any) -> tuple[Any, Any, Any]:
    """The loss and its slopes in z and y."""
    p = 1 / (1 + mpmath.exp(-z))
    one, other = -mpmath.log(1 + mpmath.exp(-z)), -mpmath.log(1 + mpmath.exp(z))
    slope = (1 - y) * p * (other > -100) - y * (1 - p) * (one > -100)
    return -y * max(one, -100) - (1 - y) * max(other, -100), slope, max(other, -100) - max(one, -100)


def exact_slopes(z: Any, c: Any, y: int) -> tuple[Any, Any, Any]:
    """The loss of one answer, and its slopes in z and c by differences in 50 digits of what is defined everywhere."""

    def loss(z: Any, c: Any) -> Any:
        down = 1 / (1 + mpmath.exp(z))
        return -mpmath.log(c + (1 - c) * (1 - down)) if y else -mpmath.log((1 - c) * down)

    slopes = (mpmath.diff(loss, (z, c), n) for n in ((1, 0), (0, 1)))
    return (loss(z, c), *slopes)
