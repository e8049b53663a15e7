# pyright: basic
"""A product of three or more tensors two at a time: `Sum_ns c_ln b_sn m_ls x_sp` is `((c bᵀ) m) x`, in the order that moves least.

What the first two are multiplied to is a tensor like any other: forward and backward read it, where each gradient of the whole
product would be a sum of products of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from codegen.closed.regions.cells import Cell, is_contraction
from codegen.closed.regroup.accuracy import passes_gates
from codegen.closed.regroup.among import Among
from codegen.closed.regroup.order import Order
from codegen.closed.regroup.parts import Parts
from codegen.closed.regroup.products import terms
from engine.indexed import Indexed
from engine.notation import name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sympy import Expr

RULE = "a product of three or more tensors is multiplied two at a time"
LEAST = 3
"""How many factors a product has from which on it is one of several."""


def in_pairs(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells with every sum of such products as sums of products of two. `fixed` ones keep the forward's own arithmetic."""
    for c in cells:
        if c.name in fixed or c.kind != "float" or c.after or c.expr is None or not is_contraction(c.expr):
            continue
        if all(len(p.factors) < LEAST for p in terms(c.expr) or ()):
            continue
        among = Among(cells, outputs, fixed, example)
        parts = Parts(among, ())
        expr = of_pairs(c, parts)
        if expr is None:
            continue
        shared = sorted(parts.shared.values(), key=lambda d: among.place[d.name])
        new = [*parts.made.values(), replace(c, expr=expr, call=False, text=None)]
        if passes_gates([*shared, c], [*shared, *new], among):
            cells = among.with_instead({c.name: new})
    return cells


def of_pairs(c: Cell, parts: Parts) -> Expr | None:
    """A cell's definition with the cheapest of its products as tensors of their own; None where it has no more than two factors."""
    products = terms(cast("Expr", c.expr))
    if products is None or len(products) != 1:
        return None
    (one,) = products
    floats = all(isinstance(f, Indexed) and parts.cell(name_of(f)).kind == "float" for f in one.factors)
    if len(one.factors) < LEAST or not floats:
        return None
    parts.belong(c, products)
    group = Order(one, frozenset(c.ranges), parts.among.size).cheapest(parts.ranges)
    return None if group is None else parts.definition(one.number, group)


__all__ = ["RULE", "in_pairs"]
