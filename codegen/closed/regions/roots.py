# pyright: basic
"""Decimals that are roots to the last bit, read as the roots: `x / 1.4142135623730951` is x / sqrt 2, and what follows from that holds."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath
import sympy as sp

from codegen.formula import LONG

SMALL = 64
"""The largest denominator of a square that is taken for one."""
DIGITS = 40
BIT = 2.0**-52


def with_roots(e: Any) -> Any:
    """An expression with every decimal that a root of a small fraction, or of one times pi or over pi, rounds to as that root."""
    known = {r: root_of(r) for r in e.atoms(sp.Rational) if max(abs(r.p), r.q) > LONG}
    change = {r: root for r, root in known.items() if root is not None}
    return e.xreplace(change) if change else e


@lru_cache(maxsize=2**10)
def root_of(r: Any) -> Any:
    """The root that a number is to the last bit of a double; None where there is none."""
    with mpmath.workdps(DIGITS):
        value = mpmath.mpf(int(r.p)) / mpmath.mpf(int(r.q))
        for power, factor in ((0, mpmath.mpf(1)), (1, mpmath.pi), (-1, 1 / mpmath.pi)):
            square = value**2 / factor
            near = Fraction(mpmath.nstr(square, DIGITS // 2)).limit_denominator(SMALL)
            if near and abs(square - mpmath.mpf(near.numerator) / near.denominator) <= 2 * BIT * square:
                root = sp.sqrt(sp.Rational(near.numerator, near.denominator) * sp.pi**power)
                return None if root.is_Rational else root if r.is_positive else -root
    return None


__all__ = ["with_roots"]
