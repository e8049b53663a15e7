# pyright: basic
"""Terms that one condition chooses are one choice: `(a if c else 0) + [c] b + (0 if c else d)` is `a + b if c else d`.

So is `c b + d - c d` for a tensor c of truths: it is `b if c else d`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from engine.indexed import Indexed
from engine.notation import Delta, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.closed.algebra.algebra import Algebra

RULE = "what one condition chooses is chosen once"


def by_one_choice(e: Expr, algebra: Algebra) -> Expr:
    """A sum with such terms as one choice, for every condition by which one of them is chosen, and every tensor of truths."""
    terms = [with_place_in_front(t) for t in sp.Add.make_args(e)] if e.has(Delta) else list[Any](sp.Add.make_args(e))
    chosen = {w.args[0] for w in e.atoms(Where)} if len(terms) > 1 and e.has(Where) else set[Any]()
    given = {a for a in e.atoms(Indexed) if is_truth(a, algebra)} if len(terms) > 1 else set[Any]()
    for condition in sorted(chosen | given, key=str):
        found = {t: sides for t in terms for sides in [chosen_by(t, condition)] if sides is not None}
        whole = [-s[0] for t, s in found.items() if condition in Mul.make_args(t) and -s[0] in terms]
        chosen_in = [{f for f in Mul.make_args(t) if f == condition or condition in f.args} for t in found]
        apart = len(found) > 1 and not set[Any].intersection(*chosen_in)
        if not (whole or (apart and any(w.args[0] == condition for t in found for w in t.atoms(Where)))):
            continue
        holds, fails = (sp.Add(*[sides[k] for sides in found.values()], *whole) for k in (0, 1))
        algebra.note(RULE)
        terms = [*[t for t in terms if t not in found and t not in whole], in_front(Where(condition, holds, fails))]
    return cast("Expr", sp.Add(*terms))


def is_truth(e: Any, algebra: Algebra) -> bool:
    """Whether an access is to a tensor of truths."""
    cell = algebra.cells.get(name_of(e))
    return cell is not None and cell.kind == "bool"


def chosen_by(term: Any, condition: Any) -> tuple[Any, Any] | None:
    """What a term is where a condition holds and where it does not, one of which is zero; None where neither is."""
    if term.has(Delta):
        return None
    for f in Mul.make_args(term):
        rest = Mul(*[g for g in Mul.make_args(term) if g is not f])
        if f == condition:
            return rest, sp.S.Zero
        if isinstance(f, Where) and f.args[0] == condition and sp.S.Zero in f.args[1:]:
            return put(f.args[1], rest), put(f.args[2], rest)
    return None


def put(e: Any, factor: Any) -> Any:
    """A product with a factor, which stands in the branch of a choice that is not zero."""
    for f in Mul.make_args(e):
        if isinstance(f, Where) and sp.S.Zero in f.args[1:]:
            inner = factor * Mul(*[g for g in Mul.make_args(e) if g is not f])
            return Where(f.args[0], *[put(a, inner) for a in f.args[1:]])
    return factor * e


def with_place_in_front(e: Any) -> Any:
    """A term with the place that a choice's values are put to before it: they are put there once, whichever is chosen."""
    choices = [f for f in Mul.make_args(e) if isinstance(f, Where) and f.has(Delta)]
    placed: dict[Any, Any] = {f: in_front(f, lambda g: isinstance(g, Delta)) for f in choices}
    return e.xreplace(placed) if placed else e


def in_front(e: Any, kind: Callable[[Any], bool] = lambda f: not f.is_number) -> Any:
    """A choice with what all of its branches that are not zero are products of in front, if it is of a `kind`."""
    common = [f for f in shared(e) if kind(f)]
    for f in common:
        e = divided(e, f)
    return Mul(*common, e)


def shared(e: Any) -> list[Any]:
    """What all terms of an expression are products of, through its choices."""
    if isinstance(e, (Where, sp.Add)):
        parts = [shared(a) for a in e.args if a != 0] if e.is_Add else [shared(a) for a in e.args[1:] if a != 0]
        return [f for f in parts[0] if all(f in p for p in parts[1:])] if parts else []
    if isinstance(e, Mul):
        return list(dict.fromkeys(g for f in e.args for g in (shared(f) if isinstance(f, Where) else [f])))
    return [e]


def divided(e: Any, factor: Any) -> Any:
    """An expression without one of what is `shared` by its terms."""
    if e == 0:
        return e
    if isinstance(e, sp.Add):
        return sp.Add(*[divided(t, factor) for t in e.args])
    if isinstance(e, Where):
        return Where(e.args[0], *[divided(a, factor) for a in e.args[1:]])
    factors = list(Mul.make_args(e))
    k = factors.index(factor) if factor in factors else next(k for k, f in enumerate(factors) if factor in shared(f))
    factors[k] = sp.S.One if factors[k] == factor else divided(factors[k], factor)
    return Mul(*factors)


__all__ = ["by_one_choice"]
