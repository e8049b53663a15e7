"""What is known of index expressions from the ranges of their indices: bounds, brackets that always hold, digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from engine.notation import Delta, Index, Less, LessEqual, Quo, Rem, Where

if TYPE_CHECKING:
    from collections.abc import Mapping

Ranges = "Mapping[Index, Expr]"


def extreme(e: Expr, ranges: Mapping[Index, Expr], largest: bool) -> Expr | None:
    """A bound of an index expression over the ranges of its indices (i in [0, n)); None where none is known."""
    if e.is_Integer or (isinstance(e, sp.Symbol) and not isinstance(e, Index)):
        return e
    if isinstance(e, Index):
        return (ranges[e] - 1 if largest else sp.S.Zero) if e in ranges else None
    if isinstance(e, sp.Add):
        parts = [extreme(a, ranges, largest) for a in e.args]
        return None if any(p is None for p in parts) else sp.expand(sp.Add(*parts))
    if isinstance(e, sp.Mul):
        c, rest = e.as_coeff_Mul()
        if c.is_negative:
            inner = extreme(-e, ranges, not largest)
            return None if inner is None else -inner
        parts = [extreme(a, ranges, largest) for a in sp.Mul.make_args(rest)]
        if any(p is None for p in parts):
            return None
        return sp.expand(c * sp.Mul(*parts))
    if isinstance(e, Rem):
        return e.args[1] - 1 if largest else sp.S.Zero  # type: ignore[operator, return-value]
    if isinstance(e, Quo):
        a, b = e.args
        if not largest:
            return sp.S.Zero
        top = extreme(a, ranges, True)
        if top is None:
            return None
        whole = sp.cancel((top + 1) / b)
        return whole - 1 if whole.is_integer else None
    return None if free(e) else e


def free(e: Expr) -> bool:
    """Whether an expression depends on any index or tensor."""
    return bool(e.atoms(Index)) or e.has(sp.Indexed)


def nonnegative(e: Expr) -> bool:
    """Whether an expression in sizes (each at least 1) is certainly at least 0."""
    e = sp.expand(e)
    if e.is_nonnegative:
        return True
    shifted = sp.expand(e.xreplace({s: s + 1 for s in e.free_symbols}))  # sizes are >= 1: substitute s = 1 + t, t >= 0
    return (
        all(c.is_nonnegative for c in sp.Poly(shifted, *e.free_symbols).coeffs())
        if e.free_symbols and shifted.is_polynomial()
        else False
    )


def holds(condition: Expr, ranges: Mapping[Index, Expr]) -> bool | None:
    """Whether a bracket of index expressions is always true, always false, or neither (None)."""
    if not isinstance(condition, (Less, Delta)):
        return None
    a, b = condition.args
    if a.has(sp.Indexed) or b.has(sp.Indexed):
        return None
    low, high = extreme(b - a, ranges, False), extreme(b - a, ranges, True)
    if isinstance(condition, Delta):
        if (low is not None and nonnegative(low - 1)) or (high is not None and nonnegative(-high - 1)):
            return False
        return None
    strict = 0 if isinstance(condition, LessEqual) else 1
    if low is not None and nonnegative(low - strict):
        return True
    if high is not None and nonnegative(-high - 1 + strict):
        return False
    return None


def digits(e: Expr, ranges: Mapping[Index, Expr]) -> Expr:
    """Quo and Rem worked out: `Quo(a*B + b, B)` is a and `Rem(a*B + b, B)` is b where b < B."""
    if not isinstance(e, (Quo, Rem)):
        return e
    a, b = e.args
    high, low, whole = sp.S.Zero, sp.S.Zero, sp.expand(a)
    for term in sp.Add.make_args(whole):
        quotient = sp.cancel(term / b)
        if all(p.is_nonnegative for p in sp.Mul.make_args(sp.fraction(quotient)[1])) and sp.fraction(quotient)[1] == 1:
            high += quotient
        else:
            low += term
    if low == 0:
        return high if isinstance(e, Quo) else sp.S.Zero
    top, bottom = extreme(low, ranges, True), extreme(low, ranges, False)
    if top is not None and bottom is not None and nonnegative(bottom) and nonnegative(b - 1 - top):
        return high if isinstance(e, Quo) else low
    if isinstance(e, Quo) and isinstance(a, Quo):
        return digits(Quo(a.args[0], sp.expand(a.args[1] * b)), ranges)  # type: ignore[operator]
    return e


def simplified(e: Any, ranges: Mapping[Index, Expr]) -> Any:
    """An expression with every bracket that its indices decide, and every digit, worked out."""
    if not e.args or isinstance(e, sp.IndexedBase) or not e.has(Less, Delta, Quo, Rem, Where):
        return e
    inner = ranges
    if hasattr(e, "limits"):
        inner = {**ranges, **dict(e.limits)}
    args = [simplified(a, inner) for a in e.args]
    out = e.func(*args) if any(x is not y for x, y in zip(args, e.args, strict=True)) else e
    if isinstance(out, (Quo, Rem)):
        return digits(out, inner)
    decided = holds(out, inner) if isinstance(out, (Less, Delta)) else None
    return out if decided is None else sp.Integer(int(decided))
