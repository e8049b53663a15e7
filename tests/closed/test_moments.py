"""Variances and covariances from moments: what is emitted is made of deviations, right where the difference has no digits left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import codegen
from codegen.closed.definitions.moments import RULE

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def by_squares(x: Tensor, y: Tensor) -> Tensor:
    v = (x**2).mean(0) - x.mean(0) ** 2
    return (x - x.mean(0)) / (v + 1e-5).sqrt() * y.sum()


def by_sums(x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[0]
    s, q = x.sum(0), (x * x).sum(0)
    return (x - s / n) * ((q - s * s / n) / (n - 1) + 1e-5).rsqrt() * y.sum()


def rows(x: Tensor, y: Tensor) -> Tensor:
    m = x.mean(1, keepdim=True)
    return (x - m) * (x.square().mean(1, keepdim=True) - m.square() + 1e-5).rsqrt() * y.sum()


def covariance(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).mean(0) - x.mean(0) * y.mean(0)


def correlation(x: Tensor, y: Tensor) -> Tensor:
    n = x.numel()
    xx, yy = n * (x * x).sum() - x.sum() ** 2, n * (y * y).sum() - y.sum() ** 2
    return (n * (x * y).sum() - x.sum() * y.sum()) / (xx * yy).sqrt()


def weighted(x: Tensor, y: Tensor) -> Tensor:
    z = x * y[0]
    return ((z**2).mean(0) - z.mean(0) ** 2).sqrt()


FORWARDS: tuple[Callable[..., Tensor], ...] = (by_squares, by_sums, rows, covariance, correlation, weighted)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_moments_are_of_deviations(forward: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    program = codegen.generate(forward, x, y)
    assert any(step.rule == RULE for step in program.derivation.trail)
    for moved in (0.0, 3e3):
        given = [(t + moved).float() for t in (x, y)]
        out, saved = program.forward(*given)
        g = torch.randn(out.shape, generator=generator)
        mine = [out, *program.backward(saved, g).values()]
        leaves = [t.double().requires_grad_() for t in given]
        wanted = forward(*leaves)
        truth = [wanted.detach(), *torch.autograd.grad(wanted, leaves, g.double())]
        for ours, exact in zip(mine, truth, strict=True):
            scale = float(exact.square().mean().sqrt()) + 1e-6
            assert float((ours.double() - exact).abs().max()) < (1e-5 + 1e-6 * moved) * scale


def test_other_differences_stay() -> None:
    """The square of a mean that is no mean of these squares."""

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x**2).mean(0) - y.mean(0) ** 2 + (x**2).sum(0) - x.mean(0) ** 2

    x, y = torch.randn(2, 6, 3, dtype=torch.float64)
    program = codegen.generate(forward, x, y)
    assert not any(step.rule == RULE for step in program.derivation.trail)
    torch.testing.assert_close(program.forward(x, y)[0], forward(x, y))
