# pyright: basic
"""A sum with ones on a diagonal for a factor is what stands there: `Sum_j [i = j] x_ij` is x_ii.

An identity that is multiplied with a matrix before a sum picks its diagonal, which reads as an exponential where it is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sympy import Mul

from codegen.closed.regions.cells import Cell, substituted
from engine.notation import Delta, Index, Sigma

if TYPE_CHECKING:
    from sympy import Expr

RULE = "a sum with ones on a diagonal is what stands on it"


def with_diagonals(cells: list[Cell]) -> list[Cell]:
    """The cells with every such sum over one index as an element of the diagonal."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        there = on_diagonal(c, known) if not c.call else None
        out.append(c if there is None else replace(c, expr=there))
        known[c.name] = out[-1]
    return out


def on_diagonal(c: Cell, known: dict[str, Cell]) -> Expr | None:
    """What stands on the diagonal that a cell sums over; None where it is no such sum."""
    if not isinstance(c.expr, Sigma) or len(c.expr.limits) != 1:
        return None
    total: Any = c.expr
    ((j, size),) = total.limits
    products = {n: d for n, d in known.items() if isinstance(d.expr, Mul) and d.expr.has(Delta)}
    body: Any = substituted(total.body, products)
    for f in Mul.make_args(body):
        i = next((a for a in f.args if a != j), None) if isinstance(f, Delta) and j in f.args else None
        if isinstance(i, Index) and c.ranges.get(i) == size:
            return (body / f).xreplace({j: i})
    return None


__all__ = ["RULE", "with_diagonals"]
