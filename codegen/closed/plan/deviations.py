# pyright: basic
"""A deviation from a mean, from which its own mean is subtracted once more.

`u = x - mean(x)` sums to zero. In floating point the mean of what has a large offset is rounded, so that u is off by a
constant, and a sum `Sum_i u g` by that constant times the sum of g. torch's normalisations sum in double precision. Where the
algebra proves that u sums to zero, `u - mean(u)` is u, and in floating point its mean is that of numbers of u's own size.
So is `u - Sum w u / Sum w` for the deviation from a mean with weights w.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.facts import weights_at
from engine.notation import Index, Sigma, accesses, base, element, fresh, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region
    from engine.indexed import Indexed

RULE = "it sums to zero, so that the mean that rounding left is subtracted once more"
"""What the trail says of what is centred twice."""
ROUNDED = "rounded"
"""What the name of a deviation ends with, before its mean is subtracted again."""


def centred_again(region: Region, algebra: Algebra) -> Region | None:
    """The region with every deviation centred again; None where there is none."""
    known = {c.name: c for c in region.cells}
    cells = [part for c in region.cells for part in twice(c, *deviates(c, known, algebra))]
    return region.by(RULE, lambda _: cells) if len(cells) > len(region.cells) else None


def twice(c: Cell, axes: tuple[int, ...], weight: Indexed | None, whole: Expr) -> list[Cell]:
    """The cell alone, or the cell as it was followed by itself without its mean over some axes, with weights that sum to `whole`."""
    if not axes:
        return [c]
    before = replace(c, name=f"{c.name}_{ROUNDED}", node=None, named=False, text=None)
    inner = {c.indices[k]: fresh() for k in axes}
    there = element(base(before.name), [inner.get(i, i) for i in c.indices])
    factor = sp.S.One if weight is None else weight.xreplace(inner)
    total: Any = Sigma(factor * there, *[sp.Tuple(inner[c.indices[k]], c.shape[k]) for k in axes])
    return [before, replace(c, expr=element(base(before.name), c.indices) - total / whole)]


def deviates(c: Cell, known: dict[str, Cell], algebra: Algebra) -> tuple[tuple[int, ...], Indexed | None, Expr]:
    """The axes that a cell sums to zero over, which something that it adds is a sum over; none where there are none.

    With them comes what it is multiplied by in this sum, if anything, and what that sums to.
    """
    if not isinstance(c.expr, sp.Add) or c.kind != "float":
        return (), None, sp.S.One
    for a in accesses(c.expr):
        m = known[name_of(a)]
        axes = tuple(k for k, i in enumerate(c.indices) if i != 0 and i not in a.free_symbols)
        if m.expr is None or not axes:
            continue
        if m.expr.has(Sigma) and sums_to_zero(c, axes, sp.S.One, algebra):
            return axes, None, Mul(*[c.shape[k] for k in axes])
        for weight in weights_at(algebra, c, axes[0]) if len(axes) == 1 else ():
            told = algebra.facts.of(cast("Sigma", Sigma(weight, sp.Tuple(c.indices[axes[0]], c.shape[axes[0]]))))
            if told is not None and sums_to_zero(c, axes, weight, algebra):
                return axes, weight, told[0]
    return (), None, sp.S.One


def sums_to_zero(c: Cell, axes: tuple[int, ...], weight: Expr, algebra: Algebra) -> bool:
    """Whether the sum of a cell over some axes, times a weight, is known to be zero."""
    summed = {cast("Index", c.indices[k]): c.shape[k] for k in axes}
    total = Sigma(weight * element(base(c.name), c.indices), *[sp.Tuple(i, n) for i, n in summed.items()])
    return bool(algebra.normal(cast("Any", total), {i: n for i, n in c.ranges.items() if i not in summed}) == 0)


__all__ = ["RULE", "centred_again"]
