"""Powers of a tensor by a tensor: their slopes as the emitted file has them, also at 0, where torch says what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

X = torch.tensor([[0.0, 0.5, 1.0, 2.0]] * 5, dtype=torch.float64).T.contiguous()
Y = torch.tensor([-0.5, 0.0, 1.0, 2.0, 3.5], dtype=torch.float64)


def plain(x, y):
    return x**y


def scaled(x, y, a):
    return (x / a) ** y


def amplitude(x, y, a):
    return ((a * x) ** y).sum(1)


@pytest.mark.parametrize(
    ("forward", "inputs"), [(plain, (X, Y)), (scaled, (X, Y, Y.exp())), (amplitude, (X, Y, X[:, :1] + 1))]
)
def test_slopes_are_torchs_where_these_are_finite(
    forward: Callable[..., Any], inputs: tuple[torch.Tensor, ...]
) -> None:
    program = codegen.generate(forward, *inputs)
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = forward(*leaves)
    mine, saved = program.forward(*inputs)
    assert mine.equal(out.detach())
    gradients = program.backward(saved)
    for mine, true in zip(gradients.values(), torch.autograd.grad(out.sum(), leaves), strict=True):
        there = true.isfinite()
        assert bool(there.any())
        torch.testing.assert_close(mine[there], true[there])


def test_a_scale_of_the_base_reads_the_power_alone() -> None:
    """The slope in a of (x / a)^y is -y (x / a)^y / a: no second power, no case for x = 0."""
    source = codegen.generate(scaled, X, Y, Y.exp(), wrt=("a",)).source
    backward = source[source.index("def backward") : source.index("return {")]
    assert "where" not in backward
    assert "**" not in backward
