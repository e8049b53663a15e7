# pyright: basic
"""Sums of what is put where an integer tensor says, as statements of their own where more is made of them.

`(a_ij - Sum_k [i = y_k] v_kj) / n_i` would need a tensor over i, k and j; alone the sum is rows added in place. Where the rows are
fewer than the places, what it is multiplied with is read at the places instead, as other rules do it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Add, Mul

from codegen.closed.plan.backward import Statement
from codegen.closed.plan.prices import is_scatter
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, base, bound, element

if TYPE_CHECKING:
    from collections.abc import Callable

    from sympy import Expr

RULE = "rows are added in place before more is made of them"
PLACED = "sum_at_places_"
"""What the names of such statements begin with."""


def with_scatters_apart(
    statements: list[Statement],
    ranges: Callable[[Expr, Statement], dict[Any, Expr]],
    count: Callable[[tuple[Expr, ...]], int],
) -> list[Statement]:
    """Statements that read such sums. `ranges` gives the sizes of indices in one, `count` the elements of a shape."""
    out: list[Statement] = []
    made = 0
    for s in statements:
        if not s.expr.has(Sigma):
            out.append(s)
            continue
        sizes = ranges(s.expr, s)
        found: dict[Any, Any] = {}
        apart: dict[Any, tuple[Any, ...]] = {}
        for x in inside(s.expr):
            free = tuple(i for i in s.indices if i != 0 and i in x.free_symbols - bound(x))
            shape = tuple(sizes[i] for i in free if i in sizes)
            rows = tuple(n for _, n in x.limits) + tuple(sizes[i] for i in free if i in sizes and not placed(x, i))
            if len(shape) == len(free) and count(shape) <= count(rows):
                apart[x] = free
        expr, totals = alike_together(s.expr, apart)
        for x in totals:
            free = apart[Add.make_args(x)[0]]
            name = f"{PLACED}{made}"
            made += 1
            found[x] = element(base(name), list(free))
            out.append(Statement(name, free, tuple(sizes[i] for i in free), x, "", x, (RULE,)))
        out.append(replace(s, expr=cast("Expr", expr.xreplace(found))) if found else s)
    return out


def alike_together(e: Expr, apart: dict[Any, tuple[Any, ...]]) -> tuple[Expr, list[Expr]]:
    """An expression with such sums over the same indices that are added with the same factor as one, and all that are left.

    Then the values of each are put into one tensor.
    """
    terms: dict[Any, list[Any]] = {}
    for t in Add.make_args(e):
        x = next((f for f in Mul.make_args(t) if f in apart), None)
        terms.setdefault((t, None) if x is None else (t / x, apart[x]), []).append(t if x is None else x)
    totals = [Add(*found) for (_, free), found in terms.items() if free is not None and len(found) > 1]
    if not totals:
        return e, list(apart)
    whole = Add(*[t if free is None else Mul(t, Add(*found), evaluate=False) for (t, free), found in terms.items()])
    joined = {x for total in totals for x in total.args}
    return whole, [
        *totals,
        *[x for x in apart if x not in joined or whole.xreplace(dict.fromkeys(totals, base("_"))).has(x)],
    ]


def inside(e: Any) -> list[Sigma]:
    """Such sums in an expression that are multiplied by tensors, or stand in something that is; each once."""
    found: dict[Any, None] = {}

    def walk(x: Any, multiplied: bool) -> None:
        if isinstance(x, Sigma):
            if is_scatter(x) and multiplied:
                found[x] = None
            return
        if isinstance(x, Indexed) or not x.args:
            return
        for a in x.args:
            others = isinstance(x, Mul) and any(accesses(b) and b is not a for b in x.args)
            walk(a, multiplied or others or not isinstance(x, (Add, Mul)))

    walk(e, multiplied=False)
    return list(found)


def placed(total: Sigma, i: Any) -> bool:
    """Whether a free index of a sum is one that an integer tensor is compared with."""
    return any(is_scatter(total) and i in f.args for f in Mul.make_args(total.body) if not isinstance(f, Indexed))


__all__ = ["PLACED", "RULE", "with_scatters_apart"]
