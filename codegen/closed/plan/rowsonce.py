# pyright: basic
"""Rows that are put at places by several integer tensors are computed once: a pair's positive and negative get the same row.

`Sum_m [k = i_m] d_m u_ml - Sum_m [k = j_m] d_m u_ml` reads `r_ml = d_m u_ml` twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Add, Mul

from codegen.closed.plan.backward import Statement
from codegen.closed.plan.prices import is_scatter
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, accesses, base, canonical, element

if TYPE_CHECKING:
    from collections.abc import Callable

    from sympy import Expr

RULE = "rows that are put at several places are computed once"
ROWS = "rows_at_places_"
"""What the names of such statements begin with."""


def with_rows_once(
    statements: list[Statement], ranges: Callable[[Expr, Statement], dict[Any, Expr]]
) -> list[Statement]:
    """Statements of which one puts the same rows at several places. `ranges` gives the sizes of indices in one."""
    names: dict[Any, str] = {}
    out: list[Statement] = []
    for s in statements:
        put = {x: rows_of(x, s) for x in scatters_of(s.expr)} if s.expr.has(Sigma) and s.expr.has(Delta) else {}
        often = Counter(found[0] for found in put.values() if found is not None)
        change: dict[Any, Any] = {}
        for x, found in put.items():
            if found is None or often[found[0]] < 2:
                continue
            key, sign, own, rest, deltas = found
            if key not in names:
                names[key] = f"{ROWS}{len(names)}"
                copy = dict(zip(own, (Index(f"_{names[key]}_{n}") for n in range(len(own))), strict=True))
                sizes = ranges(s.expr, s) | dict(x.limits)
                expr = cast("Expr", rest.xreplace(copy))
                shape = tuple(sizes[i] for i in own)
                out.append(Statement(names[key], tuple(copy.values()), shape, expr, "", expr, (RULE,)))
            change[x] = x.func(Mul(sign, *deltas, element(base(names[key]), list(own))), *x.limits)
        out.append(replace(s, expr=cast("Expr", s.expr.xreplace(change))) if change else s)
    return out


def scatters_of(e: Expr) -> list[Any]:
    """The sums over places that are terms of an expression, or factors of one."""
    return [f for t in Add.make_args(e) for f in Mul.make_args(t) if is_scatter(f)]


def rows_of(x: Any, s: Statement) -> tuple[Any, Any, tuple[Any, ...], Expr, list[Any]] | None:
    """What is equal for equal rows, their sign, their indices, themselves, and where they go; None for what is read as it is."""
    deltas = [f for f in Mul.make_args(x.body) if isinstance(f, Delta)]
    sign, rest = Mul(*[f for f in Mul.make_args(x.body) if f not in deltas]).as_coeff_Mul()
    bound = tuple(i for i, _ in x.limits)
    free = tuple(i for i in s.indices if i != 0 and i in rest.free_symbols)
    own = (*bound, *free)
    if abs(sign) != 1 or isinstance(rest, Indexed) or rest.has(Sigma, Delta) or not rest.free_symbols.issuperset(own):
        return None
    if len(accesses(rest)) < 2:
        return None
    return canonical(rest, {i: Index(f"_r{n}") for n, i in enumerate(own)}), sign, own, rest, deltas


__all__ = ["ROWS", "RULE", "with_rows_once"]
