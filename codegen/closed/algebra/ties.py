# pyright: basic
"""Which of two numbers is larger, as a sign: `p if y < x else (q if x < y else (p + q)/2)` is `(p + q)/2 + (p - q)/2 sign(x - y)`.

This is how a maximum passes back, half to each where they are equal; choices by the same comparison add up so. It holds for
`inf - inf` too, which torch gives the sign 0, and where a nan makes both comparisons false.
What is the larger of one number and the smaller of another and x passes back all of it between the two, and half at each.

A sign multiplies what is infinite by 0, which is nan. Where that is met, what is passed back is chosen instead, for all terms at once.
"""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr, Mul

from engine.notation import Less, Sign, Where

CHOSEN = "what goes to the larger of two is chosen by one comparison"
RULE = "which of two is larger is the sign of their difference"


def as_sign(e: Where) -> Expr | None:
    """A choice between numbers by which of two is larger, with their mean where neither is; None for any other choice."""
    condition, one, rest = e.args
    if not (isinstance(condition, Less) and isinstance(rest, Where) and isinstance(rest.args[0], Less)):
        return None
    turned, other, mean = rest.args
    if turned.args != condition.args[::-1] or not one.is_number:
        return None
    if not other.is_number:
        x, low = condition.args
        return between(x, low, other) if (one, mean) == (0, sp.S.Half) else None
    sign = sign_of_difference(condition.args[1], condition.args[0]) if mean == (one + other) / 2 else None
    return None if sign is None else mean + (one - other) / 2 * sign


def between(x: Any, low: Any, inner: Any) -> Expr | None:
    """1 for x strictly between two numbers and 1/2 at these, where `inner` says so of the upper one; None where it says anything else.

    It is `(sign(x - low) - sign(x - high))/2`, and where one is the other's opposite `(1 - sign(|x| - high))/2`.
    """
    c, sign = sp.expand(1 - 2 * inner).as_coeff_Mul()
    if not low.is_number or not isinstance(sign, Sign) or abs(c) != 1:
        return None
    high = x - c * sign.args[0]
    if not high.is_number or not low < high:
        return None
    return (1 - Sign(Sign(x) * x - high)) / 2 if low == -high else (Sign(x - low) - c * sign) / 2


def is_by_size(e: Any) -> bool:
    """Whether an expression chooses between numbers by which of two is larger, with a third where neither is."""
    if not (isinstance(e, Where) and isinstance(e.args[0], Less) and isinstance(e.args[2], Where)):
        return False
    turned, other, neither = e.args[2].args
    compared = isinstance(turned, Less) and turned.args == e.args[0].args[::-1]
    return bool(compared and e.args[1].is_number and other.is_number and neither.is_number)


def chosen_together(e: Expr) -> Expr:
    """A sum in which all terms that such a choice by the same two is a factor of are one choice between what they are then."""
    terms = [(t, [f for f in Mul.make_args(t) if is_by_size(f)]) for t in sp.Add.make_args(e)]
    groups: dict[Any, list[tuple[Any, Any]]] = {}
    others: list[Any] = []
    for t, found in terms:
        if len(found) == 1:
            (f,) = found
            groups.setdefault(frozenset(f.args[0].args), []).append((t / f, f))
        else:
            others.append(t)
    for pairs in groups.values():
        first = pairs[0][1].args[0]
        values: list[list[Any]] = [[], [], []]
        for rest, (condition, one, inner) in ((rest, f.args) for rest, f in pairs):
            numbers = (one, inner.args[1]) if condition == first else (inner.args[1], one)
            for into, number in zip(values, (*numbers, inner.args[2]), strict=True):
                into.append(number * rest)
        larger, smaller, same = (sp.Add(*v) for v in values)
        turned = first.func(*first.args[::-1])
        if larger == 0:
            others.append(Where(first, 0, Where(turned, smaller, same)))
        elif smaller == 0:
            others.append(Where(turned, 0, Where(first, larger, same)))
        else:
            others.append(Where(first, larger, Where(turned, smaller, same)))
    return cast("Expr", sp.Add(*others)) if groups else e


def sign_of_difference(x: Any, y: Any) -> Any:
    """sign(x - y), where x and y are multiples of one tensor by the sign of it; one sign for both orders.

    None for two multiples of one sign: those of infinity are equal, and the tensor is not 0. None for sums too: what is
    rounded away in `x + 1` and `y + 1`, which are equal then, is not in `x - y`.
    """
    if x.is_Add or y.is_Add:
        return None
    (a, s), (b, t) = (e.as_coeff_Mul() for e in (x, y))
    if s == t:
        return None if a * b > 0 else sp.sign(a - b) * Sign(s)
    difference = x - y
    return -Sign(-difference) if difference.could_extract_minus_sign() else Sign(difference)


__all__ = ["CHOSEN", "RULE", "as_sign", "chosen_together", "is_by_size"]
