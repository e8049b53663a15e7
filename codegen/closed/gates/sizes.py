# pyright: basic
"""The sizes at which a gate evaluates a region: small ones, larger where rounding is to show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr, Symbol

from engine.indexed import Indexed
from engine.notation import Delta, Index, accesses
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.regions.cells import Cell

FEW = 5
"""Places that small sizes have something for."""
LONG = 16
"""The length of a sum from which on its rounding is that of long ones."""
LARGE = 2**18
"""Elements of the largest tensor that is evaluated at the sizes of the example."""
MEASURED = 2**15
"""Elements of the largest tensor that accuracy is measured on otherwise, so that many dimensions are small ones."""


def size_symbols(cells: Sequence[Cell]) -> list[Symbol]:
    """Every size symbol that a region's shapes and definitions mention."""
    found: set[Any] = set()
    for c in cells:
        for n in c.shape:
            found |= n.free_symbols
        if c.expr is not None:
            labels = {a.base.label for a in accesses(c.expr)}
            found |= {
                x for x in c.expr.free_symbols if isinstance(x, Symbol) and not isinstance(x, Index) and x not in labels
            }
    return sorted(found, key=str)


def small_sizes(cells: Sequence[Cell], values: Mapping[Any, int], first: int = 3, step: int = 1) -> dict[Symbol, int]:
    """Small numbers for the size symbols of a region, in the order of the sizes at the example; equal ones stay equal.

    They are larger than every position that the region reads by its number, and no smaller than a few places that it puts
    something at, so that there is something for each.
    """
    first = max([first, *[p + 1 for c in cells if c.expr is not None for p in fixed_positions(c.expr)]])
    first = max([first, *[n for c in cells if c.expr is not None for n in fixed_places(c, c.expr) if n <= FEW]])
    ranks = sorted({values[s] for s in size_symbols(cells) if s in values})
    return {s: first + step * ranks.index(values[s]) if s in values else first for s in size_symbols(cells)}


def fixed_positions(e: Expr) -> list[int]:
    """The positions that an expression reads by their number."""
    return [int(i) for a in accesses(e) for i in cast("Any", a.indices) if i.is_Integer]


def fixed_places(c: Cell, e: Expr) -> list[int]:
    """How many places there are, where that is a number, of those at which integers say that a cell has something."""
    named = {i for d in e.atoms(Delta) if d.has(Indexed) for i in d.args if i in c.ranges}
    return [int(n) for i in named for n in (c.ranges[cast("Index", i)],) if n.is_Integer]


def sizes_to_measure(cells: Sequence[Cell], values: Mapping[Any, int]) -> dict[Symbol, int]:
    """Sizes at which rounding shows, unless a tensor of many dimensions would be too large.

    A dimension that is a multiple of a size is as large as others are.
    """
    least, times = small_sizes(cells, values), multiples(cells)
    for first in (16, 8, 5):
        sizes = small_sizes(cells, values, first, 3)
        sizes = {s: max(n // times.get(s, 1), least[s]) for s, n in sizes.items()}
        if all(math.prod(shape_at(c.shape, sizes)) <= MEASURED for c in cells):
            return sizes
    return least


def sizes_given(cells: Sequence[Cell], values: Mapping[Any, int]) -> list[dict[Symbol, int]]:
    """The sizes of the example, where rounding shows at them and no tensor is too large: how sums round depends on their length."""
    sizes = {s: values[s] for s in size_symbols(cells) if s in values}
    if len(sizes) < len(size_symbols(cells)):
        return []
    counts = [shape_at(c.shape, sizes) for c in cells]
    longest = max((n for shape in counts for n in shape), default=0)
    return [sizes] if longest >= LONG and all(math.prod(shape) <= LARGE for shape in counts) else []


def multiples(cells: Sequence[Cell]) -> dict[Any, int]:
    """The largest number that every size is taken by in a dimension: 4 of `4 n`."""
    out: dict[Any, int] = {}
    for n in (n for c in cells for n in c.shape):
        times, rest = n.as_coeff_Mul()
        if times.is_Integer and rest.is_Symbol:
            out[rest] = max(out.get(rest, 1), int(times))
    return out


def shape_at(shape: Sequence[Expr], sizes: dict[Symbol, int]) -> tuple[int, ...]:
    """A shape as numbers."""
    return tuple(evaluate(n, sizes) for n in shape)


__all__ = ["LARGE", "shape_at", "size_symbols", "sizes_given", "sizes_to_measure", "small_sizes"]
