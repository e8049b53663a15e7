"""Sums of what is left at one place, as what stands there: `Sum_j [j = y] p_j` is p_y, whose logarithm is that of a share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sympy import Expr, Mul

from codegen.closed.algebra.sums import resum
from codegen.closed.definitions.completed import without
from codegen.closed.regions.cells import is_plain, substituted
from engine.notation import Delta, Sigma

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell

RULE = "a sum of what is left at one place is what stands there"


def at_places(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells with every such sum as an entry, without the products that only these sums have read."""
    products = {c.name: c for c in cells if c.expr is not None and isinstance(c.expr, Mul) and c.expr.has(Delta)}
    out: list[Cell] = []
    for c in cells:
        if products and c.expr is not None and not c.call and c.expr.has(Sigma):
            there = resum(cast("Expr", substituted(c.expr, products)), c.ranges)
            if not there.has(Sigma, Delta) and is_plain(there):
                c = replace(c, expr=there)
        out.append(c)
    return without(out, cells, kept)
