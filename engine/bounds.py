"""What is known of sizes without their values: each is at least one, and what a trace needs not to be negative is checked."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy as sp
from sympy import Expr

from engine.notation import Quo, Rem

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable


SLICED = "a slice"
SPREAD = "a normalization in training (torch refuses one value per channel, whose variance is 0)"
SQUEEZED = "a squeeze (of one it would be taken out of the result; name the dimension that is of one)"
REASONS = {"squeeze": SQUEEZED, "batch_norm": SPREAD, "instance_norm": SPREAD}
"""What rows other than slices take bounds for granted for."""


@dataclass(frozen=True)
class Bound:
    """What a trace took for granted at `where`: that `expr` is not negative.

    As `n - 4` is where `x[:4]` has four rows, or where the forward asked whether n < 4, and it was not. `of` says which it was.
    """

    expr: Expr
    where: str
    of: str = SLICED


_checked: ContextVar[tuple[Expr, ...]] = ContextVar("_checked", default=())


@contextmanager
def checked(bounds: Iterable[Expr]) -> Generator[None]:
    """While code is written that is preceded by a check that none of these is negative."""
    before = _checked.set(tuple(bounds))
    try:
        yield
    finally:
        _checked.reset(before)


def nonnegative(e: Expr) -> bool:
    """Whether an expression in sizes (each at least 1) is certainly at least 0, which it is if it is no less than what is checked."""
    return certain(e) or any(certain(e - b) for b in _checked.get())


def certain(e: Expr) -> bool:
    """Whether an expression is at least 0 for all sizes from 1 on."""
    e = below(sp.expand(e))
    if e.is_nonnegative:
        return True
    e = e.xreplace({q: sp.Dummy(nonnegative=True) for q in e.atoms(Quo, Rem)})
    # sizes are >= 1: substitute s = 1 + t, t >= 0
    shifted = sp.expand(e.xreplace({s: s + 1 for s in e.free_symbols if not isinstance(s, sp.Dummy)}))
    return (
        all(c.is_nonnegative for c in sp.Poly(shifted, *e.free_symbols).coeffs())
        if e.free_symbols and shifted.is_polynomial()
        else False
    )


def below(e: Expr) -> Expr:
    """A lower bound of an expression: quotients that are subtracted are at most what was divided by what divides it."""
    for q in sorted(e.atoms(Quo), key=str):
        slope = e.coeff(q)
        if slope.is_number and slope.is_negative and not (e - slope * q).has(q):
            e = sp.expand(e - slope * q + slope * q.args[0] / q.args[1])
    return e
