# pyright: basic
"""A sum beside what it is made of: `x u - x p` is `x q`, where u is the cell `p + q`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.regions.cells import at, substituted
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra

RULE = "a sum less what it is made of"


def without_parts(e: Expr, algebra: Algebra) -> Expr:
    """A sum in which cells that are sums are written out, where that leaves fewer terms."""
    terms = sp.Add.make_args(e)
    for t in terms if len(terms) > 1 else ():
        for u in (f for f in Mul.make_args(t) if isinstance(f, Indexed)):
            parts = parts_of(u, algebra)
            inside = {cast("Any", t / u * p) for p in parts}
            opposite = {-p for p in inside} & {*terms}
            if not opposite or 2 * len(opposite) + 1 <= len(parts) or len(inside) < len(parts):
                continue
            algebra.note(RULE)
            rest = [s for s in terms if s != t and s not in opposite]
            return without_parts(cast("Expr", sp.Add(*rest, *[p for p in inside if -p not in opposite])), algebra)
    return e


def parts_of(u: Indexed, algebra: Algebra) -> tuple[Any, ...]:
    """The terms of a tensor that is a sum, in generators and functions of tensors; none of any other."""
    cell = algebra.cells.get(name_of(u))
    if cell is None or not isinstance(cell.expr, sp.Add) or cell.kind != "float" or cell.expr.has(Sigma, Delta):
        return ()
    functions = {n: c for n, c in algebra.cells.items() if isinstance(c.expr, sp.Function) and n in cell.reads}
    return tuple(sp.Add.make_args(algebra.lowered(substituted(at(cell, u.indices), functions))))


__all__ = ["without_parts"]
