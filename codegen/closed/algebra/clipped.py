# pyright: basic
"""A sign beside the truth that a number is within bounds: with c = clamp(x, l, h), `[l <= x <= h]` is 1 where x - c is 0, else 0.

So `m (a + b sign(m x - m c) + d [l <= x <= h])` takes three values, a + d where x is c, a + b and a - b, and nothing where m is 0.
Where two of these are the same it is a choice by one comparison, as in the slope of min(m x, m clamp(x, l, h)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.terms import powers
from codegen.closed.regions.cells import at
from engine.indexed import Indexed
from engine.notation import Less, Sign, Where, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra

RULE = "a number is within bounds where it is its clamp"


def by_one_comparison(e: Expr, algebra: Algebra) -> Expr:
    """A sum with its terms of that kind as choices."""
    for sign in sorted(e.atoms(Sign), key=str) if e.has(Sign) and e.has(Where) else []:
        found = clamp_compared(sign.args[0], algebra)
        if found is None:
            continue
        shared, within = found
        for whole, (plain, signed, inside) in grouped(e, sign, within).items():
            table, low, high = powers(whole), plain - signed, plain + signed
            same = plain + inside
            if (
                signed == 0
                or inside == 0
                or same not in (low, high)
                or any(table.get(b, 0) < x for b, x in shared.items())
            ):
                continue
            positive, negative = two_sides(sign.args[0])
            choice = (
                Where(Less(negative, positive), high, low)
                if same == low
                else Where(Less(positive, negative), low, high)
            )
            algebra.note(RULE)
            rest = e - whole * (plain + signed * sign + inside * within)
            return by_one_comparison(cast("Expr", sp.expand(rest) + whole * choice), algebra)
    return e


def two_sides(difference: Any) -> tuple[Expr, Expr]:
    """p and q of p - q."""
    one, other = difference.args
    return (other, -one) if one.could_extract_minus_sign() else (one, -other)


def clamp_compared(difference: Any, algebra: Algebra) -> tuple[dict[Any, Any], Any] | None:
    """Of m x - m c with c = clamp(x, l, h): the powers that m is made of, and the truth that x is within its bounds."""
    if not isinstance(difference, sp.Add) or len(difference.args) != 2:
        return None
    p, q = two_sides(difference)
    for one, other in ((p, q), (q, p)):
        ratio = (one / other).as_powers_dict()
        clamps = [b for b, x in ratio.items() if x == -1 and isinstance(b, Indexed)]
        tops = [b for b, x in ratio.items() if x == 1 and isinstance(b, Indexed)]
        cell = algebra.cells.get(name_of(clamps[0])) if len(ratio) == 2 and clamps and tops else None
        if cell is None or cell.expr is None:
            continue
        x, c = tops[0], at(cell, clamps[0].indices)
        low, high = (c.args[1], c.args[2].args[1]) if isinstance(c, Where) and isinstance(c.args[2], Where) else (x, x)
        clamp = Where(Less(x, low), low, Where(Less(high, x), high, x)) if low.is_number and high.is_number else None
        if c == clamp and low <= high:
            return dict(powers(one / x)), Where(Less(x, low), 0, 1 - Less(high, x))
    return None


def grouped(e: Expr, sign: Any, within: Any) -> dict[Any, list[Any]]:
    """The terms of a sum by what they are multiples of: numbers in front of it, of it and the sign, of it and the truth."""
    groups: dict[Any, list[Any]] = {}
    for t in sp.Add.make_args(e):
        number, rest = t.as_coeff_Mul()
        factors = list(Mul.make_args(rest))
        kind = 1 if sign in factors else 2 if within in factors else 0
        whole = Mul(*[f for f in factors if f not in (sign, within)])
        groups.setdefault(whole, [sp.S.Zero] * 3)[kind] += number
    return groups


__all__ = ["by_one_comparison"]
