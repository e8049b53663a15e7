"""LayerNorm as the kernels that torch has for it: forward, and with its derivative where that is found as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.batchnorm import reached
from codegen.loop.calls import ELEMENTWISE
from codegen.loop.graph import VIEWS, Node, Sized, alike, call, called, equal, lies_in_rows, sizes_of, small
from codegen.loop.normal import CALLS, Normal, as_large, averaged, matrix, normals
from codegen.loop.remainders import Sums, Terms, Vectors
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from codegen.loop.graph import Step


SAME = VIEWS - {"permute", "transpose"}
"""Views that are found as what they are views of, as they have its entries in its order."""


@dataclass(frozen=True)
class Derivative:
    """The cotangent of a LayerNorm, with `total` = dx + `rest` (signed terms), and the nodes that are dw and db.

    The cotangent is a value, or the product of two. `total` is None where no dx is asked for.
    """

    factors: tuple[Node, ...]
    total: Node | None
    rest: Terms
    vectors: dict[int, list[Node]]


def layer_norm(step: Step) -> Iterator[Match]:
    """A LayerNorm is native_layer_norm, its derivative native_layer_norm_backward; both together, and the first alone."""
    users = step.users()
    place = {n: k for k, n in enumerate(step.order)}
    for x, width in averaged(step):
        region = reached(x, users, CALLS)
        begin = next(n for n in region if n is not x)
        for k, found in enumerate(normals(x, width, region, place)):
            kernel = Kernel(found)
            kernel.forward([] if k else region)
            forward = Match(list(kernel.nodes), list(kernel.pairs), at=begin)
            derivative = kernel.derivative(region, place, users)
            if derivative is not None:
                late = Calls()
                kernel.backward(derivative, late)
                behind = step.order[max(place.get(n, -1) for n in derivative.factors) + 1]
                yield Match(forward.nodes, forward.pairs + late.pairs, at=begin, later=(late.nodes, behind))
            yield forward


class Calls:
    """New calls, and what they are in place of."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.pairs: list[tuple[Node, Node]] = []

    def add(self, *nodes: Node) -> Node:
        """Note calls; returns the last."""
        self.nodes += [n for n in nodes if n not in self.nodes]
        return nodes[-1]

    def reshaped(self, n: Node, shape: tuple[int, ...], sizes: list[Any]) -> Node:
        """A value with another shape."""
        if n.shape == shape:
            return n
        made = call("reshape", n, sizes, shape=shape, dtype=n.dtype)
        made.op = "view" if lies_in_rows(n) else "reshape"
        return self.add(made)

    def rows(self, n: Node, width: int) -> Node:
        """A value as a matrix."""
        rows, few = n.numel // width, n.value.numel() // width
        return self.reshaped(n, (rows, width), [rows if rows == few else Sized(rows, few), width])

    def replace(self, old: Node, new: Node) -> None:
        """`new`, with the shape it had, in place of `old`."""
        self.pairs.append((old, self.reshaped(new, old.shape, sizes_of(old))))


class Kernel(Calls):
    """The kernel of a LayerNorm and that of its derivative."""

    def __init__(self, found: Normal) -> None:
        super().__init__()
        self.found, self.width, kind = found, found.width, found.x.dtype
        self.x = self.rows(found.x, found.width)
        self.w, self.b = (None if v is None else self.reshaped(v, (v.numel,), [v.numel]) for v in (found.w, found.b))
        whole = call("native_layer_norm", self.x, [self.width], self.w, self.b, found.eps, shape=(), dtype=None)
        root, column = called(found.x) or found.out.name or "x", (self.x.shape[0], 1)
        of = ((self.x.shape, found.out.name or f"{root}_normal"), (column, f"{root}_mean"), (column, f"{root}_rstd"))
        self.out, self.mean, self.rstd = (
            Node("part", (whole, k), {}, shape, kind, whole.value[k], name) for k, (shape, name) in enumerate(of)
        )
        self.add(whole, self.out, self.mean, self.rstd)

    def forward(self, region: list[Node]) -> None:
        """The kernel's results in place of the output, of the mean of every row, and of powers of its deviation."""
        self.replace(self.found.out, self.out)
        column, kind, r = self.mean.shape, self.mean.dtype, self.rstd.value
        powers = {
            "mean": (self.mean, self.mean.value),
            "rstd": (self.rstd, r),
            "std": (call("reciprocal", self.rstd, shape=column, dtype=kind), 1 / r),
            "square": (call("pow", self.rstd, -2, shape=column, dtype=kind), r.pow(-2)),
        }
        for n in region:
            if n.is_view or not as_large(n, self.mean):
                continue
            new = next((m for m, v in powers.values() if equal(n.value.reshape(-1, 1), v)), None)
            if new is not None:
                self.replace(n, self.add(new))

    def derivative(
        self, region: list[Node], place: dict[Node, int], users: dict[Node, list[Node]]
    ) -> Derivative | None:
        """The cotangent of the output, and what is computed of it, among what is computed after the output."""
        x, start = self.found.x, place[self.found.out]
        after = [n for n in region if place.get(n, -1) > start and n.dtype is not None]
        totals = [n for n in sorted(after, key=place.__getitem__) if as_large(n, x) and n.op in ELEMENTWISE]
        operands = list(dict.fromkeys(r for n in after for r in n.reads if as_large(r, x) and r.op not in SAME))
        vectors = Vectors([n for n in place if n.dtype == x.dtype and {n.numel, n.value.numel()} == {self.width}])
        sums = Sums(totals, operands, users)
        sides = sorted((r for r in operands if place.get(r, -1) > start), key=place.__getitem__, reverse=True)
        out = self.found.out
        scaled = [u for u in users[out] if u.op == "mul" and alike(u, out)]
        products = [(r, z) for z in dict.fromkeys(z for u in scaled for z in u.reads if z is not out) for r in sides]
        partly = None
        for factors in [*((r,) for r in sides), *products]:
            at = max(place.get(n, -1) for n in factors)
            dx, *others = self.gradients(self.cotangent(factors))
            found = {k + 1: vectors.equal(v) for k, v in enumerate(others) if v is not None}
            same = {k: [n for n in nodes if place[n] > at] for k, nodes in found.items()}
            total = sums.rest(dx, place, at)
            if total is not None:
                return Derivative(factors, *total, same)
            if partly is None and same.get(1):
                partly = Derivative(factors, None, (), same)
        return partly

    def cotangent(self, factors: tuple[Node, ...]) -> Tensor:
        """The value of a cotangent: the output times something passes that something times what comes back to the output."""
        first, *others = (n.value for n in factors)
        return matrix(first.reshape(self.found.out.value.shape) * others[0] if others else first, self.width)

    def gradients(self, g: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the kernel makes of a cotangent."""
        args = small((self.x, [self.width], self.mean, self.rstd, self.w, self.b))
        mask = [True, self.w is not None, self.b is not None]
        return torch.ops.aten.native_layer_norm_backward(g, *args, mask)

    def backward(self, found: Derivative, late: Calls) -> None:
        """The kernel of the derivative."""
        g, t, kind, o = found.factors[0], found.total, self.x.dtype, self.found.out
        for z in found.factors[1:]:
            g = late.add(call("mul", late.reshaped(g, o.shape, sizes_of(o)), z, shape=o.shape, dtype=kind))
        g = late.rows(g, self.width)
        mask = [t is not None, *(bool(found.vectors.get(k)) for k in (1, 2))]
        args = (g, self.x, [self.width], self.mean, self.rstd, self.w, self.b, mask)
        whole = late.add(call("native_layer_norm_backward", *args, shape=(), dtype=None))
        if t is not None:
            name = f"{t.name}_normed" if found.rest and t.name else t.name
            own = late.add(Node("part", (whole, 0), {}, self.x.shape, kind, whole.value[0], name))
            total = late.reshaped(own, t.shape, sizes_of(t))
            for sign, n, like in sorted(found.rest, key=lambda term: -term[0]):
                like = t if as_large(n, t) else like
                n, total = (late.reshaped(a, like.shape, sizes_of(like)) if as_large(a, t) else a for a in (n, total))
                first = (n, total) if sign > 0 and n.shape == like.shape else (total, n)
                total = late.add(call("add" if sign > 0 else "sub", *first, shape=like.shape, dtype=kind))
            late.replace(t, total)
        for k, same in found.vectors.items():
            if same:
                name = next((n.name for n in reversed(same) if n.name), "")
                part = late.add(Node("part", (whole, k), {}, (self.width,), kind, whole.value[k], name))
                for n in same:
                    late.replace(n, part)


__all__ = ["layer_norm"]
