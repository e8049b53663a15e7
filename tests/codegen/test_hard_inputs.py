"""Both modes where inputs are hard: exponentials that overflow behind a choice, places named twice, sizes that are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from codegen import generate
from tests.codegen.compare import assert_matches

if TYPE_CHECKING:
    from collections.abc import Callable

D = torch.float64
MODES = ["steps", "closed"]


def of_padded_rows(x: Any, w: Any, y: Any) -> Any:
    """Some targets are left out, so that the shares of a softmax stand behind a choice."""
    return F.cross_entropy(x @ w, y, ignore_index=0)


def smoothed(x: Any, w: Any, y: Any) -> Any:
    return F.cross_entropy(x @ w, y, ignore_index=0, label_smoothing=0.1, reduction="sum")


def attended(x: Any, w: Any, y: Any) -> Any:
    return F.scaled_dot_product_attention(x @ w, x @ w, x, attn_mask=(y > 0)[None])


def least(x: Any, w: Any, y: Any) -> Any:
    """A mask of the least float64, which float32 has not."""
    scores = (x @ w).masked_fill((y == 0)[:, None], torch.finfo(x.dtype).min)
    return scores.softmax(0) @ w


def least_added(x: Any, w: Any, y: Any) -> Any:
    scores = x @ w + (y == 0).to(x.dtype)[:, None] * torch.finfo(x.dtype).min
    return scores.softmax(0).square().sum()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forward", [of_padded_rows, smoothed, attended, least, least_added])
def test_scores_whose_exponentials_overflow(forward: Callable[..., Any], mode: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(6, 4, generator=g, dtype=D), torch.randn(4, 4, generator=g, dtype=D)
    y = torch.tensor([1, 0, 3, 2, 0, 1])
    program = generate(forward, x, w, y, mode=mode)
    for scale in (1, 40, 4000):
        assert_matches(program, forward, (x * scale, w, y))


def a_number(x: Any, i: Any, v: Any) -> Any:
    y = x.clone()
    y[i] = 5.0
    return y * y


def one_row(x: Any, i: Any, v: Any) -> Any:
    y = x * x
    y[i] = v
    return y.sin()


def scaled(x: Any, i: Any, v: Any) -> Any:
    y = x.clone()
    y[i] *= v
    return y.square()


def in_order(x: Any, i: Any, v: Any) -> Any:
    return x.put(i, v.sum().expand(5)).square()


def copied(x: Any, i: Any, v: Any) -> Any:
    return x.index_copy(0, i, x[i] * v).tanh()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forward", [a_number, one_row, scaled, in_order, copied])
def test_places_that_are_named_twice(forward: Callable[..., Any], mode: str) -> None:
    """What is put there is not added up, and a gradient goes to each that was put, as in torch."""
    g = torch.Generator().manual_seed(0)
    x, v, i = (
        torch.randn(4, 3, generator=g, dtype=D),
        torch.randn(3, generator=g, dtype=D),
        torch.tensor([0, 2, 2, 3, 2]),
    )
    program = generate(forward, x, i, v, mode=mode)
    assert_matches(program, forward, (x, i, v))
    assert_matches(program, forward, (torch.cat([x, x]), i + 1, v))
    assert mode == "steps" or "== i" not in program.source  # places are counted, and not compared pair by pair


def grouped(x: Any, w: Any) -> Any:
    return F.group_norm(F.conv2d(x, w, stride=2), 2).pow(3)


def pooled(x: Any, w: Any) -> Any:
    return F.group_norm(F.max_pool2d(x, 3, 2) * w.mean(), 2).tanh()


def joined_halves(x: Any, w: Any) -> Any:
    z = torch.cat([x.flatten(1), x.flatten(1)[:, :6] * w.sum()], 1)
    return z.view(z.shape[0], 2, -1).prod(1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forward", [grouped, pooled, joined_halves])
def test_a_part_of_a_size_that_is_computed(forward: Callable[..., Any], mode: str) -> None:
    """The quotient of a product of sizes is a whole number, in text, too, and a view is passed back as a view."""
    g = torch.Generator().manual_seed(0)
    program = generate(
        forward, torch.randn(2, 4, 7, 8, generator=g, dtype=D), torch.randn(6, 4, 3, 3, generator=g, dtype=D), mode=mode
    )
    for n, h, w in ((2, 7, 8), (3, 9, 6), (1, 8, 8)):
        inputs = torch.randn(n, 4, h, w, generator=g, dtype=D), torch.randn(6, 4, 3, 3, generator=g, dtype=D)
        assert_matches(program, forward, inputs)
    assert forward is joined_halves or "index_put_" not in program.source


def positions(x: Any) -> Any:
    at = torch.arange(x.shape[0]).double()[:, None].sin().to(x)
    return (x * at).tanh()


@pytest.mark.parametrize("mode", MODES)
def test_a_tensor_that_only_says_a_dtype_is_passed_nothing_back(mode: str) -> None:
    x = torch.randn(4, 3, dtype=D)
    program = generate(positions, x, mode=mode)
    assert_matches(program, positions, (x,))
    assert "dat" not in program.source
    assert "+ 0" not in program.source


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize(
    ("norm", "shape"), [(F.batch_norm, (4, 3)), (F.instance_norm, (2, 3, 4))], ids=["batch", "instance"]
)
def test_one_value_per_channel_is_refused_as_torch_refuses_it(norm: Any, shape: tuple[int, ...], mode: str) -> None:
    def forward(x: Any) -> Any:
        return norm(x, None, None, **({"training": True} if norm is F.batch_norm else {}))

    program = generate(forward, torch.randn(shape, dtype=D), mode=mode)
    with pytest.raises(ValueError, match=r"for a normalization in training \(torch refuses one value per channel"):
        program.forward(torch.randn((1, 3) if len(shape) == 2 else (2, 3, 1), dtype=D))
