# pyright: basic
"""Sums that a result of the region is, read there: with o = p h + q c, what passes back `(p h + q c - h) g` reads `(o - h) g`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Index, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

RULE = "a sum that is there is not added up again"


def by_sums(statements: Sequence[Statement], region: Region) -> list[Statement]:
    """Statements that read a cell, which is there in any case, where they add up all that it adds up."""
    sums = [c for c in region.cells if c.name in {*region.needed, *region.seeds} and is_plain_sum(c)]
    out: list[Statement] = []
    for s in statements:
        expr = s.expr
        for c in sums:
            expr = read(expr, c)
        out.append(s if expr == s.expr else replace(s, expr=expr, rules=(*s.rules, RULE)))
    return out


def is_plain_sum(c: Cell) -> bool:
    """Whether a cell is a sum of multiples of tensors of its own indices."""
    own = {i for i in c.indices if i != 0}
    if not isinstance(c.expr, sp.Add) or c.call or c.kind != "float":
        return False
    tensors = [t.as_coeff_Mul()[1] for t in c.expr.args]
    return all(isinstance(a, Indexed) and {i for i in a.indices if isinstance(i, Index)} == own for a in tensors)


def read(e: Any, c: Cell) -> Any:
    """An expression that reads a cell for every sum of what it adds up, times whatever stands before all of it."""
    if isinstance(e, Indexed) or not e.args:
        return e
    e = rebuilt(e, lambda a: read(a, c))
    if not isinstance(e, sp.Add):
        return e
    whole: Any = c.expr
    number, first = whole.args[0].as_coeff_Mul()
    for t in e.args:
        for a in sp.Mul.make_args(t):
            if not isinstance(a, Indexed) or name_of(a) != name_of(first):
                continue
            there = dict(zip(first.indices, a.indices, strict=True))
            front = t / a / number
            terms = [front * x.xreplace(there) for x in whole.args]
            if all(x in e.args for x in terms):
                rest = sp.Add(*[x for x in e.args if x not in terms])
                return rest + front * c.element([i.xreplace(there) for i in c.indices])
    return e


__all__ = ["RULE", "by_sums"]
