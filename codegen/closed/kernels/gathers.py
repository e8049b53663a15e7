# pyright: basic
"""Sums with ones at places in them, as what stands at these places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import resum
from codegen.closed.kernels.scattered import is_linear
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell

RULE = "a sum with ones at places is what stands at these places"


def at_places(e: Expr, c: Cell, cells: Mapping[str, Cell]) -> Expr:
    """`Sum_j ([j = y_i] + a) x_ij` as `x_{i,y_i} + a Sum_j x_ij`, also where what is summed is a cell of its own, or a factor of it is."""
    if not e.has(Sigma):
        return e
    whole = written_out(written_out(e, cells), cells)
    if any(all_but_some(s.body, cells) for s in whole.atoms(Sigma)):
        return e
    return cast("Expr", resum(whole, c.ranges)) if whole.has(Delta) else e


def written_out(e: Expr, cells: Mapping[str, Cell]) -> Expr:
    """An expression with the products and sums that have ones at places in them in the place of the cells that these are."""
    products = {n: d for n, d in cells.items() if d.expr is not None and (placed(d.expr) or added_at_places(d, e))}
    return substituted(e, products) if products and any(name_of(a) in products for a in accesses(e)) else e


def all_but_some(body: Expr, cells: Mapping[str, Cell]) -> bool:
    """Whether a sum is of what is nowhere negative, at all places but some: what stands there may be larger by far than the rest.

    `Sum_j (1 - [i = j]) exp(x_ij)` as `Sum_j exp(x_ij) - exp(x_ii)` is what rounding left of it then.
    """
    factors = sp.Mul.make_args(body)
    left_out = [f for f in factors if isinstance(1 - f, Delta)]
    return bool(left_out) and all(is_nonnegative(f, cells) for f in factors if f not in left_out)


def is_nonnegative(f: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether a factor is nowhere negative: by itself, or as what a cell is defined to be."""
    if f.is_nonnegative:
        return True
    cell = cells.get(name_of(f)) if isinstance(f, Indexed) else None
    return cell is not None and cell.expr is not None and bool(cell.expr.is_nonnegative)


def placed(e: Expr) -> bool:
    """Whether an expression is a product with ones at places."""
    return isinstance(e, sp.Mul) and e.has(Delta) and not e.has(Sigma)


def added_at_places(c: Cell, reader: Expr) -> bool:
    """Whether a cell without a name of its own is a sum with products among its terms that are ones at places, and its reader sums it as it is."""
    e = c.expr
    if not isinstance(e, sp.Add) or e.has(Sigma) or c.named:
        return False
    ones = any(isinstance(f, Delta) for t in e.args for f in sp.Mul.make_args(t))
    return ones and all(is_linear(reader, a) for a in accesses(reader, c.name))


__all__ = ["RULE", "at_places"]
