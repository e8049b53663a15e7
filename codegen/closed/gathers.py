# pyright: basic
"""Sums with ones at places in them, as what stands at these places."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sympy as sp
from sympy import Expr

from codegen.closed.cells import substituted
from codegen.closed.sums import resum
from engine.notation import Delta, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.cells import Cell

RULE = "a sum with ones at places is what stands at these places"


def at_places(e: Expr, c: Cell, cells: Mapping[str, Cell]) -> Expr:
    """`Sum_j ([j = y_i] + a) x_ij` as `x_{i,y_i} + a Sum_j x_ij`, also where what is summed is a cell of its own."""
    if not e.has(Sigma):
        return e
    products = {
        n: d for n, d in cells.items() if isinstance(d.expr, sp.Mul) and d.expr.has(Delta) and not d.expr.has(Sigma)
    }
    whole = substituted(e, products) if products and any(name_of(a) in products for a in accesses(e)) else e
    return cast("Expr", resum(whole, c.ranges)) if whole.has(Delta) else e


__all__ = ["RULE", "at_places"]
