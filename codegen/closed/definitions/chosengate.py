# pyright: basic
"""A choice between sigmoid(u) and 1 - sigmoid(u) is the sigmoid of a choice between u and -u: its logarithm does not overflow.

So is the probability of what came out, `p if y else 1 - p`, one sigmoid, as in the focal loss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.definitions.logistic import DEPTH, gate_argument
from codegen.closed.regions.cells import Cell, substituted
from engine.naming import free_name
from engine.notation import BINDERS, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a choice between sigmoid(u) and 1 - sigmoid(u) is the sigmoid of a choice between u and -u"


def with_chosen_gates(cells: list[Cell]) -> list[Cell]:
    """The cells with every such choice, which is a whole definition, as a sigmoid, and before it what that is of."""
    known: dict[str, Cell] = {}
    taken = {c.name for c in cells}
    out: list[Cell] = []
    for c in cells:
        u = chosen_argument(c.expr, known) if isinstance(c.expr, Where) else None
        if u is not None:
            own = {i: i if i == 0 else fresh() for i in c.indices}
            name = free_name(f"{c.name}_logit", taken)
            taken.add(name)
            indices = tuple(own[i] for i in c.indices)
            expr = cast("Expr", u.xreplace({i: j for i, j in own.items() if i != 0}))
            logit = replace(
                c, name=name, indices=indices, expr=expr, node=None, text=None, named=False, call=False, positive=False
            )
            known[name] = logit
            out.append(logit)
            c = replace(c, expr=1 / (1 + sp.exp(-logit.element(c.indices))), call=False, text=None)
        known[c.name] = c
        out.append(c)
    return out


def chosen_argument(e: Any, known: Mapping[str, Cell]) -> Expr | None:
    """The choice between u and -u of a choice between sigmoids of these; None for any other."""
    condition, one, other = e.args
    u, v = argument(one, known), argument(other, known)
    if u is None or v is None or u != -v:
        return None
    return cast("Expr", Where(condition, u, -u))


def argument(e: Any, known: Mapping[str, Cell]) -> Expr | None:
    """g of an expression that is sigmoid(g), or one less sigmoid(-g), with what it reads of single tensors written out."""
    written = e
    for _ in range(DEPTH + 2):
        for gate, sign in ((written, 1), (1 - written, -1)):
            found = gate_argument(gate)
            if found is not None:
                return cast("Expr", sign * found)
        inside = {name_of(a): known[name_of(a)] for a in accesses(written) if single(known.get(name_of(a)))}
        if not inside:
            return None
        written = substituted(written, inside)
    return None


def single(c: Cell | None) -> bool:
    """Whether a cell is an elementwise function of one tensor."""
    return (
        c is not None and c.expr is not None and not c.call and not c.expr.has(*BINDERS) and len(accesses(c.expr)) == 1
    )


__all__ = ["RULE", "with_chosen_gates"]
