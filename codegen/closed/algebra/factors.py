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
    return number_inside(number, turned)


def number_inside(number: Any, factors: list[Any]) -> Any:
    """A product whose number is divided into one of its sums where that takes fewer digits: `x (10 y - 3)/10` is `x (y - 0.3)`."""
    for f in factors if number.is_Rational and number.q != 1 else ():
        if isinstance(f, sp.Add):
            inside = sp.Add(*[t / number.q for t in f.args])
            if digits_of(f) + digits_of(number) > digits_of(inside) + digits_of(number.p):
                return number.p * sp.Mul(*[inside if g is f else g for g in factors])
    return number * sp.Mul(*factors)


def digits_of(e: Any) -> int:
    """How many digits the numbers in front of a sum's terms take, where ones take none."""
    numbers = [abs(sp.sympify(t).as_coeff_Mul()[0]) for t in sp.Add.make_args(e)]
    return sum(len(f"{x.p}{x.q}") - 2 for x in numbers)
