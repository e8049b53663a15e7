# pyright: basic
"""Lengths that something is divided by are no less than a number: where they are at least that, they are what one divides by.

With q = max(r, c) for the length r of x and c > 0, the slope of `x / q` has `[c <= r] x / r` in it, 0 where r is 0. Where c <= r
holds, r is not 0, and it is q: so that is `[c <= r] x / q`, of which the forward has x / q.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.kernels.norms import square_of
from engine.indexed import Indexed
from engine.notation import Equal, LessEqual, Where, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra

RULE = "where a length is at least what one divides by, it is what one divides by"
LENGTH = sp.Dummy("length", positive=True)


def by_floors(e: Expr, algebra: Algebra) -> Expr:
    """An expression with the slopes of lengths told by the tensors that are these lengths where they are large enough."""
    new = told(e, algebra) if e.has(LessEqual) and e.has(Equal) else e
    if new is not e:
        algebra.note(RULE)
    return new


def told(e: Any, algebra: Algebra) -> Any:
    """The same object where there is no such slope."""
    if isinstance(e, Indexed) or not e.args:
        return e
    new = rebuilt(e, lambda a: told(a, algebra))
    if not isinstance(new, Mul):
        return new
    for bound in [f for f in new.args if isinstance(f, LessEqual)]:
        found = floor_at(bound, algebra)
        if found is None:
            continue
        square, q = found
        for f in new.args:
            if isinstance(f, Where) and f.args[:2] == (Equal(square, 0), 0):
                slope = f.args[2].xreplace({square: LENGTH**2}).xreplace({LENGTH: q})
                return told(new / f * slope, algebra)
    return new


def floor_at(bound: Any, algebra: Algebra) -> tuple[Any, Any] | None:
    """Of `c <= r`: what r is the root of, and the element that is r there and c elsewhere."""
    c, r = bound.args
    length = algebra.cells.get(name_of(r)) if isinstance(r, Indexed) else None
    square = square_of(length)
    if length is None or square is None or not c.is_positive:
        return None
    own = {i: j for i, j in zip(length.indices, r.indices, strict=False) if i != 0}
    for cell in algebra.cells.values():
        e: Any = cell.expr
        if isinstance(e, Where) and isinstance(e.args[1], Indexed) and e.args[::2] == (LessEqual(c, e.args[1]), c):
            q = holding(cell, e.args[1], r)
            if q is not None:
                return square.xreplace(own), q
    return None


__all__ = ["by_floors"]
