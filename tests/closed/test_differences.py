"""Logarithms of differences of exponentials: finite wherever they are defined, with the digits that the naive form loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import pytest
import torch
from torch import Tensor

import codegen
from codegen.closed.definitions.differences import RULE

if TYPE_CHECKING:
    from collections.abc import Callable


def between(a: Tensor, b: Tensor) -> Tensor:
    """The share between two thresholds."""
    return torch.log(torch.sigmoid(a) - torch.sigmoid(b))


def between_by_hand(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(1 / (1 + torch.exp(-a)) - 1 / (1 + torch.exp(-b)))


def exponentials(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(torch.exp(a) - torch.exp(b))


def neither(a: Tensor, b: Tensor) -> Tensor:
    """What neither of two causes does."""
    g = torch.sigmoid(a)
    return torch.log(1 - (g + (1 - g) * torch.sigmoid(b)))


def complementary(a: Tensor) -> Tensor:
    return torch.log(1 - torch.exp(-torch.exp(a)))


def complementary_scaled(a: Tensor) -> Tensor:
    """With an exposure in front of the rate."""
    return torch.log(1 - torch.exp(-0.5 * torch.exp(a)))


def inverse_softplus(a: Tensor) -> Tensor:
    return torch.log(torch.exp(a.abs()) - 1)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


TRUE: dict[Callable[..., Tensor], Callable[..., Any]] = {
    between: lambda a, b: mpmath.log(sigmoid(a) - sigmoid(b)),
    between_by_hand: lambda a, b: mpmath.log(sigmoid(a) - sigmoid(b)),
    exponentials: lambda a, b: mpmath.log(mpmath.exp(a) - mpmath.exp(b)),
    neither: lambda a, b: mpmath.log(1 - (sigmoid(a) + (1 - sigmoid(a)) * sigmoid(b))),
    complementary: lambda a: mpmath.log(-mpmath.expm1(-mpmath.exp(a))) if a < 30 else -mpmath.exp(-mpmath.exp(a)),
    complementary_scaled: lambda a: (
        mpmath.log(-mpmath.expm1(-mpmath.exp(a) / 2)) if a < 30 else -mpmath.exp(-mpmath.exp(a) / 2)
    ),
    inverse_softplus: lambda a: mpmath.log(mpmath.exp(abs(a)) - 1),
}
ORDINARY = (-30.0, -3.0, -0.5, 0.25, 1.0, 4.0, 30.0)
LARGE = (-750.0, -50.0, 50.0, 750.0)


def pairs(values: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """All pairs of which the first is the larger one."""
    found = [(a, b) for a in values for b in values if a > b]
    first, second = torch.tensor(found, dtype=torch.float64).T
    return first.contiguous(), second.contiguous()


def truth(f: Any, at: list[float]) -> tuple[float, list[float]]:
    """A value and its slopes, in digits enough for exp(-1500) beside 1."""
    with mpmath.workdps(90 if max(map(abs, at)) < 100 else 1500):
        own = [mpmath.mpf(x) for x in at]
        step = mpmath.mpf(10) ** (-mpmath.mp.dps // 3)
        slopes = [(f(*moved(own, k, step)) - f(*moved(own, k, -step))) / (2 * step) for k in range(len(own))]
        return float(f(*own)), [float(s) for s in slopes]


def moved(at: list[Any], k: int, step: Any) -> list[Any]:
    return [x + step if i == k else x for i, x in enumerate(at)]


@pytest.mark.parametrize("forward", TRUE, ids=lambda f: f.__name__)
def test_values_and_slopes_have_their_digits(forward: Callable[..., Tensor]) -> None:
    one = forward.__code__.co_argcount == 1
    example = torch.tensor([2.0, 1.0, 0.5]), torch.tensor([1.0, -1.0, 0.0])
    program = codegen.generate(forward, *[x.double() for x in example[: 1 if one else 2]])
    assert any(s.rule == RULE for s in program.derivation.trail)
    for values in (ORDINARY, LARGE):
        inputs = [torch.tensor(values, dtype=torch.float64)] if one else list(pairs(values))
        out, saved = program.forward(*inputs)
        found = program.backward(saved)
        known = [truth(TRUE[forward], [float(x) for x in at]) for at in zip(*inputs, strict=True)]
        torch.testing.assert_close(
            out, torch.tensor([v for v, _ in known], dtype=torch.float64), rtol=1e-13, atol=1e-15
        )
        for k, slope in enumerate(found.values()):
            true = torch.tensor([s[k] for _, s in known], dtype=torch.float64)
            torch.testing.assert_close(slope, true, rtol=1e-12, atol=1e-15)
    huge = [1e4 * t for t in ([torch.tensor([-1.0, 1.0]).double()] if one else pairs((-1.5, -1.0, 1.0, 1.5)))]
    out, found = program.value_and_grad(*huge)
    assert all(t.isfinite().all() for t in (out, *found.values()))
