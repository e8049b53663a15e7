# pyright: basic
"""Choices by the sign of x as choices by that of r, where r is relu(x) or leaky_relu(x): then x need not be kept beside r."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Less, LessEqual, Where, accesses, base, element, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

RULE = "relu(x) and leaky_relu(x) are positive where x is"


def by_results(statements: Sequence[Statement], region: Region) -> list[Statement]:
    """Statements that compare r with zero where they did x, if they read nothing else of x, and r is there for others."""
    read = {name_of(a) for s in statements for a in accesses(s.expr)}
    out = list(statements)
    for cell in region.cells:
        x = told_by(cell)
        if x is None or not (cell.name in read or cell.name in region.needed or cell.name in region.seeds):
            continue
        new = [compared(s.expr, x, cell.name) for s in out]
        if all(x not in {name_of(a) for a in accesses(e)} for e in new):
            changed = zip(out, new, strict=True)
            out = [s if e is s.expr else replace(s, expr=e, rules=(*s.rules, RULE)) for s, e in changed]
    return out


def told_by(cell: Cell) -> str | None:
    """The x of a cell that is `0 if x <= 0 else x` or `x if 0 < x else k x` for a positive k; None where it is neither."""
    if not isinstance(cell.expr, Where):
        return None
    condition, one, other = cell.expr.args
    x, rest = (other, one) if isinstance(condition, LessEqual) else (one, other)
    if not isinstance(x, Indexed) or list(x.indices) != list(cell.indices):
        return None
    leaky = condition == Less(0, x) and (rest / x).is_number and (rest / x).is_positive
    return name_of(x) if leaky or (condition == LessEqual(x, 0) and rest == 0) else None


def compared(e: Any, x: str, r: str) -> Any:
    """An expression with `x <= 0` and `0 < x` said of r; the same object where it has neither."""
    if isinstance(e, (Less, LessEqual)):
        wanted = e.args[0] if isinstance(e, LessEqual) else e.args[1]
        if isinstance(wanted, Indexed) and name_of(wanted) == x and e == asked(type(e), wanted):
            return asked(type(e), element(base(r), wanted.indices))
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, lambda a: compared(a, x, r))


def asked(kind: Any, x: Any) -> Any:
    """`x <= 0` or `0 < x`."""
    return kind(x, 0) if kind is LessEqual else kind(0, x)


__all__ = ["by_results"]
