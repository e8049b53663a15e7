"""Tensors beside each other, of which some are views or numbers: emitted as a stack of them, and right at one row and of any kind."""

from __future__ import annotations

import pytest
import torch

import codegen

G = torch.Generator().manual_seed(0)
X = torch.randn(5, 2, generator=G, dtype=torch.float64)


def last(x):
    a, b = x[:, 0], x[:, 1]
    return (torch.stack([a, b, a * b, a - b], 1) @ torch.ones(4, 3, dtype=x.dtype).cumsum(0)).sin()


def first(x):
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a, torch.ones_like(a), a * b], 0) * b


def numbers(x):
    a = x[:, 0]
    return torch.stack([torch.zeros_like(a), a, torch.full_like(a, 0.5), a.exp()], 1) ** 2


def within(x):
    return torch.stack([x, 2 * x, x.T.T * x], 1).cos().sum(2)


def of_columns(x):
    return torch.stack([x[:, :1] * x, x, x[:, 1:] + x], 2).exp()


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("f", [last, first, numbers, within, of_columns], ids=lambda f: f.__name__)
def test_what_stands_beside_each_other_is_stacked(f, rows: int) -> None:
    x = X[:rows]
    program = codegen.generate(f, X if rows > 1 else x)
    leaf = x.clone().requires_grad_()
    true = f(leaf)
    grad = torch.randn(true.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, true.detach())
    torch.testing.assert_close(program.backward(saved, grad)["x"], torch.autograd.grad(true, leaf, grad)[0])
    assert "torch.where" not in program.source.split("def step(")[0]
