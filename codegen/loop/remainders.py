# pyright: basic
"""Values that are what a call gives, or a sum of it and something else, found by what they are at the small point."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import torch

from codegen.loop.graph import Node, equal

if TYPE_CHECKING:
    from torch import Tensor

Term: TypeAlias = tuple[int, Node, Node]
"""A sign, a value, and what it is broadcast as in the sum."""
Terms: TypeAlias = tuple[Term, ...]
MANY = 8
"""Terms of a sum beyond which no part of it is looked for."""


class Vectors:
    """Values with a number for every column, to be looked for all at once."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.values = torch.stack([n.value.reshape(-1).double() for n in nodes]) if nodes else torch.zeros(0, 1)

    def equal(self, value: Tensor) -> list[Node]:
        """Those that are equal to a value."""
        near = 1e-9 * torch.maximum(self.values.abs().amax(1), value.abs().max())
        same = (self.values - value).abs().amax(1) <= near
        return [n for n, right in zip(self.nodes, same.tolist(), strict=True) if right]


def terms(t: Node, users: dict[Node, list[Node]], like: Node | None = None) -> list[Term]:
    """The signed terms of a sum, and of the sums among them that are nothing else's, also where those have another shape."""
    inner = t
    while like is not None and inner.op in ("view", "_unsafe_view") and len(users[inner]) == 1:
        inner = inner.args[0]
    whole = inner.op not in ("add", "sub") or inner.kwargs or not all(isinstance(a, Node) for a in inner.args[:2])
    if whole or (like is not None and (len(users[inner]) > 1 or inner.numel != t.numel)):
        return [(1, t, like or t)]
    sign = 1 if inner.op == "add" else -1
    left, right = (terms(a, users, inner) for a in inner.args[:2])
    return [*left, *[(s * sign, n, shown) for s, n, shown in right]]


class Sums:
    """Values, to be told whether one is another one and the rest of it. A number tells each, that of a sum the sum of theirs."""

    def __init__(self, totals: list[Node], operands: list[Node], users: dict[Node, list[Node]]) -> None:
        self.totals, self.operands = totals, operands
        self.parts = {t: terms(t, users) for t in totals}
        size = max((n.value.numel() for n in [*totals, *operands]), default=0)
        self.weights = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.known: dict[tuple[Node, torch.Size], float] = {}
        self.marks = [torch.tensor([self.mark(n, n) for n in row], dtype=torch.float64) for row in (totals, operands)]

    def mark(self, n: Node, like: Node) -> float:
        """The number of a value that is broadcast as another one is."""
        key = n, like.value.shape
        if key not in self.known:
            self.known[key] = float(full(n, like).reshape(-1) @ self.weights)
        return self.known[key]

    def rest(self, own: Tensor, place: dict[Node, int], start: int) -> tuple[Node, Terms] | None:
        """A value computed behind a place of which `own` is a part, and what else there is to it: nothing, a value or terms."""
        mark = float(own.reshape(-1) @ self.weights)
        totals, operands = self.marks
        left = totals - mark
        near = 1e-8 * totals.abs().clamp_min(abs(mark))
        none = [(i, ()) for i in (left.abs() <= near).nonzero().flatten().tolist()]
        pairs = ((left[:, None] - operands).abs() <= near[:, None]).nonzero().tolist()
        for i, rest in [*none, *((i, ((1, self.operands[j], self.totals[i]),)) for i, j in pairs)]:
            t = self.totals[i]
            if place[t] > max([start, *(place.get(n, -1) for _, n, _ in rest)]) and right(t, own, rest):
                return t, rest
        for t, parts in self.parts.items():
            for size in range(1, len(parts) if place[t] > start and len(parts) <= MANY else 0):
                for rest in combinations(parts, size):
                    gap = self.mark(t, t) - mark - sum(s * self.mark(n, like) for s, n, like in rest)
                    if abs(gap) <= 1e-8 * max(abs(self.mark(t, t)), abs(mark)) and right(t, own, rest):
                        return t, rest
        return None


def full(n: Node, like: Node) -> Tensor:
    """A value with the shape of another one."""
    shape = like.value.shape
    return n.value.reshape(shape) if n.value.numel() == like.value.numel() else n.value.expand(shape)


def right(t: Node, own: Tensor, rest: Terms) -> bool:
    """Whether a value is the sum of `own` and others."""
    others = sum(s * full(n, like).reshape(t.value.shape) for s, n, like in rest)
    return equal(own.reshape(t.value.shape) + others, t.value)


__all__ = ["Sums", "Vectors"]
