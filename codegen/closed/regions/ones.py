"""Functions of ones at places, as numbers there and elsewhere: `log(clamp([j = y], 1e-4))` is `(1 - [j = y]) log 1e-4`.

Entries that are 0 or 1 have two values under any function. Written as these, no tensor of ones is made, and a product with
it is taken where the ones are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Equal, Head, Index, Sigma, Where

if TYPE_CHECKING:
    from sympy import Expr

PLACES = (Delta, Equal)


LARGE = 100
"""A number that is added and taken away again costs what it is added to two digits."""


def of_ones(e: Expr) -> Expr:
    """An expression with functions of one equality of whole numbers as what they are where it holds and where it does not.

    What is large and cancels where a truth holds is a choice: `x - c + c [j <= i]` is x and a choice between 0 and -c.
    """
    if e.has(*BRACKETS):
        e = cast("Expr", apart(e))
    return cast("Expr", rewritten(e)) if e.has(*PLACES) else e


def apart(e: Any) -> Any:
    """An expression with large numbers in sums that a multiple of a truth takes away as choices by that truth."""
    if isinstance(e, (Indexed, *BRACKETS)) or not e.args or not e.has(*BRACKETS):
        return e
    e = rebuilt(e, apart)
    number, rest = e.as_coeff_Add() if isinstance(e, sp.Add) else (sp.S.Zero, e)
    if abs(number) < LARGE or not rest.has(Indexed):
        return e
    for t in sp.Add.make_args(rest):
        factor, truth = t.as_coeff_Mul()
        if factor == -number and isinstance(truth, BRACKETS):
            return rest - t + Where(truth, 0, number)
    return e


def rewritten(e: Any) -> Any:
    """The largest parts first."""
    if isinstance(e, (Indexed, *BRACKETS, Delta)) or not e.args or not e.has(*PLACES):
        return e
    found = two_values(e)
    if found is None:
        return rebuilt(e, rewritten)
    there, elsewhere, place = found
    return elsewhere + (there - elsewhere) * place


def two_values(e: Any) -> tuple[Any, Any, Any] | None:
    """What a function is where an equality holds and where it does not, and that; None where it depends on more, or is linear."""
    nonlinear = isinstance(e, (Where, sp.Pow, sp.exp)) or (isinstance(e, sp.Function) and not isinstance(e, Head))
    if not nonlinear or e.has(Sigma):
        return None
    places = {p for p in e.atoms(*PLACES) if p.free_symbols and not any(a.has(*PLACES) for a in p.args)}
    if len(places) != 1:
        return None
    (place,) = places
    there, elsewhere = (settled(sp.sympify(e.xreplace({place: sp.Integer(k)}))) for k in (1, 0))
    return (there, elsewhere, place) if all(map(is_plain_number, (there, elsewhere))) else None


def settled(e: Any) -> Any:
    """An expression without the question whether something made of sizes is zero that cannot be, as 1 / (n - 1)."""
    known = {x: sp.S.Zero for x in e.atoms(Equal) if x.args[1] == 0 and x.args[0].is_zero is False}
    return e.xreplace(known) if known else e


def is_plain_number(v: Any) -> bool:
    """Whether a value is a real number, or one that sizes decide."""
    if v.has(*BRACKETS, Where, Indexed) or any(isinstance(s, Index) for s in v.free_symbols):
        return False
    return bool(v.is_real) if v.is_number else v.is_finite is not False and v.is_real is not False


__all__ = ["of_ones"]
