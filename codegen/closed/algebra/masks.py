# pyright: basic
"""Products with what is zero where a condition does or does not hold: what cancels inside of a choice, brackets that say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.terms import is_monomial, powers
from codegen.closed.regions.cells import at
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Index, Less, Where, name_of

if TYPE_CHECKING:
    from codegen.closed.algebra.algebra import Algebra

ZERO = sp.S.Zero
MASKED = "what is masked is zero where the mask does not hold"


def within_choice(term: Any, ranges: dict[Index, Expr], algebra: Algebra) -> Any:
    """`z (a/z if c else 0)` is `a if c else 0`: what a product shares with a choice between it and zero cancels inside."""
    factors = list(Mul.make_args(term))
    choice = next((f for f in factors if isinstance(f, Where) and ZERO in f.args[1:]), None)
    if choice is None:
        return term
    condition, chosen, other = choice.args
    table = powers(cast("Expr", chosen if other == 0 else other))
    inside = [f for f in factors if f is not choice and any(table.get(b, ZERO) * x < 0 for b, x in powers(f).items())]
    if not inside:
        return term
    rest = [f for f in factors if f is not choice and f not in inside]
    branches = [ZERO if b == 0 else algebra.normal_form(Mul(*inside, b), ranges) for b in (chosen, other)]
    return Mul(*rest, Where(condition, *branches))


def unmasked(term: Any, algebra: Algebra) -> Any:
    """[c] p is p where p is made of exp(f if c else -oo) or of (f if c else 0): it is zero where c does not hold.

    So is 1 - [c] with what is made of the other mask, and [c] p is zero where p is zero wherever c holds.
    """
    factors = list(Mul.make_args(term))
    atoms = [a for a in map(rooted, factors) if isinstance(a, (Indexed, sp.exp))]
    for f in list(factors):
        number, b, positive = mask_of(f)
        if b is None:
            continue
        if any(vanishes(b, positive, a, algebra) for a in atoms):
            return ZERO
        if any(vanishes(b, not positive, a, algebra) for a in atoms):
            factors[factors.index(f)] = number
            algebra.note(MASKED)
    return Mul(*factors)


def masked_product(e: Any) -> Any:
    """[c] p of a choice between a product p of powers and zero; None for anything else."""
    if not isinstance(e, Where) or ZERO not in e.args[1:] or not isinstance(e.args[0], BRACKETS):
        return None
    condition, chosen, other = cast("Any", e.args)
    product = chosen if other == 0 else other
    return (condition if other == 0 else 1 - condition) * product if is_monomial(product) else None


def rooted(f: Any) -> Any:
    """x of a power of x with a positive exponent, which is zero where x is; anything else as it is."""
    is_power = isinstance(f, sp.Pow) and not isinstance(f, sp.exp)
    return f.base if is_power and f.exp.is_positive else f


def mask_of(f: Any) -> tuple[Any, Any, bool]:
    """(c, [b], whether it is c where b holds) of c [b] with c = 1, or of c - c [b]; (1, None, True) for anything else."""
    if isinstance(f, BRACKETS):
        return sp.S.One, f, True
    number, rest = f.as_coeff_Add() if isinstance(f, sp.Add) else (sp.S.Zero, f)
    bracket = -rest / number if number else None
    return (number, bracket, False) if isinstance(bracket, BRACKETS) else (sp.S.One, None, True)


def at_places(term: Any) -> Any:
    """A product with the truth `[0 < [j = y_i]]` as the equality that it is, where all others are brackets and one number.

    What is masked may else be infinite, and a difference of it and what it is at these places is not 0.
    """
    if not isinstance(term, Mul):
        return term
    for f in term.args:
        place = f.args[1] if isinstance(f, Less) and f.args[0] == 0 else None
        if not isinstance(place, Delta) or not place.has(Indexed):
            continue
        rest = Mul(*[g for g in term.args if g is not f])
        free = rest.xreplace({b: sp.Dummy() for b in rest.atoms(*BRACKETS)})
        if all(a.indices == (0,) and name_of(a).startswith("d_") for a in free.atoms(Indexed)) and plain(free):
            return at_places(rest * place)
    return term


def plain(e: Any) -> bool:
    """Whether an expression has no functions, and divides by sizes only."""
    return not e.has(sp.Function, sp.exp) and not any(p.exp.is_negative and p.has(Indexed) for p in e.atoms(sp.Pow))


def vanishes(bracket: Any, holds: bool, e: Any, algebra: Algebra, depth: int = 4) -> bool:
    """Whether an atom is zero wherever a bracket `holds`, or wherever it does not."""
    taken = 1 if holds else 2
    _, own, positive = mask_of(e)
    if own is not None:
        return holds != positive and agree(own, bracket, algebra)
    if isinstance(e, sp.exp):
        for inner in sp.Add.make_args(e.args[0]):
            cell = algebra.cells.get(name_of(inner)) if isinstance(inner, Indexed) else None
            inner = at(cell, cast("Any", inner).indices) if cell is not None and cell.expr is not None else inner
            masked = isinstance(inner, Where) and inner.args[taken] is sp.S.NegativeInfinity
            if masked and agree(inner.args[0], bracket, algebra):
                return True
        return False
    if isinstance(e, Where):
        return e.args[taken] == 0 and agree(e.args[0], bracket, algebra)
    cell = algebra.cells.get(name_of(e)) if isinstance(e, Indexed) else None
    if cell is None or cell.expr is None or depth == 0 or cell.expr.is_Add:
        return False
    return any(
        vanishes(bracket, holds, f, algebra, depth - 1)
        for f in map(rooted, Mul.make_args(at(cell, e.indices)))
        if isinstance(f, (Indexed, sp.exp, Where)) or mask_of(f)[1] is not None
    )


def agree(one: Any, other: Any, algebra: Algebra) -> bool:
    """Whether two brackets are the same, with products of powers written out."""
    return bool(one == other) or bool(algebra.lowered(one) == algebra.lowered(other))


__all__ = ["MASKED", "at_places", "masked_product", "unmasked", "within_choice"]
