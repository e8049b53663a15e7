# pyright: basic
"""A sum over all places but one, and what stands at that one: `1 + Sum_j (1 - [i = j]) exp(s_ij - s_ii)` is Sum_j exp(s_ij - s_ii).

The number is what is left out, exp(s_ii - s_ii), which definitions written out show. What is left is a sum like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.definitions.logistic import DEPTH, elementwise_cells
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Delta, Index, Sigma, fresh, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a sum over all places but one, and what stands at that one, is the sum over all"


def completed(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells with every such addition as the sum over all. Sums that are `kept`, or read elsewhere, stay what they are."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        new = whole_sum(c, known) if isinstance(c.expr, sp.Add) and not c.call else None
        if new is not None:
            name = free_name(f"{c.name}_whole", {d.name for d in cells} | {*known})
            own = {i: fresh() for i in c.indices if i != 0}
            expr = instantiate(new, own)
            indices = tuple(own.get(i, i) for i in c.indices)
            total = replace(c, name=name, indices=indices, expr=expr, node=None, text=None, named=False, positive=True)
            known[name] = total
            out.append(total)
            c = replace(c, expr=total.element(c.indices))
        known[c.name] = c
        out.append(c)
    return without(out, cells, kept)


def without(out: list[Cell], before: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """Cells without those that only what was changed has read."""
    was = {r for c in before for r in c.reads}
    read = {*kept, *(r for c in out for r in c.reads)}
    while True:
        gone = {c.name for c in out if c.name in was and c.name not in read and c.expr is not None}
        if not gone:
            return out
        out = [c for c in out if c.name not in gone]
        read = {*kept, *(r for c in out for r in c.reads)}


def whole_sum(c: Cell, known: Mapping[str, Cell]) -> Expr | None:
    """The sum over all that a cell is; None where it is no such addition."""
    number, rest = cast("Expr", c.expr).as_coeff_Add()
    if number == 0 or not isinstance(rest, Indexed) or name_of(rest) not in known:
        return None
    total = at(known[name_of(rest)], rest.indices) if isinstance(known[name_of(rest)].expr, Sigma) else None
    if not isinstance(total, Sigma) or len(total.limits) != 1:
        return None
    products = {n: d for n, d in known.items() if isinstance(d.expr, Mul) and d.expr.has(Delta)}
    body = substituted(total.body, products)
    ((j, _),) = total.limits
    for f in Mul.make_args(body):
        d = 1 - f
        i = next((a for a in d.args if a != j), None) if isinstance(d, Delta) and j in d.args else None
        if isinstance(i, Index) and i in c.indices and value_at(body / f, j, i, known) == number:
            return cast("Expr", total.func(body / f, *total.args[1:]))
    return None


def value_at(e: Any, j: Any, i: Any, known: Mapping[str, Cell]) -> Any:
    """What an expression is where one index is another one, with definitions written out."""
    usable = elementwise_cells(known)
    for _ in range(DEPTH):
        step = substituted(e, usable)
        if step == e:
            break
        e = step
    return e.xreplace({j: i})


__all__ = ["RULE", "completed"]
