# pyright: basic
"""Products of many matrices with a vector each: torch's calls for them are slow, but for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.loop.graph import Node, call, lies_in_rows, sizes_of
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

SMALL = 400
"""Entries of a matrix below which torch multiplies each by a loop that has no vectors."""
PRODUCTS = 300
"""Entries of a matrix from which on that loop takes longer for sums along rows than a product and a sum do."""
FEW = 8
"""Rows of a matrix whose multiples are added one by one, where what they are added to has many entries."""
MANY = 2048
"""How many these are."""


@dataclass(frozen=True)
class ByVector:
    """A product of matrices with a vector each.

    Attributes:
        matrix: matrices that lie in memory row by row, (batch, rows, columns).
        vector: the vectors, (batch, 1, n) or (batch, n, 1).
        along: whether what is summed lies along the rows; otherwise the rows' multiples are added up.
        nodes: views that were made for them.
    """

    matrix: Node
    vector: Node
    along: bool
    nodes: tuple[Node, ...]

    @staticmethod
    def of(n: Node) -> ByVector | None:
        """What a call multiplies; None where it is no such product or the matrices lie in neither way."""
        if n.op != "bmm" or not n.dtype.is_floating_point or n.value.shape[0] == 1:
            return None
        a, b = n.args
        if n.shape[2] == n.value.shape[2] == 1:
            matrix, vector, inner = a, b, 2
        elif n.shape[1] == n.value.shape[1] == 1:
            matrix, vector, inner = b, a, 1
        else:
            return None
        while matrix.is_view and matrix.args[0].shape == matrix.shape and alike_in_memory(matrix, matrix.args[0]):
            matrix = matrix.args[0]
        _, down, right = matrix.value.stride()
        if 1 in matrix.value.shape[1:] or 1 not in (down, right):
            return None
        if right == 1:
            return ByVector(matrix, vector, inner == 2, ())
        if matrix.op == "permute" or matrix.op == "transpose":  # of what lies row by row
            base = matrix.args[0]
            if base.shape == (matrix.shape[0], matrix.shape[2], matrix.shape[1]):
                return ByVector(base, vector, inner == 1, ())
        rows = across(matrix)
        return ByVector(rows, vector, inner == 1, (rows,))

    def made_for(self, vector: Node) -> list[Node]:
        """The views that were made, with that of the vector as it is used now."""
        return [*self.nodes, *([] if vector is self.vector else [vector])]


def alike_in_memory(n: Node, of: Node) -> bool:
    """Whether a view shows every entry where it was."""
    return of.dtype == n.dtype and of.value.shape == n.value.shape and of.value.stride() == n.value.stride()


def by_vectors(step: Step) -> Iterator[Match]:
    """A x is (xT AT)T, or a product and a sum, or the sum of x[j] A[:,j]: for many matrices A with a vector x each."""
    for n in step.order:
        found = ByVector.of(n)
        if found is None:
            continue
        rows, columns = found.matrix.shape[1:]
        entries = rows * columns
        if entries >= SMALL:
            if n.shape[2] == 1:
                yield as_row(n, found)
        elif found.along:
            if entries >= PRODUCTS:
                yield summed(n, found, 2)
        elif rows <= FEW and rows == found.matrix.value.shape[1] and n.numel >= MANY:
            yield one_by_one(n, found)
        else:
            yield summed(n, found, 1)


def as_row(n: Node, found: ByVector) -> Match:
    """The product with the vector as a row in front of the matrix."""
    row, matrix = seen(found.vector, 1), found.matrix
    nodes = found.made_for(row)
    if found.along:
        matrix = across(matrix)
        nodes.append(matrix)
    made = call("bmm", row, matrix, shape=(n.shape[0], 1, n.shape[1]), dtype=n.dtype)
    return as_it_was(n, made, nodes)


def summed(n: Node, found: ByVector, dim: int) -> Match:
    """The product of every entry, and its sum."""
    matrix, vector = found.matrix, seen(found.vector, 3 - dim)
    nodes = found.made_for(vector)
    product = call("mul", matrix, vector, shape=matrix.shape, dtype=n.dtype)
    shape = tuple(1 if d == dim else s for d, s in enumerate(matrix.shape))
    total = call("sum", product, [dim], True, shape=shape, dtype=n.dtype)
    return as_it_was(n, total, [*nodes, product])


def one_by_one(n: Node, found: ByVector) -> Match:
    """The multiples of the rows, added one after the other."""
    matrix, vector = found.matrix, seen(found.vector, 2)
    nodes = found.made_for(vector)
    count, rows, columns = matrix.shape
    total: Node | None = None
    for k in range(rows):
        row = call("select", matrix, 1, k, shape=(count, columns), dtype=n.dtype)
        by = call("select", vector, 1, k, shape=(count, 1), dtype=n.dtype)
        op, given = ("mul", ()) if total is None else ("addcmul", (total,))
        total = call(op, *given, row, by, shape=(count, columns), dtype=n.dtype)
        nodes += [row, by, total]
    assert total is not None
    return as_it_was(n, total, nodes[:-1])


def as_it_was(n: Node, made: Node, nodes: list[Node]) -> Match:
    """What is made in place of a product, in its shape."""
    new = call("view", made, sizes_of(n), shape=n.shape, dtype=n.dtype)
    return Match([*nodes, made, new], [(n, new)])


def seen(vector: Node, one: int) -> Node:
    """Vectors with their dimension of size one there."""
    return vector if vector.shape[one] == vector.value.shape[one] == 1 else across(vector)


def across(x: Node) -> Node:
    """Every matrix turned; the entries of a vector stay where they are."""
    count, rows, columns = sizes_of(x)
    shape = (x.shape[0], x.shape[2], x.shape[1])
    if 1 in x.shape[1:] and lies_in_rows(x):
        return call("view", x, [count, columns, rows], shape=shape, dtype=x.dtype)
    return call("transpose", x, 1, 2, shape=shape, dtype=x.dtype)


__all__ = ["by_vectors"]
