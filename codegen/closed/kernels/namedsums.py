# pyright: basic
"""Sums in statements that a saved cell holds already: `1 - p` beside a cell `q = 1 - p` that is read all the same is q.

So are signs that the forward took itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import BINDERS, Sign, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from codegen.closed.regions.cells import Cell


def with_named_sums(statements: Mapping[str, Expr], cells: Iterable[Cell]) -> dict[str, Expr]:
    """The statements by name, with every factor that is a sum that a cell they read holds, or less it, as that cell."""
    read = {name_of(a) for e in statements.values() for a in accesses(e)}
    sums = [c for c in cells if c.name in read and isinstance(c.expr, sp.Add)]
    signs = [c for c in cells if isinstance(c.expr, Sign)]
    out = {name: with_named_signs(e, signs) for name, e in statements.items()} if signs else dict(statements)
    return {name: cast("Expr", named(e, sums)) for name, e in out.items()} if sums else out


def with_named_signs(e: Any, signs: list[Cell]) -> Any:
    """An expression with every sign that a cell holds as that cell, in front of what is chosen or compared as well."""
    if isinstance(e, Sign):
        found = (holding(c, cast("Expr", c.expr), e) for c in signs)
        return next((own for own in found if own is not None), e)
    sizes = [f for f in sp.Mul.make_args(e) if isinstance(f, Sign) and f.args[0] in e.args]
    if sizes or isinstance(e, Indexed) or not e.has(Sign):  # |x| is a kernel of x
        return e
    return rebuilt(e, lambda a: with_named_signs(a, signs))


def undone(e: Any, sums: list[Cell]) -> Expr | None:
    """The tensor that a sum is once cells that are a number and a tensor are written out: `1 - q` for `q = 1 - p` is p."""
    shifts = {c.name: c for c in sums if len(accesses(cast("Expr", c.expr))) == 1}
    if not any(name_of(a) in shifts for a in accesses(e)):
        return None
    whole = sp.expand(substituted(e, shifts))
    return cast("Expr", whole) if isinstance(whole, Indexed) or isinstance(-whole, Indexed) else None


def named(e: Any, sums: list[Cell]) -> Any:
    """An expression with such factors by name."""
    if isinstance(e, (Indexed, *BINDERS)) or not e.args:
        return e
    if isinstance(e, sp.Mul):
        return sp.Mul(*[factor(f, sums) for f in e.args])
    return rebuilt(e, lambda a: named(a, sums))


def factor(f: Any, sums: list[Cell]) -> Any:
    """A factor, which may be a power of a sum."""
    base, power = f.as_base_exp()
    if not isinstance(base, sp.Add) or not power.is_Integer or power < 0:
        return named(f, sums)
    short = undone(base, sums)
    if short is not None:
        return short**power
    for c in sums:
        for sign in (1, -1):
            own = holding(c, cast("Expr", c.expr), sign * base)
            if own is not None:
                return (sign * own) ** power
    return named(f, sums)


__all__ = ["with_named_sums"]
