"""Choices by a mask that is the same in every step are sums and products, where what is left out is finite."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tests.loop.test_loop_images import trained


def causal(x: Tensor, y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (x @ q) @ (x @ k).mT / 2
    ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return F.cross_entropy((scores.masked_fill(ahead, float("-inf")).softmax(-1) @ x @ v)[:, -1], y)


def banded(x: Tensor, y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    place = torch.arange(x.shape[1])
    near = (place[:, None] - place).abs() <= 1
    weights = torch.where(near, (x @ q) @ (x @ k).mT, 0.0)
    return F.cross_entropy((weights @ x @ v)[:, -1], y)


def divided(x: Tensor, y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What is left out might be divided by zero."""
    ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    scores = (x @ q) @ (x @ k).mT / x[:, :, :1]
    return F.cross_entropy((scores.masked_fill(ahead, float("-inf")).softmax(-1) @ x @ v)[:, -1], y)


@pytest.mark.parametrize(("forward", "there"), [(causal, True), (banded, True), (divided, False)])
def test_a_mask_is_added_or_multiplied_with(forward: Callable[..., Tensor], there: bool) -> None:
    g = Generator().manual_seed(0)
    params = {n: torch.randn(4, 4, generator=g) for n in "qk"} | {"v": torch.randn(4, 3, generator=g)}
    data = torch.randn(60, 5, 4, generator=g), torch.randint(0, 3, (60,), generator=g)
    source = trained(forward, params, data)
    assert ("torch.where(" not in source) is there
    assert ("with z known from m" in source) is there
