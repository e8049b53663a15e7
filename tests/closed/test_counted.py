"""Positions compared with whole numbers, `arange(n) == y`, and sums of what one place is left of: picked, also for numbers that are no position."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import codegen

G = torch.Generator().manual_seed(0)
X = torch.randn(6, 7, generator=G, dtype=torch.float64)
TABLE = torch.randn(7, 3, generator=G, dtype=torch.float64)
Y = torch.tensor([0, 6, 3, 3, 1, 2])
OUTSIDE = torch.tensor([0, -1, 7, 3, -100, 5])


def one_hot(x, y):
    return (y[:, None] == torch.arange(x.shape[1])).to(x.dtype)


def share(x, y):
    p = x.exp() / x.exp().sum(1, keepdim=True)
    return -(p * one_hot(x, y)).sum(1).log().mean()


def share_of_library(x, y):
    p = x.exp() / x.exp().sum(1, keepdim=True)
    return -(p * F.one_hot(y, x.shape[1])).sum(1).log().mean()


def entries(x, y):
    return ((x * one_hot(x, y)).sum(1) ** 2).mean()


def chosen(x, y):
    mask = torch.arange(x.shape[1]) == y[:, None]
    return (torch.where(mask, x.exp(), torch.zeros_like(x)).sum(1) ** 2).mean()


def filled(x, y):
    logp = x - x.exp().sum(1, keepdim=True).log()
    return logp.masked_fill(torch.arange(x.shape[1]) != y[:, None], 0).sum() / len(y)


def rows(x, y):
    return (one_hot(x.T, y) @ x).square().sum()


def autograd(f, x, y):
    x = x.clone().requires_grad_()
    out = f(x, y)
    return out.detach(), torch.autograd.grad(out, x)[0]


@pytest.mark.parametrize("f", [share, share_of_library])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_logarithm_of_one_share_is_finite(f, scale: float) -> None:
    program = codegen.generate(f, X, Y)
    out, grads = program.value_and_grad(X * scale, Y)
    leaf = (X * scale).requires_grad_()
    true = F.cross_entropy(leaf, Y)
    torch.testing.assert_close(out, true.detach())
    torch.testing.assert_close(grads["x"], torch.autograd.grad(true, leaf)[0])
    assert ".where(" not in program.source.split("def backward(")[1].split("def step(")[0]


@pytest.mark.parametrize(
    "y", [Y, OUTSIDE, OUTSIDE.int(), OUTSIDE.double()], ids=["inside", "outside", "int32", "float"]
)
@pytest.mark.parametrize("f", [entries, chosen, filled, rows])
def test_a_number_that_is_no_position_picks_nothing(f, y: torch.Tensor) -> None:
    x = TABLE if f is rows else X
    program = codegen.generate(f, x, y)
    for some in (slice(None), slice(1, 4)):
        at = y[some]
        given = x if f is rows else x[some]
        out, grads = program.value_and_grad(given, at)
        true, slope = autograd(f, given, at)
        torch.testing.assert_close(out, true)
        torch.testing.assert_close(grads["x"], slope)


def test_a_table_is_read_at_its_rows() -> None:
    source = codegen.generate(rows, TABLE, Y).source.split("def step(")[0]
    assert "x[" in source
    assert " @ " not in source


@pytest.mark.parametrize("f", [chosen, filled])
def test_what_a_choice_leaves_is_read_at_its_place(f) -> None:
    backward = codegen.generate(f, X, Y).source.split("def backward(")[1].split("def step(")[0]
    assert "index" in backward
    assert "==" not in backward.replace("[j ==", "")


@pytest.mark.parametrize("n", [1, 2])
def test_few_positions(n: int) -> None:
    x, y = X[:, :n], torch.tensor([0, 1, -1, 0, 2, 0])
    out, grads = codegen.generate(entries, x, y).value_and_grad(x, y)
    true, slope = autograd(entries, x, y)
    torch.testing.assert_close(out, true)
    torch.testing.assert_close(grads["x"], slope)
