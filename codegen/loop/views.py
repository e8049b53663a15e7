# pyright: basic
"""Views of views: which of them show a value as it is, and from where one is taken in a single step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.loop.graph import Node

RESHAPES = frozenset(("view", "_unsafe_view", "squeeze", "unsqueeze"))
"""Views that show the same entries in the same order."""


def unchanged(n: Node) -> Node | None:
    """The value that a view shows as it is; None where it shows something else."""
    if not n.is_view or n.write:
        return None
    inner = n.args[0]
    if n.op in ("view", "_unsafe_view", "expand", "alias") and n.shape == inner.shape:
        return inner
    if (
        n.op in RESHAPES
        and inner.is_view
        and not inner.write
        and inner.op in RESHAPES
        and n.shape == inner.args[0].shape
    ):
        return inner.args[0]
    order = permutation(n)
    if order == list(range(len(n.shape))):
        return inner
    before = permutation(inner) if inner.is_view and not inner.write else None
    if order is not None and before is not None and [before[k] for k in order] == list(range(len(order))):
        return inner.args[0]
    return None


def permutation(n: Node) -> list[int] | None:
    """The order of the dimensions that a view shows; None for other views."""
    rank = len(n.shape)
    if n.op == "permute":
        return [int(k) % rank for k in n.args[1]]
    if n.op in ("t", "transpose"):
        a, b = (0, 1) if n.op == "t" else (int(k) % rank for k in n.args[1:3])
        order = list(range(rank))
        if rank > 1:
            order[a], order[b] = order[b], order[a]
        return order
    return None


def has_channels_last(x: Node) -> bool:
    """Whether an image has its channels last in memory: as a copy that was made so, or as such memory seen as an image."""
    return x.kwargs.get("memory_format") is torch.channels_last or (
        x.op == "permute" and permutation(x) == [0, 3, 1, 2]
    )


def shortened(n: Node, loose: Callable[[Node], Any]) -> Node:
    """What a view is taken from: a reshape of reshapes from what lies before those that are `loose`, so that they need not be."""
    inner = n.args[0]
    while (same := unchanged(inner)) is not None and loose(inner):
        inner = same
    if n.op not in ("view", "_unsafe_view"):
        return inner
    while inner.is_view and not inner.write and inner.op in RESHAPES and loose(inner):
        inner = inner.args[0]
    return inner


__all__ = ["permutation", "shortened", "unchanged"]
