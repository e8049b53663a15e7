# pyright: basic
"""What tensors from elsewhere sum to over an axis, where that is a number: rows of one-hots, of smoothed labels, of a softmax.

A region does not see how its boundary is computed. What follows from that for sums is told to it: `Sum_j t_ij = 1` for targets t
makes `p_ij Sum_j t_ij - t_ij` the `p - t` that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt, resum
from engine.indexed import Indexed
from engine.notation import Delta, Index, Less, Sigma, Where, base, element, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell

Sums = tuple[tuple[str, int, Expr], ...]
"""Tensors, each with an axis and the number that it sums to over that."""

TOLD = " sums to "
WHY = "{}" + TOLD + "{}"


def sums_of_cells(names: Iterable[str], algebra: Algebra) -> Sums:
    """The sums of a region's cells that are numbers by what is known there; of each cell the first."""
    found: list[tuple[str, int, Expr]] = []
    for name in names:
        c = algebra.cells[name]
        ranges = c.ranges
        for k, i in enumerate(c.indices):
            if i == 0:
                continue
            total = Sigma(c.element(c.indices), sp.Tuple(i, c.shape[k]))
            value = algebra.normal(cast("Expr", total), {j: n for j, n in ranges.items() if j != i})
            if value.is_Rational:
                found.append((name, k, value))
                break
    return tuple(found)


def sum_of_definition(c: Cell, told: Callable[[str], Sums]) -> Sums:
    """The sum of a cell by its definition, where that is a choice of places, or another tensor as it is."""
    e: Any = c.expr
    if isinstance(e, Indexed):
        for name, axis, value in told(name_of(e)):
            at = [k for k, i in enumerate(c.indices) if i == e.indices[axis] and i != 0]
            same = {i for i in e.indices if i != 0} == {*c.ranges} and all(
                isinstance(i, Index) or i == 0 for i in e.indices
            )
            if at and same and name == name_of(e):
                return ((c.name, at[0], value),)
        return ()
    if e is None or not e.has(Delta):
        return ()
    placed = chosen(resum(e, c.ranges))
    for k, i in enumerate(c.indices):
        if i == 0:
            continue
        total = resum(Sigma(sp.expand(placed), sp.Tuple(i, c.shape[k])), {j: n for j, n in c.ranges.items() if j != i})
        value = sp.cancel(sp.expand(total)) if not total.has(Indexed) and not total.atoms(Index) else total
        if value.is_Rational:
            return ((c.name, k, value),)
    return ()


def chosen(e: Any) -> Any:
    """A choice by an equality between two numbers as the sum that it is; a truth that is larger than nothing is that truth."""
    if isinstance(e, Less) and e.args[0] == 0 and isinstance(e.args[1], Delta):
        return e.args[1]
    if isinstance(e, Indexed) or not e.args:
        return e
    out = rebuilt(e, chosen)
    if isinstance(out, Where) and isinstance(out.args[0], Delta) and not any(x.has(Indexed) for x in out.args[1:]):
        condition, one, other = out.args
        return condition * (one - other) + other
    return out


def learn(algebra: Algebra, sums: Sums) -> None:
    """What is told of tensors' sums as facts."""
    for name, axis, value in sums:
        cotangent = name not in algebra.cells
        c = algebra.cells[name.removeprefix("d_") if cotangent else name]
        own = tuple(sp.S.Zero if n == 1 else fresh() for n in c.shape)
        told = c.element(own)
        if cotangent:  # what comes from outside is all of it where nothing here adds to it
            alone = not any(c.name in k.reads for k in algebra.cells.values())
            told = element(base(name if alone else f"{name}_out"), own)
        algebra.add_fact(Sigma(told, sp.Tuple(own[axis], c.shape[axis])), value, WHY.format(name, value))


__all__ = ["TOLD", "Sums", "learn", "sum_of_definition", "sums_of_cells"]
