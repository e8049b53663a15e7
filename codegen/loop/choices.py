# pyright: basic
"""Choices between two values without a tensor of booleans: torch's kernels for those take an entry after the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.graph import Node, Sized, alike, call, constant, small
from codegen.loop.multiples import number, pair
from codegen.loop.own import bracket
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

AND, OR = frozenset(("bitwise_and", "logical_and")), frozenset(("bitwise_or", "logical_or"))
NOT = frozenset(("bitwise_not", "logical_not"))
COMPARED = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))


def by_selection(step: Step) -> Iterator[Match]:
    """where(m, a, b) is a where m holds and nothing elsewhere, plus b where it does not and nothing elsewhere.

    Either part is one call, by a threshold: what is left out does not matter, were it infinite.
    """
    for n in step.order:
        if n.op != "where" or n.write or len(n.args) != 3 or n.dtype not in (torch.float32, torch.float64):
            continue
        mask, a, b = n.args
        if not alike(mask, n) or mask.constant is not None or not all(fits(x, n) for x in (a, b)):
            continue
        choice = Choice(n, mask)
        made = choice.of(a, b)
        if made is not None:
            yield Match(choice.nodes, [(n, made)], key=(n.shape, mask.op, shown(a), shown(b)))


def fits(x: Node, n: Node) -> bool:
    """Whether a value is a finite number, or as large as the choice."""
    value = single(x)
    return x.dtype == n.dtype and (alike(x, n) if value is None else bool(value.isfinite().all()))


def single(x: Node) -> torch.Tensor | None:
    """The number that a value is at the loop's sizes and at the small point; None for any other value."""
    found = pair(x) if not x.shape else None
    if found is not None:  # the shortest of the numbers that the dtype does not tell from it, as it was written
        found[0] = float(str(x.constant.numpy()))
    return found


def shown(x: Node) -> tuple[float, ...] | None:
    """The same for choices that cost the same."""
    value = single(x)
    return None if value is None else tuple(value.tolist())


class Choice:
    """The calls for a choice by a mask."""

    def __init__(self, n: Node, mask: Node) -> None:
        self.n, self.mask = n, mask
        self.nodes: list[Node] = []
        self.known: dict[Node, Node] = {}

    def of(self, a: Node, b: Node) -> Node | None:
        """a where the mask holds and b elsewhere, to the last digit; None where both are zero."""
        sides = [(a, single(a), True), (b, single(b), False)]
        total: Node | None = None
        for x, _, chosen in (s for s in sides if s[1] is None):
            kept = self.kept(x, chosen)
            total = kept if total is None else self.add("add", total, kept)
        for _, value, chosen in sides:
            if value is not None and value.any():
                flags = self.flags(self.mask) if chosen else self.others()
                if total is None:
                    total = flags if bool((value == 1).all()) else self.add("mul", flags, number(value))
                else:
                    total = self.add("add", total, flags, alpha=number(value))
        return total

    def kept(self, x: Node, chosen: bool, mask: Node | None = None) -> Node:
        """A value where a mask holds, or where it does not, and zero elsewhere."""
        mask = self.mask if mask is None else mask
        if mask.op in NOT:
            return self.kept(x, not chosen, mask.args[0])
        if mask.op in (AND if chosen else OR):
            first, second = mask.args[:2]
            return self.kept(self.kept(x, chosen, first), chosen, second)
        z, bound = self.compared(mask)
        if z is not None and not isinstance(bound, (Node, Sized)):
            if mask.op == ("gt" if chosen else "le"):
                return self.add("threshold_backward", x, z, bound)
            if mask.op == "lt" and chosen:  # for what is no number this is zero, as it should be in no other case
                return self.add("hardtanh_backward", x, z, -math.inf, bound)
        if chosen:
            return self.add("threshold_backward", x, self.flags(mask), 0)
        return self.add("hardtanh_backward", x, self.flags(mask), -1, 1)

    def compared(self, mask: Node) -> tuple[Node | None, Any]:
        """What a mask compares, if it is as large as the choice and of its dtype, and with what."""
        z, bound = mask.args[:2] if mask.op in COMPARED else (None, None)
        fitting = isinstance(z, Node) and alike(z, self.n) and z.dtype == self.n.dtype
        return (z, bound) if fitting and (not isinstance(bound, Node) or bound.dtype == self.n.dtype) else (None, None)

    def others(self) -> Node:
        """1 where the mask does not hold and 0 elsewhere."""
        one = constant(torch.tensor(1.0, dtype=self.n.dtype), torch.tensor(1.0, dtype=torch.float64))
        self.nodes.append(one)
        return self.add("sub", one, self.flags(self.mask))

    def flags(self, mask: Node) -> Node:
        """1 where a mask holds and 0 elsewhere."""
        if mask not in self.known:
            shape, kind = self.n.shape, self.n.dtype
            z, bound = self.compared(mask)
            if z is not None:
                value = bracket(z.value, small((bound,))[0], mask.op)
                made = Node("bracket", (z, bound, mask.op), {}, shape, kind, value)
            else:
                made = Node("_to_copy", (mask,), {"dtype": kind}, shape, kind, mask.value.double())
            self.known[mask] = made
            self.nodes.append(made)
        return self.known[mask]

    def add(self, op: str, *args: Any, **kwargs: Any) -> Node:
        """One more call."""
        self.nodes.append(call(op, *args, shape=self.n.shape, dtype=self.n.dtype, **kwargs))
        return self.nodes[-1]


__all__ = ["by_selection"]
