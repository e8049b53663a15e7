"""Layers of one column, and numbers of one entry: written as matrices with one column where the result is such a matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import codegen
from tests.closed.test_forward_rules import emitted

G = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def regression(x, y, w1, b1, w2, b2):
    h = torch.tanh(x @ w1 + b1)
    p = h @ w2 + b2
    return ((p - y) ** 2).mean()


def test_a_head_of_one_column_is_a_product_of_matrices() -> None:
    inputs = drawn(6, 3), drawn(6, 1), drawn(3, 4), drawn(4), drawn(4, 1), drawn(1)
    source = emitted(regression, *inputs)
    assert "p = torch.addmm(b2, h, w2)\n" in source
    assert "dw2 = h.T @ dp\n" in source or "dw2 = h.T @ dout_sub\n" in source
    assert "squeeze" not in source, "the mean over rows of one column is the mean of all"


def neuron(x, y, w, b):
    p = F.linear(x, w, b).squeeze(1)
    return F.binary_cross_entropy_with_logits(p, y)


def test_the_sum_of_a_vector_keeps_the_dimension_that_its_result_has() -> None:
    y = torch.rand(6, generator=G, dtype=torch.float64)
    assert "db = dp.sum(0, keepdim=True)\n" in emitted(neuron, drawn(6, 3), y, drawn(1, 3), drawn(1))


def leaky(a, b, v, y):
    h = F.leaky_relu(a + b, 0.1)
    return F.binary_cross_entropy_with_logits(h * v, y)


def test_a_logarithm_is_not_written_out_where_no_exponential_cancels() -> None:
    """The slope times a sum is a sum of fractions, which turned exp(-f) over and tore the logistic loss apart."""
    y = torch.rand(6, 4, generator=G, dtype=torch.float64)
    inputs = drawn(6, 4), drawn(4), drawn(4), y
    source = emitted(leaky, *inputs)
    assert "(out_sigmoid - y)" in source
    assert source.count("leaky_relu(") == 1
    assert codegen.check(codegen.generate(leaky, *inputs), *inputs).ok


def test_numbers_are_multiplied_before_what_is_larger() -> None:
    """`h * (-g / n * v)` without its parentheses would be one more pass over h."""
    y = torch.rand(6, 4, generator=G, dtype=torch.float64)
    source = emitted(lambda h, v, y: F.binary_cross_entropy_with_logits(h * v, y), drawn(6, 1), drawn(1, 4), y)
    assert "dy = -grad_out / (n0 * n1) * v * h\n" in source


def pooled(x, w, v, u, y):
    h = torch.tanh(x @ w)
    a = torch.softmax(h @ v, 1)
    return F.mse_loss((a * x).sum(1) @ u, y)


def test_a_part_of_columns_alone_is_a_column_and_matrices_of_many_have_one_each() -> None:
    source = emitted(pooled, drawn(4, 6, 5), drawn(5, 3), drawn(3, 1), drawn(5, 1), drawn(4, 1))
    assert "(h @ v).softmax(1)\n" in source
    assert " @ u - y\n" in source
    assert "dy = -dout_sub\n" in source
    assert 'dv = torch.einsum("abc,abd->cd", h, d' in source
