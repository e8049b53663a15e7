"""`1 - sigmoid(g)` loses its digits where sigmoid(g) is almost one; `sigmoid(-g)` has them.

It costs one operation more where sigmoid(g) is kept as well, and none where it is not.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.logistic import gate_argument
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import accesses, base, element, name_of

if TYPE_CHECKING:
    from codegen.closed.plan.planner import Planned
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

RULE = "1 - sigmoid(g) is sigmoid(-g)"


def complemented(region: Region, plan: Planned) -> tuple[Region, Planned] | None:
    """A plan with every `c (1 - s)` as `c t`, where s is a cell that is sigmoid(g) and t a new one that is sigmoid(-g)."""
    gates = {c.name: g for c in region.cells for g in [gate_argument(c.expr)] if g is not None}
    if not gates:
        return None
    taken = {c.name for c in region.cells}
    names: dict[str, str] = {}

    def turned(e: Any) -> Any:
        if not e.args or isinstance(e, Indexed):
            return e
        if isinstance(e, sp.Add):
            for one, other in permutations(e.args, 2):
                share = -other / one
                if isinstance(share, Indexed) and name_of(share) in gates:
                    known = name_of(share)
                    if known not in names:
                        names[known] = free_name(f"{known}_complement", taken)
                        taken.add(names[known])
                    rest = sp.Add(*[t for t in e.args if t not in (one, other)])
                    return turned(one) * element(base(names[known], positive=True), list(share.indices)) + turned(rest)
        return rebuilt(e, turned)

    new = [cast("Expr", turned(s.expr)) for s in plan.statements]
    statements = tuple(
        s if e == s.expr else replace(s, expr=e, rules=(*s.rules, RULE))
        for s, e in zip(plan.statements, new, strict=True)
    )
    if not names:
        return None
    cells: list[Cell] = []
    for c in region.cells:
        cells.append(c)
        if c.name in names:
            expr = 1 / (1 + sp.exp(gates[c.name]))
            cells.append(replace(c, name=names[c.name], expr=expr, node=None, named=False))
    return region.by(RULE, lambda _: cells), replace(plan, statements=statements)


def replaces(plan: Planned, careful: tuple[Region, Planned]) -> bool:
    """Whether a plan with complements reads nothing of the sigmoids that it had before: then it costs nothing more."""
    region, new = careful
    gates = {c.name for c in region.cells if gate_argument(c.expr) is not None}
    before, after = ({name_of(a) for s in p.statements for a in accesses(s.expr)} & gates for p in (plan, new))
    return not before & after and not before & {*region.needed, *region.seeds}


__all__ = ["RULE", "complemented", "replaces"]
