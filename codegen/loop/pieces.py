# pyright: basic
"""Functions in pieces of one value, and what is passed back through them, by the kernel that computes the same at every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codegen.loop.calls import COMPARISONS, ELEMENTWISE
from codegen.loop.graph import Node, Sized, alike, call, mapped, packet
from codegen.loop.own import evaluated
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

KERNELS = ("hardswish", "hardsigmoid")
"""Kernels of one value; that of what is passed back has `_backward` behind its name, and reads the cotangent and the value."""
PIECEWISE = frozenset(
    ("where", "clamp", "clamp_min", "clamp_max", "hardtanh", "hardtanh_backward", "threshold_backward")
)
"""Calls that are something else on either side of a number."""
JOINED = ELEMENTWISE | COMPARISONS | PIECEWISE
PROBED = torch.cat([torch.linspace(-9, 9, 145), torch.tensor([-1e4, -2.999, -0.001, 0.001, 2.999, 1e4])]).double()
"""Where functions are compared: both sides of every place where pieces of the kernels meet, and these places."""
COTANGENTS = (1.0, -2.5)


def by_pieces(step: Step) -> Iterator[Match]:
    """A function in pieces of z is a kernel of z; a multiple of g that depends on z besides is a kernel of g and z."""
    users = step.users()
    place = {n: k for k, n in enumerate(step.order)}
    for z in decided_by(step):
        region = Region(z, users, place)
        for n, others in region.inside.items():
            if n.dtype != z.dtype:
                continue
            for op in KERNELS:
                name, given = (op, (z,)) if not others else (f"{op}_backward", (*others, z))
                if region.computes(n, name):
                    new = call(name, *given, shape=n.shape, dtype=n.dtype)
                    yield Match([new], [(n, new)])


def decided_by(step: Step) -> dict[Node, None]:
    """The values that pieces are chosen by, and what these are computed from in one call."""
    found: dict[Node, None] = {}
    for n in step.order:
        if n.op in PIECEWISE and not n.write:
            chosen = n.args[1 if n.op.endswith("_backward") else 0]
            near = [chosen, *chosen.reads] if isinstance(chosen, Node) else []
            found |= dict.fromkeys(z for z in near if z.constant is None and z.dtype in (torch.float32, torch.float64))
    return found


class Region:
    """What is computed from one value, and at most one other, entry by entry.

    Attributes:
        inside: the values of the region, each with the other one that it is computed from.
    """

    def __init__(self, z: Node, users: dict[Node, list[Node]], place: dict[Node, int]) -> None:
        self.z = z
        self.inside: dict[Node, tuple[Node, ...]] = {}
        reached: dict[Node, None] = {}
        stack = [z]
        while stack:
            for n in users[stack.pop()]:
                if n.op in JOINED and not n.write and n not in reached and alike(n, z):
                    reached[n] = None
                    stack.append(n)
        for n in sorted(reached, key=place.__getitem__):
            others: dict[Node, None] = {}
            for r in n.reads:
                if r is z or (r.constant is not None and not r.shape):
                    continue
                others |= dict.fromkeys(self.inside.get(r, (r,)))
            if len(others) < 2 and all(alike(r, z) and r.constant is None for r in others):
                self.inside[n] = tuple(others)

    def computes(self, n: Node, op: str) -> bool:
        """Whether a value is what a kernel gives: at every probe, and as a multiple of the cotangent."""
        kernel = packet(op)
        if not self.inside[n]:
            return same(self.at(n, {}), kernel(PROBED))
        return all(
            same(self.at(n, {self.inside[n][0]: g}), kernel(g, PROBED))
            for g in (torch.full_like(PROBED, c) for c in COTANGENTS)
        )

    def at(self, n: Node, known: dict[Node, Tensor]) -> Tensor:
        """A value at the probes."""
        known[self.z] = PROBED
        stack = [n]
        while stack:
            x = stack[-1]
            left = [r for r in x.reads if r not in known and r.constant is None]
            stack += left
            if not left:
                stack.pop()

                def given(a: Any) -> Any:
                    return a.small if isinstance(a, Sized) else known.get(a, a.value) if isinstance(a, Node) else a

                known[x] = evaluated(x, mapped(x.args, given), {k: mapped(v, given) for k, v in x.kwargs.items()})
        return known[n]


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two functions agree at the probes."""
    return torch.allclose(a.double(), b, rtol=1e-12, atol=1e-13)


__all__ = ["by_pieces"]
