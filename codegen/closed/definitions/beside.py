# pyright: basic
"""A number beside an exponential as a one beside another: `c + exp(f)` is `c (1 + exp(f - log c))`, which kernels know."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sympy import Expr

    from codegen.closed.regions.cells import Cell

RULE = "a number c beside exp(f) is c times a one beside exp(f - log c)"


def beside_one(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells with every exponential that is added to one number, divided by or under a logarithm there, as a multiple of another."""
    out: list[Cell] = []
    taken = {c.name for c in cells}
    for c in cells:
        number = beside(c, cells) if isinstance(c.expr, sp.exp) and c.name not in kept else None
        if number is not None:
            name = free_name(f"{c.name}_log", taken)
            taken.add(name)
            own = {i: fresh() for i in c.indices if i != 0}
            indices = tuple(own.get(i, i) for i in c.indices)
            exponent = cast("Any", c.expr).args[0].xreplace(own) - sp.log(number)
            shifted = replace(
                c, name=name, indices=indices, expr=exponent, node=None, text=None, named=False, positive=False
            )
            out.append(shifted)
            c = replace(c, expr=cast("Expr", number * sp.exp(shifted.element(c.indices))))
        out.append(c)
    return out


def beside(e: Cell, cells: list[Cell]) -> Expr | None:
    """The number that an exponential stands beside, relative to its own factor; None where there is no such one, or several."""
    found: set[Any] = set()
    for c in cells:
        sums = [a for a in sp.preorder_traversal(c.expr) if isinstance(a, sp.Add)] if e.name in c.reads else []
        for a in sums:
            number, rest = a.as_coeff_Add()
            k, inner = rest.as_coeff_Mul()
            if (
                isinstance(inner, Indexed)
                and name_of(inner) == e.name
                and (number / k).is_positive
                and inverted(c, a, cells)
            ):
                found.add(number / k)
    return found.pop() if len(found) == 1 and found != {sp.S.One} else None


def inverted(c: Cell, a: Any, cells: list[Cell]) -> bool:
    """Whether something divides by an addition or takes its logarithm, or by or of the cell that it is."""
    return any(
        (isinstance(x, sp.log) and x.args[0] == b) or (isinstance(x, sp.Pow) and x.base == b and x.exp.is_negative)
        for d in cells
        if d.expr is not None
        for b in ([a] if d is c else []) + (accesses(d.expr, c.name) if a == c.expr else [])
        for x in cast("Iterator[Any]", sp.preorder_traversal(d.expr))
    )


__all__ = ["RULE", "beside_one"]
