"""Comparisons of a row's index with a column's, as triangles of ones."""

import pytest
import torch
from torch import Tensor

from codegen import generate


@pytest.mark.parametrize("order", ["<=", "<", ">=", ">"])
@pytest.mark.parametrize("turned", [False, True])
def test_an_order_of_two_indices_is_a_triangle(order: str, turned: bool) -> None:
    def forward(x: Tensor) -> Tensor:
        i, j = torch.arange(x.shape[1])[:, None], torch.arange(x.shape[2])
        mask = {"<=": j <= i, "<": j < i, ">=": j >= i, ">": j > i}[order]
        return (x.mT.sin().masked_fill(mask.T, 2.0) * x.mT) if turned else x.sin().masked_fill(mask, 2.0) * x

    program = generate(forward, torch.randn(2, 5, 4, dtype=torch.float64), mode="closed")
    assert "arange" not in program.source
    assert "torch.bool" in program.source
    for shape in ((2, 5, 4), (1, 3, 7), (3, 6, 6)):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        found, expected = program.function(x), forward(x)
        torch.testing.assert_close(found, expected)
        one, other = (torch.autograd.grad(y.sum(), x)[0] for y in (found, expected))
        torch.testing.assert_close(one, other)
