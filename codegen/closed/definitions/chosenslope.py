# pyright: basic
"""A choice between two multiples of one tensor is that tensor times a choice between numbers, which is its slope too.

So `e q if e > 0 else e (q - 1)`, the pinball loss, is computed and passed back with one choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from codegen.closed.regions.cells import Cell, at
from codegen.lowering.kernels import stable
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Where, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sympy import Expr

RULE = "a choice between multiples of one tensor is the tensor times a choice between numbers"


def by_slopes(cells: list[Cell]) -> list[Cell]:
    """The cells, with the number that is chosen before every such choice, unless torch has a kernel for it."""
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        found = slope_of(c.expr, known) if c.differentiable and not c.call else None
        if found is not None:
            x, chosen = found
            own = tuple(i if i == 0 else fresh() for i in c.indices)
            there = dict(zip(c.indices, own, strict=True))
            name = free_name(f"{c.name}_slope", known)
            expr = cast("Expr", chosen.xreplace({i: j for i, j in there.items() if i != 0}))
            known[name] = Cell(name, own, c.shape, expr, c.kind, False, c.dtype)
            out.append(known[name])
            c = replace(c, expr=cast("Expr", x * known[name].element(c.indices)), text=None)
        out.append(c)
    return out


def slope_of(e: Expr | None, known: Mapping[str, Cell]) -> tuple[Indexed, Expr] | None:
    """The tensor and the choice between numbers; None where the expression is nothing of that kind, or a kernel."""
    if not isinstance(e, Where) or stable(e) is not None:
        return None
    condition, one, other = e.args
    a, b = multiple(one, known), multiple(other, known)
    if a is None or b is None or a[1] != b[1] or a[0] in (b[0], -b[0]):
        return None
    return a[1], cast("Expr", Where(condition, a[0], b[0]))


def multiple(e: Any, known: Mapping[str, Cell]) -> tuple[Any, Indexed] | None:
    """The number and the tensor of a multiple of one, which a cell may hold."""
    number, x = e.as_coeff_Mul()
    if not isinstance(x, Indexed) or number == 0:
        return None
    cell = known.get(name_of(x))
    if cell is None or cell.expr is None or cell.kind != "float" or cell.call:
        return number, x
    inner = cast("Any", at(cell, x.indices)).as_coeff_Mul()
    return (number * inner[0], inner[1]) if isinstance(inner[1], Indexed) else (number, x)


__all__ = ["RULE", "by_slopes"]
