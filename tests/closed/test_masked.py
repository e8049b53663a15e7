"""Sums under a mask and its complement, and what is left out on a diagonal or put there: what they become, and where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen
from tests.closed.test_forward_rules import emitted

if TYPE_CHECKING:
    from collections.abc import Callable

G = torch.Generator().manual_seed(0)
S = torch.randn(6, 6, generator=G, dtype=torch.float64)
W = torch.rand(6, 6, generator=G, dtype=torch.float64)
TALL = torch.randn(7, 4, generator=G, dtype=torch.float64)


def by_floats(s):
    e, eye = s.exp(), torch.eye(len(s), dtype=s.dtype)
    own = (e * eye).sum(1)
    return -torch.log(own / (own + (e * (1 - eye)).sum(1))).mean()


def by_the_diagonal(s):
    e = s.exp()
    own = e.diagonal()
    return -torch.log(own / (own + (e * (1 - torch.eye(len(s), dtype=s.dtype))).sum(1))).mean()


def by_filling(s):
    e = s.exp()
    own = e.diagonal()
    return -torch.log(own / (own + e.masked_fill(torch.eye(len(s), dtype=torch.bool), 0).sum(1))).mean()


def beside_a_number(s):
    e = s.exp()
    rest = (e * (1 - torch.eye(len(s), dtype=s.dtype))).sum(1)
    return (torch.log(e.diagonal() + rest) - s.diagonal()).sum()


@pytest.mark.parametrize("forward", [by_floats, by_the_diagonal, by_filling, beside_a_number])
def test_what_is_left_out_and_what_is_left_are_one_softmax(forward: Callable[..., Any]) -> None:
    source = emitted(forward, S)
    assert "softmax(1)" in source
    assert "torch.where" not in source
    program = codegen.generate(forward, S)
    out, grads = program.value_and_grad(S * 1e4)
    assert out.isfinite()
    assert grads["s"].isfinite().all()


def weighted(s, w):
    e = s.exp()
    own = (e * w).sum(1)
    return torch.log(own / (own + (e * (1 - w)).sum(1))).sum()


def chosen(s, w):
    e = s.exp()
    own = torch.where(w, e, 0).sum(1)
    return (own / (own + torch.where(w, 0, e).sum(1))).sum()


@pytest.mark.parametrize(("forward", "w"), [(weighted, W), (chosen, W > 0.5)])
def test_any_weights_and_their_complement_count_all(forward: Callable[..., Any], w: torch.Tensor) -> None:
    source = emitted(forward, S, w)
    assert "- w" not in source
    assert "- own" not in source
    assert "0, e" not in source


def test_other_weights_do_not() -> None:
    emitted(lambda s, w: ((s.exp() * w).sum(1) + (s.exp() * (2 - w)).sum(1)).log(), S, W)
    emitted(lambda s, w: ((s.exp() * w).sum(1) + (s.exp() * (1 - w)).sum(0)).log(), S, W)
    emitted(lambda s, w: ((s.exp() * w).sum(1) + (s.exp() * (1 - w.T)).sum(1)).log(), S, W)


@pytest.mark.parametrize("x", [TALL, TALL.T.contiguous()], ids=["tall", "wide"])
def test_a_rectangle_has_rows_without_a_diagonal(x: torch.Tensor) -> None:
    def forward(x):
        eye = torch.eye(*x.shape, dtype=x.dtype)
        own = (x.exp() * eye).sum(1)
        left = torch.log(1 + ((x - x).exp() * (1 - eye)).sum(1))
        return (own + 1) / (own + (x.exp() * (1 - eye)).sum(1)) + left

    emitted(forward, x)


def test_a_whole_sum_need_not_be_positive() -> None:
    def forward(s):
        apart = 3 * (s - s.diagonal()[:, None])
        return (1 + (torch.cos(apart) * (1 - torch.eye(len(s), dtype=s.dtype))).sum(1)).square().sqrt()

    emitted(forward, S)


@pytest.mark.parametrize(
    ("function", "kernel"),
    [(F.softplus, "softplus_backward"), (F.leaky_relu, "leaky_relu_backward"), (F.elu, "elu_backward")],
)
def test_a_diagonal_is_put_after_the_slopes_beside_it(function: Callable[..., Any], kernel: str) -> None:
    def forward(s):
        eye = torch.eye(len(s), dtype=s.dtype)
        return (function(s) * (1 - eye)).sum() + 2 * (function(-s) * eye).sum()

    large = S.clone()
    large[0, 0], large[1, 1], large[2, 3] = 30.0, -30.0, 0.0
    source = emitted(forward, large)
    backward = source[source.index("def backward(") : source.index("class Function")]
    assert kernel in backward
    assert "arange" not in backward
    assert ".fill_diagonal_(0)" in backward


def test_the_places_that_zeros_are_put_at_are_read() -> None:
    def forward(c, y):
        others = (4 * c).exp() * (1 - F.one_hot(y, c.shape[1]).to(c.dtype))
        return torch.log(1 + others.sum(0)).mean()

    emitted(forward, TALL, torch.tensor([0, 3, 1, 2, 2, 0, 1]))


@pytest.mark.parametrize("turn", [lambda y: y.unsqueeze(0), lambda y: y.unsqueeze(1), lambda y: y.T, lambda y: y])
def test_zeros_are_not_put_into_what_the_caller_gives(turn: Callable[..., Any]) -> None:
    emitted(lambda s: turn(s * (1 - torch.eye(len(s), dtype=s.dtype))), S)
    emitted(lambda s, w: turn(s * (1 - torch.eye(len(s), dtype=s.dtype)) + w * torch.eye(len(s), dtype=s.dtype)), S, W)


def test_a_choice_of_whole_numbers_is_one() -> None:
    def forward(x, y):
        picked = x.log_softmax(1).gather(1, torch.where(y == -100, 0, y)[:, None]).squeeze(1)
        return (picked * (y != -100)).sum()

    y = torch.tensor([1, -100, 0])
    assert "torch.where(y == -100, 0, y)\n" in codegen.generate(forward, torch.randn(3, 4), y).source


def test_what_lies_as_the_result_does_is_not_flattened() -> None:
    """The norms of rows are kept with a dimension of one, and meet only what the result is made of."""
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    source = codegen.generate(lambda x, y: F.cosine_similarity(x, y).sum(), x, y).source
    masks = [line for line in source.splitlines() if "torch.where(" in line]
    assert masks
    assert not any("squeeze(1)" in line for line in masks)
