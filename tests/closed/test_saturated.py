"""Where a function is flat its slope is a small difference of large numbers, which a closed form must not lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
