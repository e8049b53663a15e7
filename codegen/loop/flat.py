# pyright: basic
"""Sequences as rows: what is computed for every place of (rows, places, columns) is computed for rows * places rows.

Products see matrices anyway, through views. With everything between two of them as a matrix too, a bias is added by the
product, its gradient is a column sum, and what holds for matrices holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.calls import ELEMENTWISE
from codegen.loop.graph import Node, Sized, call, equal, lies_in_rows, mapped, sizes_of

if TYPE_CHECKING:
    from codegen.loop.graph import Step

VIEW = ("view", "_unsafe_view")


def flattened(step: Step) -> None:
    """Rewrite a step, each call only where its value at the small point stays what it was."""
    flat = Flat()
    for n in list(step.order):
        flat.visit(n)
    step.order = flat.order
    step.readers = None
    step.results = {k: flat.now(r) for k, r in step.results.items()}
    step.sort()


class Flat:
    """The rewritten calls so far; `rows` has for a value of three or more dimensions the matrix that it is a view of."""

    def __init__(self) -> None:
        self.order: list[Node] = []
        self.rows: dict[Node, Node] = {}
        self.instead: dict[Node, Node] = {}
        self.known: dict[Any, Node] = {}
        self.placed: set[Node] = set()

    def now(self, n: Any) -> Any:
        """What a value has become."""
        return self.instead.get(n, n) if isinstance(n, Node) else n

    def visit(self, n: Node) -> None:
        """Rewrite one call."""
        n.args = mapped(n.args, self.now)
        n.kwargs = {k: mapped(v, self.now) for k, v in n.kwargs.items()}
        made = None if n.constant is not None or n.write or n.op == "input" or n.dtype is None else self.matrix(n)
        if made is None:
            self.place(n)
            self.seen(n)
            return
        new, nodes = made
        result = new if new.shape == n.shape else view(new, n)
        if new.value.dim() != len(new.shape) or not equal(result.value, n.value):
            self.place(n)
            return
        new.name = new.name or n.name
        self.place(*nodes, new)
        if result is not new:
            self.place(result)
            if len(new.shape) == 2:
                self.rows[result] = new
        self.instead[n] = result

    def place(self, *nodes: Node) -> None:
        """Put calls at the end of the order, each once."""
        for n in nodes:
            if n not in self.placed:
                self.placed.add(n)
                self.order.append(n)

    def seen(self, n: Node) -> None:
        """Note a view of a matrix with its columns, and a matrix that is all of something."""
        if n.op not in VIEW:
            return
        x = n.args[0]
        if len(n.shape) == 2 and len(x.shape) > 2 and alike_columns(n, x):
            self.rows.setdefault(x, n)
        if len(n.shape) < 3:
            return
        matrix = x if len(x.shape) == 2 else self.rows.get(x)
        if matrix is not None and alike_columns(matrix, n):
            self.rows[n] = matrix

    def matrix(self, n: Node) -> tuple[Node, list[Node]] | None:
        """The call on matrices, and what is made for it."""
        x: Any = n.args[0] if len(n.args) else None
        if n.is_view and len(n.shape) == 2:
            m = self.same(n, n.shape, n.value)
            return None if m is None or (m.op == "permute" and n.op == "permute" and m.args[0] is x) else (m, [])
        if n.op in ELEMENTWISE and len(n.shape) > 2 and any(r in self.rows for r in n.reads):
            return self.elementwise(n)
        if n.op in ("_softmax", "_log_softmax") and x in self.rows and n.args[1] % len(n.shape) == len(n.shape) - 1:
            return self.of(n, n.op, self.rows[x], 1, *n.args[2:]), []
        if n.op in ("sum", "mean") and x in self.rows and len(n.args) > 1 and not n.kwargs:
            return self.reduced(n, x)
        if n.op == "bmm" and n.shape[:1] == (1,) and n.value.shape[0] == 1:
            return self.product(n)
        if n.op in ("index", "index_put") and x in self.rows:
            return self.picked(n, x)
        return None

    def of(self, n: Node, op: str, *args: Any) -> Node:
        """A call for all rows; its result is seen as `n` was."""
        shape = (count(n.shape), n.shape[-1])
        return call(op, *args, shape=shape, dtype=n.dtype, overload=n.overload, **n.kwargs)

    def elementwise(self, n: Node) -> tuple[Node, list[Node]] | None:
        """Operands of the same shape as matrices, columns and numbers as they are, a number a row as a column."""
        nodes: list[Node] = []
        args: list[Any] = []
        for a in n.args:
            if not isinstance(a, Node):
                args.append(a)
                continue
            matrix = self.rows.get(a)
            if matrix is not None and a.shape[:-1] == n.shape[:-1]:
                args.append(matrix)
            elif a.shape in ((), (n.shape[-1],)):
                args.append(a)
            elif len(a.shape) == len(n.shape) and a.shape[:-1] == n.shape[:-1] and lies_in_rows(a):
                matrix = call("view", a, sizes(a), shape=(count(a.shape), a.shape[-1]), dtype=a.dtype)
                nodes.append(matrix)
                args.append(matrix)
            else:
                return None
        try:
            return self.of(n, n.op, *args), nodes
        except RuntimeError:
            return None

    def reduced(self, n: Node, x: Node) -> tuple[Node, list[Node]] | None:
        """Sums over all rows, or over the columns of each."""
        last = len(x.shape) - 1
        dims = sorted(d % len(x.shape) for d in n.args[1])
        keep = len(n.args) > 2 and bool(n.args[2])
        if dims == list(range(last)) and not keep:
            return call(n.op, self.rows[x], [0], shape=n.shape, dtype=n.dtype), []
        if dims == [last]:
            rows = count(x.shape)
            shape = (rows, 1) if keep else (rows,)
            return call(n.op, self.rows[x], [1], *([True] if keep else []), shape=shape, dtype=n.dtype), []
        return None

    def product(self, n: Node) -> tuple[Node, list[Node]]:
        """A product of a batch of one."""
        nodes: list[Node] = []
        sides = [self.side(a, nodes) for a in n.args]
        return call("mm", *sides, shape=n.shape[1:], dtype=n.dtype), nodes

    def side(self, a: Node, nodes: list[Node]) -> Node:
        """An operand of that."""
        m = self.same(a, a.shape[1:], a.value[0])
        base = as_it_lies(a) if m is None else None
        if base is not None:
            m = call("view", base, sizes_of(a)[1:], shape=a.shape[1:], dtype=a.dtype)
        if m is None:
            m = call("select", a, 0, 0, shape=a.shape[1:], dtype=a.dtype)
        if m not in self.placed:
            nodes.append(m)
        return m

    def same(self, a: Node, shape: tuple[int, ...], value: torch.Tensor) -> Node | None:
        """A matrix that a value is a view of, as it is or turned, where that is all there is to the view."""
        seen = a
        while True:
            m = self.rows.get(seen) or (seen if len(seen.shape) == 2 and seen is not a else None)
            if m is not None and m is not a and m.value.dim() == value.dim() == 2:
                if (m.shape, m.value.shape) == (shape, value.shape) and torch.equal(m.value, value):
                    return m
                if (m.shape[::-1], m.value.T.shape) == (shape, value.shape) and torch.equal(m.value.T, value):
                    return call("permute", m, [1, 0], shape=shape, dtype=a.dtype)
            if not seen.is_view:
                return None
            seen = seen.args[0]

    def picked(self, n: Node, x: Node) -> tuple[Node, list[Node]] | None:
        """One column of every row."""
        *grid, column = n.args[1]
        if (
            len(n.args[1]) != len(x.shape)
            or column is None
            or column.shape != x.shape[:-1]
            or column.constant is not None
        ):
            return None
        for d, g in enumerate(grid):
            if g is None or g.constant is None:
                return None
            shape = (x.shape[d], *[1] * (len(grid) - 1 - d))
            positions = g.constant.flatten()
            if g.shape[-len(shape) :] != shape or not torch.equal(positions, torch.arange(x.shape[d])):
                return None
        rows, few = count(x.shape), count(x.value.shape)
        every = Node(
            "arange",
            (Sized(rows, few),),
            {},
            (rows,),
            torch.int64,
            torch.arange(few),
            "arange",
            constant=torch.arange(rows),
        )
        every = self.known.setdefault((rows, few), every)
        columns = call(
            "view", column, [-1], shape=(rows,), dtype=column.dtype, name=f"{column.name}_flat" if column.name else ""
        )
        columns = self.known.setdefault(column, columns)
        nodes = [every, columns]
        if n.op == "index":
            return call("index", self.rows[x], [every, columns], shape=(rows,), dtype=n.dtype), nodes
        value, rest = n.args[2], n.args[3:]
        if value.shape not in ((), x.shape[:-1]):
            return None
        value = self.vector(value, nodes) if value.shape else value
        return call(
            "index_put", self.rows[x], [every, columns], value, *rest, shape=(rows, n.shape[-1]), dtype=n.dtype
        ), nodes

    def vector(self, n: Node, nodes: list[Node]) -> Node:
        """One number for every row as a vector."""
        rows = count((*n.shape, 1))
        if n.op == "view" and n.args[0].shape == (rows,):
            return n.args[0]
        if n.op in ("add", "sub", "mul", "div") and not isinstance(n.args[1], Node):
            inner = self.vector(n.args[0], nodes)
            nodes.append(call(n.op, inner, *n.args[1:], shape=(rows,), dtype=n.dtype, overload=n.overload, **n.kwargs))
            return nodes[-1]
        made = call("reshape", n, [-1], shape=(rows,), dtype=n.dtype)
        made.op = "view" if lies_in_rows(n) else "reshape"
        nodes.append(made)
        return made


def as_it_lies(a: Node) -> Node | None:
    """What owns the memory of a view that shows it in the order in which it lies there; None for other views."""
    base = a
    while base.is_view and not base.write:
        base = base.args[0]
    same = (base.numel, base.value.numel()) == (a.numel, a.value.numel())
    seen = same and base.value.is_contiguous() and torch.equal(base.value.flatten(), a.value.flatten())
    return base if seen and base is not a else None


def count(shape: Any) -> int:
    """How many rows a shape has."""
    out = 1
    for s in shape[:-1]:
        out *= s
    return out


def sizes(n: Node) -> list[Any]:
    """The shape of a value as a matrix, at the loop's sizes and at the small point."""
    rows, few = count(n.shape), count(n.value.shape)
    return [rows if rows == few else Sized(rows, few), n.shape[-1]]


def view(matrix: Node, n: Node) -> Node:
    """A matrix seen as a value was."""
    return call("view", matrix, sizes_of(n), shape=n.shape, dtype=n.dtype)


def alike_columns(matrix: Node, n: Node) -> bool:
    """Whether a matrix has the rows and columns of a value, at the loop's sizes and at the small point."""
    return all(tuple(m) == (count(s), s[-1]) for m, s in ((matrix.shape, n.shape), (matrix.value.shape, n.value.shape)))


__all__ = ["flattened"]
