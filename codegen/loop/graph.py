"""One training step as data: calls of torch on tensors of known shapes, each with its value at a small random point.

The value (in float64, from a run of the same statements with a batch of a few rows) is what every identity is proven
against before it is used: a kernel that is not equal to what was derived is never selected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from codegen.loop.folds import Average
    from codegen.loop.kept import Kept

VIEWS = frozenset(
    [
        "view",
        "permute",
        "t",
        "transpose",
        "expand",
        "squeeze",
        "unsqueeze",
        "slice",
        "select",
        "_unsafe_view",
        "diagonal",
        "alias",
        "unfold",
        "extended",
    ]
)
"""Operators whose result shares memory with their first argument; an extended one has more places than it."""


@dataclass(frozen=True)
class Sized:
    """A number that depends on the batch: its value at the sizes of the loop, and at the small point."""

    full: Any
    small: Any


@dataclass(eq=False)
class Node:
    """One call. `op` is an aten operator's name, `input`, or `part` (one of several results of a call).

    `write` is set for a call that changes its first argument in place; the node is then the argument afterwards, and
    `path` holds the views through which it is written.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    dtype: Any
    value: Any
    name: str = ""
    overload: str = ""
    write: bool = False
    path: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    constant: Any = None
    stride: tuple[int, ...] = ()
    _reads: tuple[tuple[Any, Any], tuple[Node, ...]] = ((None, None), ())

    def __repr__(self) -> str:
        return f"{self.name or '?'}{list(self.shape)} = {self.op}({', '.join(_short(a) for a in self.args)})"

    @property
    def is_view(self) -> bool:
        """Whether the result shares memory with the first argument."""
        return self.op in VIEWS

    @property
    def reads(self) -> tuple[Node, ...]:
        """The nodes among the arguments, in order."""
        key, known = self._reads
        if key[0] is not self.args or key[1] is not self.kwargs:
            known = tuple(nodes_in((self.args, tuple(self.kwargs.values()), tuple(a for _, a in self.path))))
            self._reads = ((self.args, self.kwargs), known)
        return known

    @property
    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for s in self.shape:
            count *= s
        return count


def called(n: Node) -> str:
    """The name of a value, or of what a view without a name shows; "" where that has none."""
    while not n.name and n.is_view and not n.write:
        n = n.args[0]
    return n.name


def _short(a: Any) -> str:
    return (
        a.name or a.op
        if isinstance(a, Node)
        else "[" + ", ".join(map(_short, cast("Any", a))) + "]"
        if isinstance(a, (list, tuple))
        else repr(a)
    )


def nodes_in(a: Any) -> Iterator[Node]:
    """The nodes inside of an argument."""
    if isinstance(a, Node):
        yield a
    elif isinstance(a, (list, tuple)):
        for x in cast("list[Any]", a):
            yield from nodes_in(x)


def mapped(a: Any, f: Callable[[Any], Any]) -> Any:
    """An argument with `f` applied to everything inside of its lists."""
    if isinstance(a, (list, tuple)):
        items = [mapped(x, f) for x in cast("list[Any]", a)]
        return tuple(items) if isinstance(a, tuple) else items
    return f(a)


@dataclass
class Step:
    """A step: inputs in the forward's order, what it results in, and which inputs are rows of the data.

    `results` holds `loss`, `grad.NAME` for every trained input, `buffer.NAME` for every buffer's next value, and
    `keep.NAME` for every named value that is asked for.
    """

    inputs: dict[str, Node]
    batch: tuple[str, ...]
    results: dict[str, Node]
    order: list[Node] = field(default_factory=list[Node])
    kept: dict[str, Kept] = field(default_factory=dict[str, Any])
    """Inputs that are no parameters as they were given, by name: what they hold."""
    called: dict[str, str] = field(default_factory=dict[str, str])
    """What batch inputs are called by whom they are given, where that is not their name."""
    readers: dict[Node, list[Node]] | None = None
    """Who may read each node: kept up to date by `insert` and `replace`, made anew after anything else."""

    def sort(self) -> None:
        """Recompute the order: what the results need, each after what it reads, as it was recorded."""
        needed = self.needed_in_order()
        if needed is not None:
            self.order = needed
            return
        place = {n: k for k, n in enumerate(self.order)}
        done: dict[Node, None] = {}
        for root in self.results.values():
            stack = [(root, False)]
            while stack:
                n, ready = stack.pop()
                if n in done:
                    continue
                if ready:
                    done[n] = None
                    continue
                stack.append((n, True))
                stack.extend((r, False) for r in reversed(n.reads) if r not in done)
        rank: dict[Node, tuple[int, int]] = {}
        for k, n in enumerate(done):
            before = max((rank[r][0] for r in n.reads), default=-1)
            rank[n] = (max(place.get(n, -1), before), k)
        self.order = sorted(done, key=lambda n: rank[n])

    def needed_in_order(self) -> list[Node] | None:
        """What the results need, as it was recorded; None where some of it stands before what it reads, or is not there."""
        needed = set(self.results.values())
        after: dict[Node, None] = {}
        for n in reversed(self.order):
            if n in needed:
                reads = n.reads
                if not after.keys().isdisjoint(reads):
                    return None
                needed.update(reads)
                after[n] = None
        return [*reversed(after)] if len(after) == len(needed) else None

    def users(self) -> dict[Node, list[Node]]:
        """Who reads each node."""
        found: dict[Node, list[Node]] = {n: [] for n in self.order}
        for n in self.order:
            for r in dict.fromkeys(n.reads):
                found[r].append(n)
        return found

    def replace(self, old: Node, new: Node) -> None:
        """Let everything that reads `old` read `new`."""
        if old is new:
            return

        def swapped(a: Any) -> Any:
            return new if a is old else a

        if self.readers is None:
            self.readers = self.users()
        for n in self.readers.pop(old, []):
            if n is not new and old in n.reads:
                n.args = mapped(n.args, swapped)
                n.kwargs = {k: mapped(v, swapped) for k, v in n.kwargs.items()}
                self.readers.setdefault(new, []).append(n)
        for k, r in self.results.items():
            if r is old:
                self.results[k] = new

    def insert(self, nodes: Iterable[Node], before: Node) -> None:
        """New nodes, placed where `before` stands."""
        at = self.order.index(before)
        made = list(nodes)
        self.order[at:at] = made
        if self.readers is not None:
            for n in made:
                for r in dict.fromkeys(n.reads):
                    self.readers.setdefault(r, []).append(n)


def copied(step: Step, averages: Sequence[Average] = ()) -> tuple[Step, tuple[Average, ...]]:
    """A step that can be changed while this one stays as it is, and its averages."""
    made: dict[Node, Node] = {}

    def new(a: Any) -> Any:
        return made[a] if isinstance(a, Node) else a

    for n in [*step.inputs.values(), *step.order]:
        if n not in made:
            kwargs = {k: mapped(v, new) for k, v in n.kwargs.items()}
            made[n] = replace(n, args=mapped(n.args, new), kwargs=kwargs)
    inputs = {k: made[n] for k, n in step.inputs.items()}
    results = {k: made[n] for k, n in step.results.items()}
    again = Step(inputs, step.batch, results, [made[n] for n in step.order], dict(step.kept), dict(step.called))
    return again, tuple(replace(a, value=None if a.value is None else made[a.value]) for a in averages)


def small(a: Any) -> Any:
    """An argument as it is at the small point."""
    return mapped(a, lambda x: x.value if isinstance(x, Node) else x.small if isinstance(x, Sized) else x)


def packet(op: str) -> Any:
    """The aten operator of a name."""
    return getattr(torch.ops.aten, op)


def call(
    op: str, *args: Any, shape: tuple[int, ...], dtype: Any, name: str = "", overload: str = "", **kwargs: Any
) -> Node:
    """A new call, evaluated at the small point."""
    f = packet(op) if not overload else getattr(packet(op), overload)
    value = f(*small(args), **{k: small(v) for k, v in kwargs.items()})
    return Node(op, args, kwargs, shape, dtype, value, name, overload)


def constant(t: Tensor, point: Tensor | None = None) -> Node:
    """A tensor that is the same in every step, with its value at the small point where that is another one."""
    value = t if point is None else point
    return Node("constant", (), {}, tuple(t.shape), t.dtype, value, constant=t, stride=t.stride())


def alike(a: Node, b: Node) -> bool:
    """Whether two nodes have the same shape: at the loop's sizes, and not by chance."""
    return a.shape == b.shape and a.value.shape == b.value.shape


def sizes_of(n: Node) -> list[Any]:
    """A node's shape as it is at the loop's sizes and at the small point."""
    return [a if a == b else Sized(a, b) for a, b in zip(n.shape, n.value.shape, strict=True)]


def seen_as(g: Node, n: Node) -> tuple[Node, list[Node]] | None:
    """A tensor with the shape of another, and the view that gives it that; None where it has no such view."""
    if g.shape == n.shape and g.value.shape == n.value.shape:
        return g, []
    together = cast("Any", torch).broadcast_shapes
    try:
        fits = all(together(a, b) == b for a, b in ((g.shape, n.shape), (g.value.shape, n.value.shape)))
    except RuntimeError:
        return None
    if not fits or not g.shape:
        return None
    wide = call("expand", g, sizes_of(n), shape=n.shape, dtype=g.dtype)
    return wide, [wide]


def lies_in_rows(n: Node) -> bool:
    """Whether a value surely lies in memory row by row."""
    while n.is_view and n.op in ("view", "_unsafe_view", "squeeze", "unsqueeze"):
        n = n.args[0]
    return not n.is_view and contiguous(n) and n.value.is_contiguous()


def contiguous(n: Node) -> bool:
    """Whether a value was recorded as lying in memory row by row."""
    if not n.stride:
        return True
    expect = 1
    for size, stride in zip(reversed(n.shape), reversed(n.stride), strict=True):
        if size != 1 and stride != expect:
            return False
        expect *= size
    return True


def numbers(t: Tensor) -> Any:
    """The values of a tensor in a row, in float64."""
    return (t if t.dtype == torch.float64 else t.double()).detach().numpy().ravel()


def equal(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether two values agree at the small point, up to dimensions of size one."""
    if a.shape != b.shape and [s for s in a.shape if s != 1] != [s for s in b.shape if s != 1]:
        return False
    if not a.numel():
        return True
    x, y = numbers(a), numbers(b)
    scale = max(float(abs(x).max()), float(abs(y).max()))
    if scale == math.inf:
        infinite = np.isinf(x)
        if not (x[infinite] == y[infinite]).all():
            return False
        x, y = x[~infinite], y[~infinite]
        if not len(x):
            return True
        scale = max(float(abs(x).max()), float(abs(y).max()))
    return math.isfinite(scale) and bool(abs(x - y).max() <= tolerance * max(scale, 1e-30))
