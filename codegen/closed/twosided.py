# pyright: basic
"""max(x, 0) + log(1 + exp(-|x|)) is log(1 + exp(x)): what people write so that nothing overflows, said in one term again.

The softplus kernel does not overflow by itself, and its derivative is sigmoid(x) without cases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Indexed

from codegen.closed.cells import Cell, at
from codegen.closed.logistic import softplus_argument
from engine.notation import Less, Sign, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def one_sided(cells: list[Cell]) -> list[Cell]:
    """Every cell that adds a positive part and the logarithm that goes with it rewritten."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        if isinstance(c.expr, sp.Add) and c.kind == "float" and not c.call:
            c = replace(c, expr=joined(c.expr, known))
        known[c.name] = c
        out.append(c)
    return out


def joined(e: sp.Add, known: Mapping[str, Cell]) -> Expr:
    """A sum with `k max(x, 0) + k log(1 + exp(-|x|))` as `k log(1 + exp(x))`."""
    terms = [t for a in e.args for t in sp.Add.make_args(written(a, known))]
    for t in terms:
        k, log = t.as_coeff_Mul()
        g = softplus_argument(written(log.args[0], known)) if isinstance(log, sp.log) else None
        x = negative_size(written(g, known)) if g is not None else None
        if x is None:
            continue
        part = next((u for u in terms if u.as_coeff_Mul()[0] == k and positive_part(u.as_coeff_Mul()[1]) == x), None)
        if part is not None:
            return sp.Add(*[u for u in terms if u not in (t, part)]) + k * sp.log(1 + sp.exp(x))
    return e


def written(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with accesses to sums, logarithms, exponentials, sizes and choices written out."""
    if isinstance(e, Indexed):
        c = known.get(name_of(e))
        wanted = c is not None and c.expr is not None and not c.call
        if (wanted and isinstance(c.expr, (sp.Add, sp.log, sp.exp, Where))) or (wanted and c.expr.has(Sign)):  # pyright: ignore[reportOptionalMemberAccess]
            return written(at(c, e.indices), known)  # pyright: ignore[reportArgumentType]
        return e
    if isinstance(e, (sp.Add, sp.Mul, sp.exp)):
        return e.func(*[written(a, known) for a in e.args])
    return e


def negative_size(e: Any) -> Any:
    """x of -|x|."""
    factors = sp.Mul.make_args(-e)
    sign = next((f for f in factors if isinstance(f, Sign)), None)
    return sign.args[0] if sign is not None and sp.Mul(*factors) == sign * sign.args[0] else None


def positive_part(e: Any) -> Any:
    """x of max(x, 0), however the condition is put."""
    if not isinstance(e, Where):
        return None
    condition, one, other = e.args
    if other == 0 and isinstance(condition, Less) and condition.args == (0, one):
        return one
    return other if one == 0 and isinstance(condition, Less) and condition.args == (other, 0) else None


__all__ = ["one_sided"]
