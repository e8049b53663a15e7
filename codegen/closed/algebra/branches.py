"""Brackets in sums become choices: `A [c] + B (1 - [c])` is A where c holds, else B. The branch not taken cannot spoil the other."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.facts import single_sum
from engine.notation import Delta, Equal, Index, Less, Sigma, Where


@lru_cache(maxsize=2**12)
def branched(e: Expr) -> Expr:
    """An expression with each bracket that several of its terms have as a factor turned into a choice."""
    if isinstance(e, Sigma):
        return cast("Expr", e.func(branched(e.body), *e.args[1:]))
    if not isinstance(e, sp.Add):
        return cast(
            "Expr",
            sp.Mul(*[branched(cast("Expr", f)) if isinstance(f, (Sigma, sp.Add)) else f for f in sp.Mul.make_args(e)]),
        )
    e = summed_together(e)
    terms = sp.Add.make_args(e)
    for b in brackets(terms):
        inside = sp.Add(*[t for t in terms if b in sp.Mul.make_args(t)])
        outside = sp.Add(*[t for t in terms if b not in sp.Mul.make_args(t)])
        factor = sp.Mul.make_args(inside)
        holds = sp.Add(*[sp.Mul(*[f for f in sp.Mul.make_args(t) if f != b]) for t in sp.Add.make_args(inside)])
        related = [t for t in sp.Add.make_args(outside) if any(same(t, -h) for h in sp.Add.make_args(holds))]
        if not related and not (len(factor) and outside != 0 and alike(holds, outside)):
            continue
        rest = (
            sp.Add(*[t for t in sp.Add.make_args(outside) if t not in related])
            if related and not alike(holds, outside)
            else sp.S.Zero
        )
        fails = outside - rest
        if fails.has(b):
            continue
        return branched(cast("Expr", rest)) + choice(b, branched(sp.expand(holds + fails)), branched(fails))
    return e


def summed_together(e: Expr) -> Expr:
    """`Sum p - Sum [c] p` as the sum of `0 if c else p`: where c holds for what is large, the difference has no digits left."""
    terms = sp.Add.make_args(e)
    found = [(t, single_sum(t)) for t in terms] if e.has(Less, Equal) else []
    sums = [(t, cast("Any", t / s), s) for t, s in found if s is not None]
    for one, front, masked in sums:
        for b in [f for f in sp.Mul.make_args(masked.body) if isinstance(f, (Less, Equal))]:
            own = sp.Mul(*[f for f in sp.Mul.make_args(masked.body) if f != b])
            for other, behind, plain in sums:
                there = {j: i for (i, n), (j, m) in zip(masked.limits, plain.limits, strict=False) if n == m}
                number = behind / front
                if len(there) < len(masked.limits) or len(masked.limits) != len(plain.limits) or not number.is_number:
                    continue
                number *= plain.body.xreplace(there) / own
                if number.is_number and other is not one:
                    near = [f for f in sp.Mul.make_args(own) if f.atoms(Index) <= b.atoms(Index)]
                    chosen = choice(b, cast("Expr", (1 + number) * sp.Mul(*near)), cast("Expr", number * sp.Mul(*near)))
                    body = chosen * sp.Mul(*[f for f in sp.Mul.make_args(own) if f not in near])
                    whole = front * masked.func(body, *masked.args[1:])
                    return summed_together(cast("Expr", sp.Add(whole, *[t for t in terms if t not in (one, other)])))
    return e


def brackets(terms: tuple[Any, ...]) -> list[Any]:
    """Truth values among the factors of some terms and not of all of them, in a fixed order."""
    found = {f for t in terms for f in sp.Mul.make_args(t) if isinstance(f, (Less, Equal))}
    return sorted((b for b in found if not all(b in sp.Mul.make_args(t) for t in terms)), key=sp.default_sort_key)


def same(a: Any, b: Any) -> bool:
    """Equal up to the order of factors."""
    return bool(a == b)


def alike(a: Any, b: Any) -> bool:
    """Whether two expressions are multiples of one another by a number, term by term."""
    one, other = (dict(sp.expand(x).as_coefficients_dict()) for x in (a, b))
    ratios = {c / other[t] for t, c in one.items() if t in other and other[t] != 0}
    return one.keys() == other.keys() and len(ratios) == 1 and 0 not in ratios


def choice(b: Any, holds: Expr, fails: Expr) -> Expr:
    """`holds` where b, else `fails`, with what both have as a factor in front, unless only numbers were left.

    Where one of them is zero, so stands in front what leaves out a diagonal of the other.
    """
    one, other = sp.Mul.make_args(holds), sp.Mul.make_args(fails)
    common = [f for f in one if f in other and not f.is_number]
    if 0 in (holds, fails):
        common = [f for f in (*one, *other) if leaves_out(f)]
    left, right = (cast("Expr", sp.Mul(*[f for f in x if f not in common])) for x in (one, other))
    if left.is_number and right.is_number:
        back = next((f for f in common if f.atoms(sp.Indexed)), sp.S.One)
        common = [f for f in common if f != back]
        left, right = (left * back), (right * back)
    return sp.Mul(*common) * Where(b, left, right)


def leaves_out(f: Any) -> bool:
    """Whether a factor is zero on a diagonal and else one."""
    return isinstance(1 - f, Delta) and all(isinstance(i, Index) for i in (1 - f).args)


__all__ = ["branched"]
