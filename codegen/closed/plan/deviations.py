# pyright: basic
"""A deviation from a mean, from which its own mean is subtracted once more.

`u = x - mean(x)` sums to zero. In floating point the mean of what has a large offset is rounded, so that u is off by a
constant, and a sum `Sum_i u g` by that constant times the sum of g. torch's normalisations sum in double precision. Where the
algebra proves that u sums to zero, `u - mean(u)` is u, and in floating point its mean is that of numbers of u's own size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from engine.notation import Index, Sigma, accesses, base, element, fresh, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

RULE = "it sums to zero, so that the mean that rounding left is subtracted once more"
"""What the trail says of what is centred twice."""
ROUNDED = "rounded"
"""What the name of a deviation ends with, before its mean is subtracted again."""


def centred_again(region: Region, algebra: Algebra) -> Region | None:
    """The region with every deviation centred again; None where there is none."""
    known = {c.name: c for c in region.cells}
    cells = [part for c in region.cells for part in twice(c, deviates(c, known, algebra))]
    return region.by(RULE, lambda _: cells) if len(cells) > len(region.cells) else None


def twice(c: Cell, axes: tuple[int, ...]) -> list[Cell]:
    """The cell alone, or the cell as it was followed by itself without its mean over some axes."""
    if not axes:
        return [c]
    before = replace(c, name=f"{c.name}_{ROUNDED}", node=None, named=False, text=None)
    inner = {k: fresh() for k in axes}
    there = [inner.get(k, i) for k, i in enumerate(c.indices)]
    total: Any = Sigma(element(base(before.name), there), *[sp.Tuple(i, c.shape[k]) for k, i in inner.items()])
    return [before, replace(c, expr=element(base(before.name), c.indices) - total / Mul(*[c.shape[k] for k in axes]))]


def deviates(c: Cell, known: dict[str, Cell], algebra: Algebra) -> tuple[int, ...]:
    """The axes that a cell sums to zero over, which something that it adds is a sum over; none where there are none."""
    if not isinstance(c.expr, sp.Add) or c.kind != "float":
        return ()
    ranges = c.ranges
    for a in accesses(c.expr):
        m = known[name_of(a)]
        axes = tuple(k for k, i in enumerate(c.indices) if i != 0 and i not in a.free_symbols)
        if m.expr is None or not m.expr.has(Sigma) or not axes:
            continue
        summed = {cast("Index", c.indices[k]): c.shape[k] for k in axes}
        total = Sigma(element(base(c.name), c.indices), *[sp.Tuple(i, n) for i, n in summed.items()])
        if algebra.normal(cast("Any", total), {i: n for i, n in ranges.items() if i not in summed}) == 0:
            return axes
    return ()


__all__ = ["RULE", "centred_again"]
