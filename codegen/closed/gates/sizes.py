# pyright: basic
"""The sizes at which a gate evaluates a region: small ones, larger where rounding is to show."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr, Symbol

from engine.indexed import Indexed
from engine.notation import BINDERS, Delta, Index, accesses, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codegen.closed.regions.cells import Cell

FEW = 5
"""Places that small sizes have something for."""
LONG = 16
"""The length of a sum from which on its rounding is that of long ones."""
LARGE = 2**18
"""Elements of the largest tensor that is evaluated at the sizes of the example."""
EXACT = 2**11
"""Elements of the largest tensor that is evaluated with many digits at the sizes of the example."""
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
    something at, so that there is something for each. Those that must be numbers are these. Where they do not fit each other, as
    the forward fixed what one of them is by others, they are the example's, unless a tensor would be too large.
    """
    first = max([first, *[p + 1 for c in cells if c.expr is not None for p in fixed_positions(c.expr)]])
    first = max([first, *[n for c in cells if c.expr is not None for n in fixed_places(c, c.expr) if n <= FEW]])
    reads = plain_reads(cells)
    given = sorted({values[s] for s in size_symbols(cells) if s in values})
    told = {int(cast("Any", n)) for n, size in reads if n.is_Integer and values.get(size) == n}
    free = (n for n in itertools.count(first, step) if n not in told)
    small = {value: value if value in told else next(free) for value in given}
    sizes = {s: small[values[s]] if s in values else first for s in size_symbols(cells)}
    if fitting(reads, sizes):
        return sizes
    example = {s: values.get(s, first) for s in sizes}
    exact = fitting(reads, example) and all(math.prod(shape_at(c.shape, example)) <= EXACT for c in cells)
    return example if exact else sizes


def fitting(reads: Iterable[tuple[Expr, Expr]], sizes: Mapping[Any, int]) -> bool:
    """Whether what is read at each place of a range has at least so many places."""
    return all(evaluate(n, sizes) <= evaluate(size, sizes) for n, size in reads)


def plain_reads(cells: Sequence[Cell]) -> set[tuple[Expr, Expr]]:
    """How many places an index has, and the dimension that is read at each of them, where the two are written differently."""
    shapes = {c.name: c.shape for c in cells}
    found: set[tuple[Expr, Expr]] = set()
    for c, e in ((c, c.expr) for c in cells if c.expr is not None):
        ranges: dict[Any, Expr] = dict(c.ranges)
        for a in accesses(e):
            for i, size in zip(cast("Any", a).indices, shapes.get(name_of(a), ()), strict=False):
                if i not in ranges and isinstance(i, Index):
                    ranges |= {k: n for x in e.atoms(*BINDERS) for k, n in cast("Any", x).limits}
                if i in ranges and ranges[i] != size:
                    found.add((ranges[i], size))
    return found


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
