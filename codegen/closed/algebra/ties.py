# pyright: basic
"""Which of two numbers is larger, as a sign: `p if y < x else (q if x < y else (p + q)/2)` is `(p + q)/2 + (p - q)/2 sign(x - y)`.

This is how a maximum passes back, half to each where they are equal; choices by the same comparison add up so. It holds for
`inf - inf` too, which torch gives the sign 0, and where a nan makes both comparisons false.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Expr

from engine.notation import Less, Sign, Where

RULE = "which of two is larger is the sign of their difference"


def as_sign(e: Where) -> Expr | None:
    """A choice between numbers by which of two is larger, with their mean where neither is; None for any other choice."""
    condition, one, rest = e.args
    if not (isinstance(condition, Less) and isinstance(rest, Where) and isinstance(rest.args[0], Less)):
        return None
    turned, other, mean = rest.args
    if turned.args != condition.args[::-1] or not (one.is_number and other.is_number):
        return None
    sign = sign_of_difference(condition.args[1], condition.args[0]) if mean == (one + other) / 2 else None
    return None if sign is None else mean + (one - other) / 2 * sign


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


__all__ = ["RULE", "as_sign"]
