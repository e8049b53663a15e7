# pyright: basic
"""A function of one number whose slope is a clamp is the integral of that: `a c (u - c/2)`, for the slope a c with c = clamp(u, l, h).

Where c is u, it is `a u^2 / 2`, and beyond a bound it goes on straight. So are the smooth hinge and SmeLU one product, and the
slope of each is its clamp. Huber's loss, of which u is the argument itself, is told by its size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.matching import holding
from codegen.closed.definitions.pieces import elementwise, pieces, written, zero
from codegen.closed.regions.cells import Cell
from engine.naming import free_name
from engine.notation import Less, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.definitions.pieces import Pieces
    from engine.indexed import Indexed

RULE = "a function whose slope is a clamp is its integral, c (u - c/2)"


def with_bounded_slopes(cells: list[Cell]) -> list[Cell]:
    """The cells, with u and its clamp before each such function, where they are not there."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        found = integral_of(c, known) if isinstance(c.expr, Where) and c.differentiable and elementwise(c) else None
        if found is not None:
            x, (a, shift, low, high) = found
            sign = -1 if high == 0 else 1
            low, high = (low, high) if sign == 1 else (-high, -low)
            u = held(c, "shift", x, sign * (x + shift), known, out)
            bounded = Where(Less(u, low), low, Where(Less(high, u), high, u))
            clamp = held(c, "clamp", x, bounded, known, out)
            beside = Where(Less(u, 0), 0, u) if low == 0 else u  # 0 times infinity is none
            c = replace(c, expr=cast("Expr", a * clamp * (beside - clamp / 2)), text=None)
        known[c.name] = c
        out.append(c)
    return out


def integral_of(c: Cell, known: dict[str, Cell]) -> tuple[Indexed, tuple[Any, Any, Any, Any]] | None:
    """x, of which a cell is a function, and a, u - x, and the bounds of u; None where it is no such function."""
    for e in written(cast("Expr", c.expr), known):
        read = {*accesses(e)}
        x = read.pop() if len(read) == 1 else None
        cell = None if x is None else known.get(name_of(x))
        if x is not None and cell is not None and cell.shape == c.shape:
            t = sp.Dummy("t", real=True)
            parts = pieces(e.xreplace({x: t}), t)
            found = None if parts is None or len(parts.places) != 2 else bounds_of(parts, t)
            if found is not None:
                return x, found
    return None


def bounds_of(parts: Pieces, t: Any) -> tuple[Any, Any, Any, Any] | None:
    """a, s and the bounds of u = t + s, where the pieces are `a c (u - c/2)`; None for any other pieces, and where s is 0."""
    (first, last), (low, within, high) = parts.places, parts.values
    a = sp.diff(within, t, 2)
    if not (a.is_number and a != 0):
        return None
    shift = sp.expand(sp.diff(within, t) / a - t)
    if shift == 0 or not shift.is_number or not zero(within - a * (t + shift) ** 2 / 2):
        return None
    straight = all(
        zero(value - a * (place + shift) * (t + shift - (place + shift) / 2))
        for place, value in ((first, low), (last, high))
    )
    return (a, shift, first + shift, last + shift) if straight else None


def held(c: Cell, part: str, x: Indexed, e: Any, known: dict[str, Cell], out: list[Cell]) -> Indexed:
    """The element of a cell that is an expression, which is made where there is none."""
    for cell in known.values():
        if cell.expr is not None and type(cell.expr) is type(e) and cell.kind == c.kind:
            own = holding(cell, cell.expr, e)
            if own is not None:
                return own
    name = free_name(f"{name_of(x)}_{part}", known)
    there = {i: fresh() for i in c.indices if i != 0}
    own = tuple(there.get(i, i) for i in c.indices)
    known[name] = Cell(name, own, c.shape, e.xreplace(there), c.kind, c.differentiable, c.dtype)
    out.append(known[name])
    return known[name].element(c.indices)


__all__ = ["RULE", "with_bounded_slopes"]
