"""Dropout. A mask is drawn once, as torch draws it, and is a constant of the algebra."""

from __future__ import annotations

from typing import Any

import torch

from engine.table import DRAWN, composite, recorded_as

F = torch.nn.functional
SATURATION = 1.7580993408473766
"""Minus what a SELU tends to at minus infinity: its scale times its alpha."""


def masked(x: Any, p: float, training: bool, function: Any, shape: Any = None) -> Any:
    """`x` times what dropout makes of ones: 0, or 1/(1 - p)."""
    if not training or p == 0:
        return x
    ones, order = (x.new_ones(shape), None) if shape is not None else ones_as_stored(x)
    with recorded_as(DRAWN):
        mask = function(ones, p, True)
    return x * (mask if order is None else mask.permute(order))


def ones_as_stored(x: Any) -> tuple[Any, list[int] | None]:
    """Ones in the order in which torch stores `x`, which is the order of the draws, and what permutes them to x's shape.

    A program that computes `x` by other means, and stores it in another order, draws the same mask for it.
    """
    stored: list[int] = x.record.stored
    if stored == sorted(stored):
        return x.new_ones(x.shape), None
    return x.new_ones([x.shape[d] for d in stored]), [stored.index(d) for d in range(len(stored))]


@composite("dropout")
def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return masked(x, p, training, F.dropout)


def channelwise(x: Any, p: float, training: bool, channels: int) -> Any:
    """Whole channels at a time: `channels` dimensions have their own draw, the rest share it."""
    return masked(x, p, training, F.dropout, [*x.shape[:channels], *[1] * (x.dim() - channels)])


@composite(targets=(F.dropout1d,))
def dropout1d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return channelwise(x, p, training, 1 if x.dim() == 2 else 2)


@composite(targets=(F.dropout2d, torch.feature_dropout))
def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return channelwise(x, p, training, 2)


@composite(targets=(F.dropout3d,))
def dropout3d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return channelwise(x, p, training, 1 if x.dim() == 4 else 2)


@composite(targets=(F.alpha_dropout, torch.alpha_dropout))
def alpha_dropout(x: Any, p: float = 0.5, training: bool = False) -> Any:
    return saturated(x, p, training, x.shape)


@composite(targets=(F.feature_alpha_dropout, torch.feature_alpha_dropout))
def feature_alpha_dropout(x: Any, p: float = 0.5, training: bool = False) -> Any:
    """Whole channels at a time."""
    return saturated(x, p, training, [*x.shape[:2], *[1] * (x.dim() - 2)])


def saturated(x: Any, p: float, training: bool, shape: Any) -> Any:
    """What is dropped gets the value that a SELU saturates at; scaled and shifted so that mean and variance stay."""
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    slope = ((SATURATION**2 * p + 1) * (1 - p)) ** -0.5
    kept = x.new_ones(shape).bernoulli_(1 - p)
    return x * (kept * slope) + ((kept - 1) * (SATURATION * slope) + SATURATION * slope * p)


@composite(targets=(F.gumbel_softmax,))
def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    """The softmax of the logits with Gumbel noise; if `hard`, its largest entry as a one, with the softmax's derivative."""
    noise = -torch.empty_like(logits).exponential_().log()
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    place = soft.argmax(dim, keepdim=True)
    return torch.zeros_like(logits).scatter(dim, place, 1.0) - soft.detach() + soft
