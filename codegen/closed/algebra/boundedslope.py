# pyright: basic
"""A slope that is a number below one place, another beyond a second, and runs straight from one to the other between them.

It is made of a clamp, as that of `0 if x <= -b else (x if b <= x else (x + b)^2 / (4 b))` is `clamp(x, -b, b) / (2 b) + 1/2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.definitions.pieces import affine_between, bounded, pieces, written
from codegen.lowering.kernels import stable
from engine.indexed import Indexed
from engine.notation import BRACKETS, Where, accesses, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra

RULE = "a slope that runs straight between two numbers is made of a clamp"
TERMS = 12
"""Terms with one cotangent at most."""


def by_bounds(e: Expr, algebra: Algebra) -> Expr:
    """A sum in which what multiplies a cotangent is made of a clamp, where it is such a function of one number."""
    if not e.has(Where, *BRACKETS):
        return e
    groups: dict[Any, list[Any]] = {}
    for t in sp.Add.make_args(e):
        groups.setdefault(frozenset(f for f in Mul.make_args(t) if is_cotangent(f)), []).append(t)
    return cast("Expr", sp.Add(*[made_of_clamp(terms, algebra) for terms in groups.values()]))


def is_cotangent(f: Any) -> bool:
    """Whether a factor is an element of a cotangent."""
    return isinstance(f, Indexed) and name_of(f).startswith("d_")


def made_of_clamp(terms: list[Any], algebra: Algebra) -> Any:
    """The sum of some terms, what all of them are products of in front."""
    total = sp.Add(*terms)
    if len(terms) > TERMS or not total.has(Where, *BRACKETS):
        return total
    common = [f for f in Mul.make_args(terms[0]) if not f.is_number and all(f in Mul.make_args(t) for t in terms)]
    plain = [f for f in common if not f.has(Where, *BRACKETS)]
    for front in dict.fromkeys((Mul(*[f for f in plain if is_cotangent(f) or not accesses(f)]), Mul(*plain))):
        new = clamped(cast("Expr", sp.Add(*[t / front for t in terms])), algebra)
        if new is not None:
            algebra.note(RULE)
            return front * new
    return total


def clamped(slope: Expr, algebra: Algebra) -> Expr | None:
    """A slope by the clamp that it is made of, None where it is no such function of one number."""
    for whole in written(slope, algebra.cells):
        read = {*accesses(whole)}
        if len(read) == 1:
            (x,) = read
            t = sp.Dummy("t", real=True)
            found = pieces(whole.xreplace({x: t}), t)
            line = affine_between(found, t) if found is not None and len(found.places) == 2 else None
            if found is not None and line is not None:
                own = holding_clamp(x, found.places, algebra)
                return line[0] * own + line[1] if own is not None else cast("Expr", bounded(found, t).xreplace({t: x}))
    return None


def holding_clamp(x: Indexed, bounds: tuple[Any, ...], algebra: Algebra) -> Indexed | None:
    """The element of a cell that is x between two bounds."""
    for cell in algebra.cells.values():
        kernel = stable(cell.expr) if isinstance(cell.expr, Where) else None
        if kernel is not None and kernel[0] in ("clamp", "hardtanh") and kernel[1][1:] == bounds:
            own = holding(cell, kernel[1][0], x)
            if own is not None:
                return own
    return None


__all__ = ["by_bounds"]
