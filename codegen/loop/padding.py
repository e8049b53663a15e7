"""Parameters with spare columns: 27 columns of a float32 product take longer than 32.

The spare places hold zeros (or, where an exponential is taken along them, -1e30 in vectors) and have gradient zero, so
that they keep what they hold and everything else is what it was: proven at the small point before it is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codegen.loop.calls import ELEMENTWISE
from codegen.loop.cost import BLOCK, price
from codegen.loop.graph import Node, equal, mapped, packet, small
from codegen.loop.kept import Kept, as_it_is
from codegen.loop.rules import restore, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codegen.loop.graph import Step

Axis = tuple[Node, int]
MOST = 1024
"""Symbols from which on they get no spare columns, as their rows are not taken from a table that knows how many there are."""
FAR = -1e30
"""Its exponential is zero in every dtype, and it is finite in every dtype."""


class Axes:
    """Dimensions of values that are one and the same axis, or that nothing is known about."""

    def __init__(self) -> None:
        self.parent: dict[Axis, Axis] = {}
        self.fixed: dict[Axis, None] = {}

    def find(self, a: Axis) -> Axis:
        """The axis that stands for all that are equal to `a`."""
        path: list[Axis] = []
        while self.parent.get(a, a) != a:
            path.append(a)
            a = self.parent[a]
        for p in path:
            self.parent[p] = a
        return a

    def same(self, a: Axis, b: Axis) -> None:
        """Two dimensions are one axis."""
        self.parent[self.find(a)] = self.find(b)

    def keep(self, n: Node, dims: Sequence[int] | None = None) -> None:
        """Dimensions that stay as they are; all of them by default."""
        for d in range(len(n.shape)) if dims is None else dims:
            self.fixed[(n, d)] = None

    def groups(self) -> Iterator[list[Axis]]:
        """Axes that may be widened: the dimensions each consists of."""
        found: dict[Axis, list[Axis]] = {}
        for a in list(self.parent):
            found.setdefault(self.find(a), []).append(a)
        stuck = {self.find(a) for a in self.fixed}
        for a, members in found.items():
            if a not in stuck:
                yield [a, *[m for m in members if m != a]]


def axes_of(step: Step, trained: Sequence[str]) -> Axes:
    """The axes of a step. What a call does with its dimensions is known for the calls named here, and for no other."""
    axes = Axes()
    own = [step.inputs[t] for t in trained]
    for n in step.order:
        if n.op == "input":
            if n not in own:
                axes.keep(n)
        elif n.op in ELEMENTWISE and not n.write:
            broadcast(axes, n, n.reads)
        elif n.op in ("mm", "addmm") and not n.write:
            a, b = n.args[-2:]
            axes.same((a, 1), (b, 0))
            axes.same((n, 0), (a, 0))
            axes.same((n, 1), (b, 1))
            if n.op == "addmm":
                broadcast(axes, n, [n.args[0]])
        elif n.op == "mv":
            axes.same((n.args[0], 1), (n.args[1], 0))
            axes.same((n, 0), (n.args[0], 0))
        elif n.op in ("sum", "mean") and len(n.args) == 2 and list(n.args[1]) == [0]:
            for d in range(len(n.shape)):
                axes.same((n, d), (n.args[0], d + 1))
        elif n.op == "permute":
            for d, e in enumerate(n.args[1]):
                axes.same((n, d), (n.args[0], e % len(n.shape)))
        elif n.op in ("_softmax", "_log_softmax"):
            broadcast(axes, n, [n.args[0]])
        elif n.op == "native_batch_norm" or n.op == "native_batch_norm_backward":
            normalised(axes, n)
        elif n.op == "part" and n.args[0].op.startswith("native_batch_norm"):
            x = n.args[0].args[0]
            for d in range(len(n.shape)):
                axes.same((n, d), (x, d + len(x.shape) - len(n.shape)))
        elif n.op == "index" and len(n.args[0].shape) == len(n.args[1]) and all(i is not None for i in n.args[1]):
            axes.keep(n)
            for i in n.args[1]:
                axes.keep(i)
            axes.keep(n.args[0], None if len(n.args[0].shape) != 2 else [0])
        elif n.op == "index_select" and n.args[1] == 1 and len(n.shape) == 2:
            axes.same((n, 0), (n.args[0], 0))
            axes.keep(n, [1])
        elif n.op in ("spread", "onehot") and len(n.shape) == 2:
            axes.keep(n, [0])
        else:
            for r in [n, *n.reads]:
                axes.keep(r)
    for key, n in step.results.items():
        if not key.startswith("grad."):
            axes.keep(n)
            continue
        for d in range(len(n.shape)):
            axes.same((n, d), (step.inputs[key.removeprefix("grad.")], d))
    return axes


def broadcast(axes: Axes, n: Node, operands: Sequence[Node]) -> None:
    """Operands are aligned at their last dimensions."""
    for r in operands:
        if len(r.shape) > len(n.shape):  # reduced in the same call
            axes.keep(r)
            axes.keep(n)
            continue
        for d in range(1, len(r.shape) + 1):
            at = len(r.shape) - d
            if r.shape[at] == n.shape[-d]:
                axes.same((n, len(n.shape) - d), (r, at))
            else:
                axes.keep(r, [at])
                axes.keep(n, [len(n.shape) - d])


def normalised(axes: Axes, n: Node) -> None:
    """Everything that BatchNorm takes has the columns of x, and what is no vector has its rows."""
    x = n.args[0]
    for r in n.reads:
        if len(x.shape) != 2:
            axes.keep(r)
            continue
        for d in range(len(r.shape)):
            axes.same((r, d), (x, d + 2 - len(r.shape)))


def widened(step: Step, trained: Sequence[str]) -> None:
    """Give parameters spare columns wherever that pays; `step.kept` tells which have them."""
    tried: set[frozenset[tuple[str, int]]] = set()
    names = {step.inputs[t]: t for t in trained}
    left = list(axes_of(step, trained).groups())
    while left:
        group = left.pop(0)
        own = frozenset((names[n], d) for n, d in group if n in names)
        if not own or own in tried:
            continue
        tried.add(own)
        if widen_one(step, group, trained):  # calls are others from here on
            names = {step.inputs[t]: t for t in trained}
            left = list(axes_of(step, trained).groups())


def widen_one(step: Step, group: Sequence[Axis], trained: Sequence[str]) -> bool:
    """Give one axis spare columns if that pays."""
    n, d = group[0]
    size = n.shape[d]
    block = BLOCK.get(n.dtype.itemsize if n.dtype is not None else 0)
    if block is None or size < 2 or size % block == 0 or block // 2 >= size % block < size:
        return False
    for fill in (0.0, FAR):
        before, inputs, cost = snapshot(step), dict(step.inputs), price(step)
        given = _widen(step, group, -size % block, fill, trained)
        if given and price(step) < cost:
            step.kept.update(given)
            return True
        restore(step, before)
        step.inputs = inputs
    return False


def _widen(step: Step, group: Sequence[Axis], spare: int, fill: float, trained: Sequence[str]) -> dict[str, Kept]:
    """Widen one axis, with `fill` in the spare places of vectors; nothing where that changes a result or moves what is spare."""
    dims: dict[Node, tuple[int, ...]] = {}
    for n, d in group:
        dims[n] = (*dims.get(n, ()), d)
    names = {step.inputs[t]: t for t in trained}
    renewed: dict[Node, Node] = {}
    given: dict[str, Kept] = {}
    order: list[Node] = []
    for n in step.order:
        args = mapped(n.args, lambda a: renewed.get(a, a) if isinstance(a, Node) else a)
        made = n
        if n in dims or (n.dtype is None and any(r in dims for r in n.reads)):
            shape = tuple(s + spare if d in dims.get(n, ()) else s for d, s in enumerate(n.shape))
            made = Node(n.op, args, n.kwargs, shape, n.dtype, None, n.name, n.overload, stride=dense(shape))
            if n.constant is not None:
                return {}
            if n.op == "input":
                at = fill if len(shape) == 1 else 0.0
                given[names[n]] = replace(step.kept.get(names[n], as_it_is(names[n], n.shape)), fill=at)
                step.inputs[names[n]] = made
                made.value = enlarged(n.value, [s + spare * (d in dims[n]) for d, s in enumerate(n.value.shape)], at)
            elif n.op in ("spread", "onehot"):
                if n.shape[1] > MOST:
                    return {}
                made.args = (*args[:2], shape, n.shape[1]) if n.op == "spread" else (args[0], shape[1], n.shape[1])
                made.value = enlarged(n.value, [s + spare * (d in dims[n]) for d, s in enumerate(n.value.shape)], 0.0)
            else:
                made.value = evaluated(made)
            renewed[n] = made
        elif any(r in renewed for r in n.reads):
            if n.constant is not None or n.write or not hasattr(torch.ops.aten, n.op):
                return {}
            n.args = args
            if not equal(evaluated(n), n.value):
                return {}
        order.append(made)
    for key, n in step.results.items():
        if n in renewed:
            if not kept(n.value, renewed[n].value):
                return {}
            step.results[key] = renewed[n]
    step.order, step.readers = order, None
    return given


def kept(value: Tensor, wide: Tensor) -> bool:
    """Whether a gradient is what it was, and zero in the spare places."""
    inner = tuple(slice(0, s) for s in value.shape)
    rest = wide.clone()
    rest[inner] = 0.0
    return equal(wide[inner], value) and not bool(rest.any())


def enlarged(value: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """A tensor inside of a larger one."""
    out = torch.full(shape, fill, dtype=value.dtype)
    out[tuple(slice(0, s) for s in value.shape)] = value
    return out


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor that lies in memory row by row."""
    out: list[int] = []
    step = 1
    for s in reversed(shape):
        out.insert(0, step)
        step *= s
    return tuple(out)


def evaluated(n: Node) -> Any:
    """The value of a call at the small point."""
    if n.op == "part":
        return n.args[0].value[n.args[1]]
    f = packet(n.op)
    f = getattr(f, n.overload) if n.overload else f
    return f(*small(n.args), **{k: small(v) for k, v in n.kwargs.items()})


__all__ = ["widened"]
