"""Polynomials as products: `1 - a^2 - b^2 + a^2 b^2` is (1 - a^2) (1 - b^2), which is shorter and keeps its digits near 1."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy as sp
from sympy import Expr, Symbol

from codegen.closed.algebra.terms import powers, scalar_part
from engine.notation import Delta, holds

TERMS = range(3, 17)
"""How many terms a sum may have: of two only squares could be taken apart, and of more the search takes long."""

BASES = 4
"""How many tensors it may be in, each cubed at most: the search is quick then, and slopes of tanh are of this kind."""
FEW = 6
"""How many tensors and sums it may be in where it has no more terms than these."""


def factored(e: Expr) -> Expr:
    """A sum of products of elements with rational numbers as a product of sums; unchanged if it is none."""
    terms = sp.Add.make_args(e)
    if len(terms) not in TERMS or holds(e, Delta) or not all(scalar_part(t).is_Rational for t in terms):
        return e
    tables = [powers(t) for t in terms]
    if any(x not in (1, 2, 3) for t in tables for x in t.values()):
        return e
    bases = list(dict.fromkeys(b for t in tables for b in t))
    if len(bases) > (FEW if len(terms) <= FEW else BASES):
        return e
    marks = [Symbol(f"f{k}") for k in range(len(bases))]
    inner = _factored(e.xreplace(dict(zip(bases, marks, strict=True))))
    return e if inner is None else inner.xreplace(dict(zip(marks, bases, strict=True)))


@lru_cache(maxsize=2**12)
def _factored(e: Expr) -> Expr | None:
    number, found = sp.factor_list(e)
    factors: dict[Any, int] = dict(found)
    for f in list(factors):  # (a - 1) (a + 1) stays the one square that it is, as in 1 - tanh^2
        for g in list(factors):
            square = sp.expand(f * g)
            if f in factors and g in factors and f != g and factors[f] == factors[g] and len(square.args) <= 2:
                power = factors.pop(f)
                factors.pop(g)
                factors[square] = power
    if len(factors) < 2 and all(x == 1 for x in factors.values()):
        return None
    turned: list[Any] = []
    for f, x in factors.items():
        constant = f.as_coefficients_dict()[sp.S.One]
        turn = constant < 0 or (constant == 0 and f.could_extract_minus_sign())
        turned.append((-f if turn else f) ** x)
        number *= (-1) ** (x if turn else 0)
    return number * sp.Mul(*turned)
