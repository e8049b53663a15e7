# pyright: basic
"""What is added to a quotient, over the same denominator where that cancels: `1 + e / (1 - e)` is `1 / (1 - e)`.

One quotient takes fewer operations, and its numerator has the digits that the sum loses.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import BRACKETS, Sign, accesses, parts

if TYPE_CHECKING:
    from sympy import Expr

RULE = "what is added to a quotient is taken over its denominator where that cancels"
TERMS = 12
"""How many terms a sum may have, all pairs of which are tried."""


def over_one(e: Expr) -> Expr:
    """An expression with two terms of every sum as one quotient where its numerator is a product; the same object where none are."""
    return cast("Expr", joined(e)) if any(map(divides, parts(e, sp.Pow))) else e


def joined(e: Any) -> Any:
    """Inner sums first. What is compared stays what it is."""
    if isinstance(e, (Indexed, Sign, *BRACKETS)) or not e.args:
        return e
    e = rebuilt(e, joined)
    while isinstance(e, sp.Add) and len(e.args) <= TERMS:
        pairs = ((t, u, one) for t, u in permutations(e.args, 2) for one in [one_quotient(t, u)] if one is not None)
        found = next(pairs, None)
        if found is None:
            return e
        t, u, one = found
        e = sp.Add(one, *[x for x in e.args if x not in (t, u)])
    return e


def one_quotient(t: Any, u: Any) -> Expr | None:
    """t + u as one quotient over a sum that u is divided by; None where the numerator would be a sum."""
    for below in [p.base for p in sp.Mul.make_args(u) if divides(p)]:
        top = sp.expand(t * below + sp.expand_mul(u * below))
        if not isinstance(top, sp.Add):
            return cast("Expr", top / below)
    return None


def divides(p: Any) -> bool:
    """Whether a factor is a sum of tensors to a whole negative power."""
    base, exponent = p.as_base_exp()
    return isinstance(base, sp.Add) and bool(exponent.is_Integer and exponent < 0) and bool(accesses(base))


__all__ = ["RULE", "over_one"]
