# pyright: basic
"""Choices between multiples of one tensor, `q x if 0 <= x else (q - 1) x`, as a choice between what it is multiplied by.

That choice is the slope, so that the backward reads what the forward made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.terms import powers
from codegen.closed.regions.cells import Cell, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Where, accesses, fresh

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a choice between multiples of one tensor is that tensor times a choice, its slope"


def with_multiples(cells: list[Cell]) -> list[Cell]:
    """The cells, with what a tensor is multiplied by as a cell before every such choice."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        found = multiple(c, known)
        if found is not None:
            x, choice = found
            own = {i: fresh() for i in c.indices if i != 0}
            name = free_name(f"{c.name}_slope", {d.name for d in cells} | {*known})
            expr = cast("Expr", choice.xreplace(own))
            slope = replace(
                c,
                name=name,
                indices=tuple(own.get(i, i) for i in c.indices),
                expr=expr,
                node=None,
                named=False,
                text=None,
            )
            known[name] = replace(slope, positive=False)
            out.append(known[name])
            c = replace(c, expr=cast("Expr", x * known[name].element(c.indices)))
        known[c.name] = c
        out.append(c)
    return out


def multiple(c: Cell, known: Mapping[str, Cell]) -> tuple[Expr, Expr] | None:
    """x, and the choice between what it is multiplied by, which tensors have a part in; None where there is no such x."""
    e: Any = c.expr
    if not isinstance(e, Where) or c.kind != "float":
        return None
    products = {
        n: d for n, d in known.items() if isinstance(d.expr, Mul) and all(isinstance(f, Indexed) for f in d.expr.args)
    }
    condition, one, other = e.args[0], *(substituted(b, products) for b in e.args[1:])
    own = {i for i in c.indices if i != 0}
    tables = [powers(cast("Expr", b)) for b in (one, other)]
    for x in sorted(accesses(condition), key=str):
        if own != {i for i in x.indices if i != 0} or any(t.get(x) != 1 for t in tables):
            continue
        rests = [cast("Expr", b / x) for b in (one, other)]
        small = all(not r.has(x) and all(len({*a.indices}) < len(own) for a in accesses(r)) for r in rests)
        if small and any(r.has(Indexed) for r in rests) and not any(r.has(Where, sp.Function) for r in rests):
            return x, Where(condition, *rests)
    return None


__all__ = ["RULE", "with_multiples"]
