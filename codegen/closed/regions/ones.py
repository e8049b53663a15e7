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


def of_ones(e: Expr) -> Expr:
    """An expression with functions of one equality of whole numbers as what they are where it holds and where it does not."""
    return cast("Expr", rewritten(e)) if e.has(*PLACES) else e


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
    return (there, elsewhere, place) if is_value(there) and is_value(elsewhere) else None


def settled(e: Any) -> Any:
    """An expression without the question whether something made of sizes is zero that cannot be, as 1 / (n - 1)."""
    known = {x: sp.S.Zero for x in e.atoms(Equal) if x.args[1] == 0 and x.args[0].is_zero is False}
    return e.xreplace(known) if known else e


def is_value(e: Any) -> bool:
    """Whether an expression is one real number, of sizes perhaps."""
    made = not e.has(Indexed, sp.zoo, sp.nan, *BRACKETS, Where) and not e.atoms(Index)
    return made and (bool(e.is_real) if e.is_number else e.is_real is not False)


__all__ = ["of_ones"]
