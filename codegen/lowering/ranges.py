"""What is known of index expressions from the ranges of their indices: bounds, brackets that always hold, digits."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import sympy as sp
from sympy import Expr

from engine.bounds import nonnegative
from engine.notation import Delta, Index, Less, LessEqual, Quo, Rem, Sigma, Where, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping


def extreme(e: Expr, ranges: Mapping[Index, Expr], largest: bool) -> Expr | None:
    """A bound of an index expression over the ranges of its indices (i in [0, n)); None where none is known."""
    if e.is_Integer or (isinstance(e, (sp.Symbol, Quo, Rem)) and not isinstance(e, Index) and not free(e)):
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
        return e.args[1] - 1 if largest else sp.S.Zero
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
        return digits(Quo(a.args[0], sp.expand(a.args[1] * b)), ranges)
    return e


def without_wholes(e: Any, ranges: Mapping[Index, Expr]) -> Any:
    """Quo and Rem without the multiples of what is divided by: `Rem(a*B + b, B)` is Rem(b, B), whatever b is."""
    if not e.has(Quo, Rem) or not e.args or e.has(sp.Indexed):
        return e
    args = [without_wholes(a, ranges) for a in e.args]
    if not isinstance(e, (Quo, Rem)):
        return e.func(*args)
    a, b = args
    terms = [(t, sp.cancel(t / b)) for t in sp.Add.make_args(sp.expand(a))]
    whole = [q for _, q in terms if q.is_integer and sp.fraction(q)[1] == 1]
    low = sp.Add(*[t for t, q in terms if q not in whole])
    left = digits(e.func(low, b), ranges)
    return sp.Add(*whole, left) if isinstance(e, Quo) else left


class Digit(NamedTuple):
    """`Rem(Quo(position, stride), modulus)`; the most significant digit has no modulus."""

    position: Expr
    stride: Expr
    modulus: Expr | None


def digit_of(e: Expr) -> Digit | None:
    """The digit that `Rem(Quo(P, s), n)`, `Quo(P, s)` or `Rem(P, n)` is; None for anything else."""
    if isinstance(e, Quo):
        return Digit(e.args[0], e.args[1], None)
    if isinstance(e, Rem):
        inner, modulus = e.args
        if isinstance(inner, Quo):
            return Digit(inner.args[0], inner.args[1], modulus)
        return Digit(inner, sp.S.One, modulus)
    return None


def shift_of(e: Expr) -> tuple[Index, Expr, Expr] | None:
    """(j, c, n) of `Rem(j + c, n)`, a place that a cyclic shift moves, c without multiples of n; None for anything else."""
    if not isinstance(e, Rem) or e.has(sp.Indexed):
        return None
    position, n = e.args
    inside = position.atoms(Index)
    if len(inside) != 1 or any(q.atoms(Index) for q in position.atoms(Quo, Rem)):
        return None
    (j,) = inside
    c = sp.expand(position - j)
    wholes = c.coeff(n) if n.is_Symbol else sp.S.Zero
    c = sp.expand(c - wholes * n) if wholes.is_Integer else c
    return None if c.has(j) or c == 0 else (j, c, n)


def radix(e: Expr, sizes: Mapping[Index, Expr], total: Expr, rest: bool = False) -> list[tuple[Index, Expr]] | None:
    """Index and stride of every digit of `e = a*B*C + b*C + c`, least significant first.

    None where `e` is no such number, has an index whose size is unknown, or does not run over all of [0, total); with `rest`
    it may run over B (total // B) of it.
    """
    terms = sp.Add.make_args(sp.expand(e))
    if len(terms) < 2 or e.has(sp.Indexed) or any(q.atoms(Index) for q in e.atoms(Quo, Rem)):
        return None
    strides: dict[Index, Expr] = {}
    for term in terms:
        inside = term.atoms(Index)
        if len(inside) != 1:
            return None
        (j,) = inside
        stride = sp.cancel(term / j)
        if j not in sizes or stride.has(j):
            return None
        strides[j] = strides.get(j, sp.S.Zero) + stride  # of several terms where a size is a sum
    found: list[tuple[Index, Expr]] = []
    expected: Expr = sp.S.One
    while strides:
        j = next((j for j, s in strides.items() if sp.expand(s - expected) == 0), None)
        if j is None:
            return None
        found.append((j, strides.pop(j)))
        expected = sp.expand(expected * sizes[j])
    whole = sp.expand(expected - total) == 0
    if whole or (rest and any(sp.expand(expected - q.args[1] * q) == 0 for q in quotients_of(total, expected))):
        return found
    return None


def quotients_of(total: Expr, e: Expr) -> list[Quo]:
    """The `total // B` in an expression of sizes, for numbers B."""
    return [q for q in e.atoms(Quo) if q.args[0] == total and q.args[1].is_Integer and q.args[1] > 0]


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
    if decided is None and isinstance(out, Less) and out.args[0] == 0 and counts_itself(out.args[1], inner):
        decided = True
    return out if decided is None else sp.Integer(int(decided))


def counts_itself(e: Any, ranges: Mapping[Index, Expr]) -> bool:
    """Whether a sum of brackets has one among its terms that always holds: of `Sum_l [i_j = i_l]` it is that of l = j."""
    if not isinstance(e, Sigma) or not all(isinstance(f, Delta) for f in sp.Mul.make_args(e.body)):
        return False
    free = [i for i in ordered(e.free_symbols) if isinstance(i, Index)]
    alike = [[i for i in free if i in ranges and sp.expand(ranges[i] - n) == 0] for _, n in e.limits]
    return any(
        e.body.xreplace(dict(zip((j for j, _ in e.limits), choice, strict=True))) == 1 for choice in product(*alike)
    )
