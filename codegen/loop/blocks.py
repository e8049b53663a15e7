"""A step over a large batch in blocks of rows, so that what is between two passes over the batch stays in the cache.

What depends on the rows of the batch is row by row (each row of the result needs one row of what it reads), or a reduction
over rows. A row-by-row value is computed block by block; a reduction is added up over the blocks, and what reads its
result waits for the end of that pass. A row-by-row value that a later pass reads is kept whole, or computed again where
that moves less memory. Which is which is found from the shapes and proven by taking the small point in blocks of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codegen.loop.cost import CACHE, FITS, MEMORY, cost
from codegen.loop.graph import Node, Sized, call, called, equal, mapped
from codegen.loop.own import evaluated
from codegen.loop.padding import dense

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.loop.graph import Step

ROW_BYTES = 1 << 20
"""About how much a block of the widest value takes: half of a second-level cache of today."""
FEWEST, MOST = 64, 1024
SHAPES = frozenset(["view", "_unsafe_view", "expand", "reshape"])
"""Calls whose numbers are sizes."""


WHOLE = frozenset(["moments", "native_layer_norm", "native_layer_norm_backward"])
"""Calls with several results that can be made block by block."""


class NoBlocksError(Exception):
    """A step that cannot be taken in blocks."""


@dataclass(frozen=True)
class Begin:
    """The first of a pass over the blocks."""

    loop: int


@dataclass(frozen=True)
class End:
    """Behind the last of a pass over the blocks."""

    loop: int


@dataclass
class Blocks:
    """A step in blocks. `local` are values of one block with the pass each belongs to, by the value of the whole batch.

    `crossing` are local values that a later pass reads, `totals` what is added up and `collected` what is kept of every block in a pass.
    """

    rows: int
    size: int
    local: dict[Node, int] = field(default_factory=dict[Node, int])
    data: dict[Node, Node] = field(default_factory=dict[Node, Node])
    stored: dict[Node, Node] = field(default_factory=dict[Node, Node])
    crossing: dict[Node, int] = field(default_factory=dict[Node, int])
    totals: dict[Node, int] = field(default_factory=dict[Node, int])
    collected: dict[Node, int] = field(default_factory=dict[Node, int])
    order: list[Node | Begin | End] = field(default_factory=list[Any])

    @property
    def count(self) -> int:
        """How many blocks."""
        return self.rows // self.size


def block_size(step: Step, rows: int) -> int | None:
    """Rows of a block: of those that divide the batch, that which makes blocks of about ROW_BYTES."""
    widest = max(
        (n.numel // rows * n.dtype.itemsize for n in step.order if n.dtype is not None and n.shape[:1] == (rows,)),
        default=1,
    )
    best = min(max(ROW_BYTES // widest, FEWEST), MOST)
    fitting = [s for s in range(FEWEST, min(2 * best, rows // 2) + 1) if rows % s == 0]
    return min(fitting, key=lambda s: abs(s - best)) if fitting else None


def statistics_apart(step: Step, count: int) -> None:
    """BatchNorm as its mean and variance, from those of every block, and an affine function of the centred values.

    The mean is that of the blocks' means m_k; the variance that of their variances v_k plus the variance of the means
    (the law of total variance; Chan, Golub and LeVeque 1979), which is as accurate as two passes.
    """
    users = step.users()
    for whole in [n for n in step.order if n.op == "native_batch_norm"]:
        x, w, b, _, _, _, _, eps = whole.args
        (rows, width), kind = x.shape, x.dtype
        point = (torch.zeros(0), torch.zeros(0))
        own = Node("moments", (x,), {}, (), None, point)
        each = [
            Node("part", (own, k), {}, (width,), kind, point[k], "block_mean" if k == 0 else "block_var")
            for k in (0, 1)
        ]
        values = (x.value, torch.zeros_like(x.value))
        name = called(x) or "x"
        means, variances = (
            Node("collected", (p,), {}, (count, width), kind, v, f"{name}_{k}", stride=(width, 1))
            for p, v, k in zip(each, values, ("means", "vars"), strict=True)
        )
        nodes: list[Node] = [own, *each, means, variances]

        def add(
            op: str,
            *args: Any,
            shape: Any = (width,),
            name: str = "",
            nodes: list[Node] = nodes,
            kind: Any = kind,
            **kw: Any,
        ) -> Node:
            nodes.append(call(op, *args, shape=shape, dtype=kind, name=name, **kw))
            return nodes[-1]

        mean = add("mean", means, [0], name=f"{name}_mean")
        apart = add("sub", means, mean, shape=(count, width))
        square = add("mul", apart, apart, shape=(count, width))
        between = add("mean", square, [0])
        within = add("mean", variances, [0])
        var = add("add", within, between, name=f"{name}_var")
        above = var if eps == 0 else add("add", var, eps)
        invstd = add("rsqrt", above, name=f"{name}_invstd")
        centred = add("sub", x, mean, shape=(rows, width), name=f"{name}_centred")
        slope = invstd if w is None else add("mul", invstd, w, name=f"{name}_slope")
        out = (
            add("mul", centred, slope, shape=(rows, width))
            if b is None
            else add("addcmul", b, centred, slope, shape=(rows, width))
        )
        parts = {n.args[1]: n for n in users[whole] if n.op == "part"}
        step.insert(nodes, whole)
        results: list[Node] = [out, mean, invstd]
        for k, n in parts.items():
            new = results[int(k)]
            if not equal(new.value, n.value):
                raise NoBlocksError("statistics")
            new.name = n.name or new.name
            kept = {m: m.args for m in nodes}
            step.replace(n, new)
            for m, args in kept.items():
                m.args = args
        step.readers = None
    step.sort()


def sums_apart(step: Step) -> None:
    """A mean over rows as a sum times a number, and a product over rows with something added as the product and an addition.

    What is a sum over rows and nothing else can be added up over blocks.
    """
    first = step.inputs[step.batch[0]]
    rows, few = first.shape[0], first.value.shape[0]
    for n in list(step.order):
        if (
            n.op == "mean"
            and len(n.args) == 2
            and not n.kwargs
            and list(n.args[1]) == [0]
            and n.args[0].shape[0] == rows
        ):
            total = call("sum", n.args[0], [0], shape=n.shape, dtype=n.dtype, name=f"{n.name}_sum" if n.name else "")
            new = call("mul", total, Sized(1.0 / rows, 1.0 / few), shape=n.shape, dtype=n.dtype, name=n.name)
        elif n.op == "addmm" and not n.kwargs and n.args[-1].shape[0] == rows:
            total = call("mm", *n.args[1:], shape=n.shape, dtype=n.dtype, name=f"{n.name}_sum" if n.name else "")
            new = call("add", total, n.args[0], shape=n.shape, dtype=n.dtype, name=n.name)
        else:
            continue
        step.insert([total, new], n)
        step.replace(n, new)
    step.readers = None
    step.sort()


def is_moment(n: Node) -> bool:
    """Whether a value is a mean or variance of a block, of which there are as many as blocks."""
    return n.op == "part" and n.args[0].op == "moments"


def row_dim(n: Node, rows: int, few: int) -> int | None:
    """The dimension along which the rows lie, found by how the shape depends on the batch; None where it does not."""
    shape = tuple(n.value.shape)
    dims = [d for d, (a, b) in enumerate(zip(n.shape, shape, strict=True)) if a != b]
    if not dims:
        return None
    if len(dims) > 1 or n.shape[dims[0]] * few != shape[dims[0]] * rows or n.shape[dims[0]] % rows:
        raise NoBlocksError(f"{n}")
    return dims[0]


def in_blocks(step: Step, data: Iterable[Node], late: Iterable[Node], stored: Iterable[Node], size: int) -> Blocks:
    """The step in blocks of `size` rows. Changes the step: reductions become totals of what the blocks give.

    Raises NoBlocksError where that is not possible.
    """
    return Blocker(step, list(data), set(late), list(stored), size).blocks()


class Blocker:
    """Takes a step apart."""

    def __init__(self, step: Step, data: list[Node], late: set[Node], stored: list[Node], size: int) -> None:
        self.step, self.late, self.stored = step, late, stored
        first = step.inputs[step.batch[0]]
        self.rows, self.few, self.size = first.shape[0], first.value.shape[0], size
        self.data = set(data)
        self.body = [n for n in step.order if n not in late]
        self.rowwise: set[Node] = set()
        self.reduced: set[Node] = set()
        self.at: dict[Node, int] = {}  # the pass of a row-by-row value or reduction; for the rest, the one it waits for

    def blocks(self) -> Blocks:
        """Everything, one after the other."""
        self.classify()
        self.prove()
        self.passes()
        return self.apart()

    # -- which is which --------------------------------------------------------------------------------------------

    def classify(self) -> None:
        """Row by row, a reduction over rows, or neither."""
        for n in self.body:
            if n in self.data:
                self.rowwise.add(n)
            elif n.constant is not None:
                if row_dim(n, self.rows, self.few) is not None:
                    self.rowwise.add(n)
            elif n.op != "collected" and any(r in self.rowwise for r in n.reads):
                if n.write or n.op in ("native_batch_norm", "native_batch_norm_backward"):
                    raise NoBlocksError(f"{n}")
                if n.op in WHOLE or is_moment(n):
                    self.rowwise.add(n)
                elif n.dtype is None:
                    raise NoBlocksError(f"{n}")
                elif row_dim(n, self.rows, self.few) is not None:
                    self.rowwise.add(n)
                else:  # a reduction: `prove` sees whether it may be added up over blocks
                    self.reduced.add(n)
        ends = {n for key, n in self.step.results.items() if not key.startswith(("loss", "keep."))}
        if any(n in self.rowwise for n in ends) or not self.reduced:
            raise NoBlocksError("results")

    def prove(self) -> None:
        """The small point in blocks of one row has the values that it has as a whole."""
        found: list[dict[Node, Any]] = []
        for k in range(self.few):
            values: dict[Node, Any] = {}

            def given(a: Any, values: dict[Node, Any] = values, k: int = k) -> Any:
                if isinstance(a, Node):  # a sum over rows is read when it is complete
                    return a.value if a in self.reduced else values.get(a, a.value)
                return a.small if isinstance(a, Sized) else a

            for n in self.body:
                if n not in self.rowwise and n not in self.reduced:
                    continue
                d = None if n.dtype is None or is_moment(n) else row_dim(n, self.rows, self.few)
                if n.op == "input" or n.constant is not None:
                    assert d is not None
                    width = n.value.shape[d] // self.few
                    start = 0 if n.constant is not None else k * width
                    values[n] = n.value.narrow(d, start, width)
                    continue
                args = self.sized(n, 1, mapped(n.args, given))
                try:
                    values[n] = evaluated(n, args, {k: mapped(v, given) for k, v in n.kwargs.items()})
                except (RuntimeError, IndexError) as error:
                    raise NoBlocksError(f"{n}") from error
                if d is not None and n.op != "order":
                    width = n.value.shape[d] // self.few
                    if not equal(values[n], n.value.narrow(d, k * width, width)):
                        raise NoBlocksError(f"{n}")
            found.append(values)
        for n in self.reduced:
            total = sum(values[n] for values in found)
            if not isinstance(total, Tensor) or not equal(total, n.value):
                raise NoBlocksError(f"{n}")

    def sized(self, n: Node, rows: int, args: Any) -> Any:
        """Arguments with the sizes among them for `rows` rows; `n` has them as they were."""
        if n.op not in SHAPES and n.op != "spread":
            return args
        at = 1 if n.op in SHAPES else 2
        shape: list[Any] = list(n.args[at])
        if n.op == "spread":
            new: Any = (rows, *shape[1:])
        else:
            new = [s.full // self.rows * rows if isinstance(s, Sized) else s for s in shape]
            if any(
                isinstance(s, Sized) and (s.full % self.rows or s.full * self.few != s.small * self.rows) for s in shape
            ):
                raise NoBlocksError(f"{n}")
        return (*args[:at], new, *args[at + 1 :])

    # -- passes ----------------------------------------------------------------------------------------------------

    def passes(self) -> None:
        """The pass of every value: one behind every reduction that it needs."""
        for n in self.body:
            before = [
                self.at.get(r, 0) + (r in self.reduced or n.op == "collected") for r in n.reads if r not in self.data
            ]
            self.at[n] = max(before, default=0)

    # -- blocks ----------------------------------------------------------------------------------------------------

    def apart(self) -> Blocks:
        """Copies of the row-by-row values for a block, in the passes that need them."""
        out = Blocks(self.rows, self.size)
        places, kept = self.needed()
        copies: dict[tuple[Node, int], Node] = {}
        constants: dict[Node, Node] = {}
        passes = max(self.at.values(), default=0) + 1
        inner: list[list[Node]] = [[] for _ in range(passes)]
        for n in self.body:
            if n in self.data:
                out.data[n] = self.copied(n, {**constants, **out.data}.__getitem__)
            elif n in self.rowwise and n.constant is not None:
                constants[n] = self.copied(n, same)
            elif n in self.rowwise or n in self.reduced:
                homes = sorted(places[n]) if n in self.rowwise else [self.at[n]]
                for home in homes:

                    def block(r: Node, home: int = home) -> Node:
                        if r in out.data or r in constants:
                            return out.data.get(r) or constants[r]
                        if r in self.rowwise:
                            return copies[r, home] if home in places[r] else copies[r, self.at[r]]
                        return r

                    made = copies[n, home] = self.copied(n, block)
                    inner[home].append(made)
                    out.local[made] = home
                if n in kept:
                    out.crossing[copies[n, self.at[n]]] = self.at[n]
                if n in self.stored:
                    out.stored[copies[n, self.at[n]]] = n
        for n in self.body:
            if n in self.reduced:
                tall = n.op == "mm" and n.shape[0] > n.shape[1]  # a product is faster along its longer side
                n.stride = (1, n.shape[0]) if tall else dense(n.shape)
                n.op, n.args, n.kwargs = "total", (copies[n, self.at[n]],), {}
                out.totals[n] = self.at[n]
                n.overload = ""
            elif n.op == "collected":
                home = self.at[n] - 1
                n.args = (copies[n.args[0], home],)
                out.collected[n] = home
        outer = [n for n in self.body if n not in self.rowwise and n.op != "input"]
        for k in range(passes + 1):
            out.order += [n for n in outer if (self.at[n] + (n in self.reduced)) == k]
            if k < passes and inner[k]:
                out.order += [Begin(k), *inner[k], End(k)]
        return out

    def copied(self, n: Node, block: Any) -> Node:
        """A value for a block."""
        if n in self.reduced or n.dtype is None or is_moment(n):
            shape = n.shape
        else:
            d = row_dim(n, self.rows, self.few)
            shape = tuple(s // self.rows * self.size if e == d else s for e, s in enumerate(n.shape))
        args = mapped(n.args, lambda a: block(a) if isinstance(a, Node) and a in self.rowwise else a)
        args = self.sized(n, self.size, args)
        constant = n.constant
        if constant is not None:
            for d, s in enumerate(shape):
                constant = constant.narrow(d, 0, s)
        kwargs = {
            k: mapped(v, lambda a: block(a) if isinstance(a, Node) and a in self.rowwise else a)
            for k, v in n.kwargs.items()
        }
        return Node(
            n.op, args, kwargs, shape, n.dtype, n.value, n.name, n.overload, constant=constant, stride=dense(shape)
        )

    def alone(self, n: Node) -> Node:
        """A value for a block, without what it is computed from."""
        return self.copied(n, same)

    def needed(self) -> tuple[dict[Node, set[int]], set[Node]]:
        """In which passes each value is computed, and which are kept whole from one pass to another."""
        readers: dict[Node, list[Node]] = {n: [] for n in self.body}
        for n in self.body:
            for r in dict.fromkeys(n.reads):
                if r in readers:
                    readers[r].append(n)
        places: dict[Node, set[int]] = {}
        kept: set[Node] = set()
        for n in reversed(self.body):
            if n not in self.rowwise or n in self.data or n.constant is not None:
                continue
            home = self.at[n]
            uses: set[int] = set()
            for u in readers[n]:
                uses |= places.get(u, set()) if u in self.rowwise else {self.at[u] - (u.op == "collected")}
            if n in self.stored:
                uses.add(home)
            later = {k for k in uses if k != home}
            if not later or n in self.stored:
                places[n] = {home}
                continue
            again = cost(self.copied(n, self.alone)) * (self.rows // self.size) * len(later)
            if n.is_view or n.dtype is None or n.op == "part" or again < keeping(n.numel, n.dtype.itemsize, len(later)):
                places[n] = uses
            else:
                places[n] = {home}
                kept.add(n)
        return places, kept


def same(n: Node) -> Node:
    """The value itself."""
    return n


def priced(blocks: Blocks) -> float:
    """The cost of a step in blocks: that of every block, and of what is kept whole."""
    total = 0.0
    for x in blocks.order:
        if isinstance(x, Node):
            total += cost(x) * (blocks.count if x in blocks.local else 1)
    for n in blocks.crossing:
        total += keeping(n.numel * blocks.count, n.dtype.itemsize, 1)
    return total


def keeping(elements: int, width: int, readers: int) -> float:
    """What it costs to keep a value whole from one pass to others: it is written, which reads it first, and read."""
    moved = elements * width
    return moved * (2 + readers) / (CACHE if moved < FITS else MEMORY)


__all__ = ["Begin", "Blocks", "End", "NoBlocksError", "block_size", "in_blocks", "priced", "statistics_apart"]
