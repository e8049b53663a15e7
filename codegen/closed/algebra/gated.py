# pyright: basic
"""Exponentials told by a sigmoid that is there: with s = sigmoid(g), `exp(g)^k (1 + exp(g))^-m` is `s^k (1 - s)^(m-k)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.definitions.logistic import as_power, gate_argument, softplus_argument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell


def sigmoid_cells(cells: Mapping[str, Cell]) -> list[tuple[Cell, Expr]]:
    """The cells that are sigmoid(g), each with its g."""
    known = ((c, gate_argument(c.expr)) for c in cells.values() if c.kind == "float")
    return [(c, g) for c, g in known if g is not None]


def gated(e: Any, algebra: Algebra) -> Any:
    """`exp(g)^k (1 + exp(g))^-m` with k <= m as `s^k (1 - s)^(m-k)`, where some cell s is sigmoid(g)."""
    table = dict(map(as_power, Mul.make_args(e)))
    for b, x in list(table.items()):
        g = softplus_argument(b)
        if g is None or not (x.is_Integer and x.is_negative):
            continue
        k = table.get(sp.exp(g), sp.S.Zero)
        s = gate_of(g, algebra)
        if s is None or not (k.is_Integer and 0 <= k <= -x):
            continue
        rest = Mul(*[c**y for c, y in table.items() if c not in (b, sp.exp(g))])
        return gated(rest * s**k * (1 - s) ** (-x - k), algebra)
    return e


def gate_of(g: Expr, algebra: Algebra) -> Expr | None:
    """sigmoid(g) by a cell that is it, or by one that is sigmoid(-g)."""
    plain = algebra.lowered(g)
    for cell, argument in algebra.sigmoids:
        pattern = algebra.lowered(argument)
        for sign in (1, -1):
            own = holding(cell, pattern, sign * plain)
            if own is not None:
                algebra.note(f"definition of {cell.name}")
                return own if sign == 1 else (1 - own)
    return None


__all__ = ["gated", "sigmoid_cells"]
