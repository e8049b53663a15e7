"""Comparisons of a position with a whole number, `arange(n) == y`, that only sums read: they pick what is at y, where there is such a place.

A number that is no position is equal to none: what is picked for it, at the nearest position, is multiplied by zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Delta, Equal, Index, Less, Where

if TYPE_CHECKING:
    from collections.abc import Callable

    from sympy import Expr

    from codegen.closed.regions.cells import Cell
    from engine.graph import Graph

SUMS = ("sum", "mean", "matmul", "mm", "einsum", "__matmul__")
THROUGH = ("to", "mul", "neg", "float", "double", "type_as")
DEEPEST = 4


def picked(cell: Cell, graph: Graph, part: Callable[[Any, Cell, str], Expr]) -> Expr:
    """The cell's definition as `[y = k] [k = j]`, with k the position nearest to y as a cell by `part`; unchanged where it is no such comparison.

    What stands where they are equal, and nothing elsewhere, `f if j = y else 0`, is read at that position likewise.
    """
    e: Any = cell.expr
    chosen = isinstance(e, Where) and isinstance(e.args[0], Equal) and e.args[2] == 0 and e.args[1].has(Indexed)
    equality = e.args[0] if chosen else e
    if not isinstance(equality, Equal) or not added_up(cell.name, graph):
        return e
    for j, y in (equality.args, equality.args[::-1]):
        if isinstance(j, Index) and j in cell.ranges and isinstance(y, Indexed) and y.is_integer and not y.has(j):
            last = cell.ranges[j] - 1
            nearest = part(Where(Less(y, 0), sp.S.Zero, Where(Less(last, y), last, y)), cell, "index")
            there = Equal(y, nearest)
            return Delta(nearest, j) * (Where(there, e.args[1], 0) if chosen else there)
    return e


def added_up(name: str, graph: Graph, depth: int = 0) -> bool:
    """Whether nothing reads a tensor but sums and products that are summed."""
    readers = [n for n in graph.nodes if name in n.operands]
    if name in graph.outputs or not readers or depth > DEEPEST:
        return False
    return all(n.op in SUMS or (n.op in THROUGH and added_up(n.name, graph, depth + 1)) for n in readers)
