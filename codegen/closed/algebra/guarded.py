# pyright: basic
"""What stands in a choice between it and zero: tensors defined by cases are the case that is left there.

Inside of `[l <= p <= h] (...)`, `clamp(p, l, h)` is p. So a cross entropy of clipped probabilities has the slope `p - y` where
nothing was clipped, as it has without a clip, and no difference of quotients that are almost equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.facts import divisors
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import expanded, indices_of
from codegen.closed.regions.cells import at, substituted
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Head, Sigma, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from codegen.closed.algebra.algebra import Algebra

RULE = "where the choice is made, the tensor is the case that is left"
DEPTH = 4
"""How far what a divisor is made of is looked into."""


def guarded(e: Expr, algebra: Algebra) -> Expr:
    """A sum with the terms that stand in the same choice simplified together by what holds in it."""
    if not e.has(Where, *BRACKETS) or e.has(Delta):
        return e
    groups: dict[frozenset[Any], list[Any]] = {}
    for t in sp.Add.make_args(e):
        groups.setdefault(frozenset(guards(t)), []).append(t)
    out: list[Any] = []
    for factors, terms in elsewhere(groups).items():
        inside = sp.Add(*[Mul(*[f for f in Mul.make_args(t) if f not in factors]) for t in terms])
        new = resolved(inside, known_in(factors), algebra) if factors else inside
        if new is not inside:
            algebra.note(RULE)
            terms = [Mul(t, *factors) for t in sp.Add.make_args(new)]
        out.extend(terms if factors in groups else map(expanded, terms))
    return cast("Expr", sp.Add(*out))


def elsewhere(groups: dict[frozenset[Any], list[Any]]) -> dict[frozenset[Any], list[Any]]:
    """The groups with `x - x [c]` as what stands in a choice, x where c does not hold: that is what relu passes back."""
    plain = groups.get(frozenset(), [])
    for factors in [k for k in groups if len(k) == 1 and isinstance(next(iter(k)), BRACKETS)]:
        (c,) = factors
        insides = [-t / c for t in groups[factors]]
        if plain and all(x in plain for x in insides):
            plain = [t for t in plain if t not in insides]
            groups = {k: v for k, v in groups.items() if k and k != factors}
            groups |= {frozenset[Any](): plain} if plain else {}
            groups[frozenset({1 - c})] = [Mul(x, 1 - c) for x in insides]
    return groups


def chosen_again(e: Expr, naive: Expr, algebra: Algebra) -> Expr:
    """What was chosen before, and is no longer, chosen again where it divides by what may be zero.

    `[x > 0] r / |r|` with r = relu(x) is `r / |r|` but where all of r is zero: there the first is zero, the second 0/0.
    """
    common = frozenset[Any].intersection(*[frozenset(guards(t)) for t in sp.Add.make_args(naive)])
    conditions = {f if isinstance(f, BRACKETS) else 1 - f: isinstance(f, BRACKETS) for f in common}
    lost = {c: holds for c, holds in conditions.items() if isinstance(c, BRACKETS) and not e.has(c)}
    if not lost or not any(may_be_zero(b, algebra) for t in sp.Add.make_args(e) for b in divisors(t, algebra)):
        return e
    for condition, holds in sorted(lost.items(), key=str):
        e = cast("Expr", Where(condition, e, 0) if holds else Where(condition, 0, e))
    return e


def chosen_first(e: Any) -> Any:
    """An expression in which `0 if c_j else x_ij y_j` is x_ij times the choice: a tensor is multiplied by what was chosen for its rows."""
    if isinstance(e, Indexed) or not e.args or not e.has(Where):
        return e
    e = rebuilt(e, chosen_first)
    if not isinstance(e, Where) or sp.S.Zero not in e.args[1:]:
        return e
    condition, chosen, other = e.args
    factors = Mul.make_args(other if chosen == 0 else chosen)
    large = [f for f in factors if isinstance(f, Indexed) and not indices_of(f) <= indices_of(condition)]
    rest = Mul(*[f for f in factors if f not in large])
    if not large or not indices_of(rest) <= indices_of(condition):
        return e
    return Mul(*large) * (Where(condition, 0, rest) if chosen == 0 else Where(condition, rest, 0))


def may_be_zero(e: Expr, algebra: Algebra) -> bool:
    """Whether nothing says that a divisor is positive, neither its own name nor what it is made of, as a sum of squares and 1e-6."""
    defined = {n: c for n, c in algebra.cells.items() if c.expr is not None}
    for _ in range(DEPTH):
        if e.is_positive:
            return False
        e = substituted(e, defined)
    return not e.is_positive


def guards(term: Any) -> list[Any]:
    """The factors of a product that are a truth value, or a choice between one and zero."""
    return [f for f in Mul.make_args(term) if truth(f)]


def truth(f: Any) -> bool:
    """Whether a factor is a truth value, its negation, or a choice between one of these and zero."""
    if isinstance(f, Where):
        return sp.S.Zero in f.args[1:] and all(a == 0 or all(map(truth, Mul.make_args(a))) for a in f.args[1:])
    return isinstance(f, BRACKETS) or isinstance(1 - f, BRACKETS)


def known_in(factors: Iterable[Any]) -> dict[Any, bool]:
    """What holds, and what does not, where none of these factors is zero."""
    known: dict[Any, bool] = {}
    for f in factors:
        if isinstance(f, Where):
            condition, chosen, other = f.args
            known[condition] = other == 0
            known.update(known_in(Mul.make_args(chosen if other == 0 else other)))
        elif isinstance(f, BRACKETS):
            known[f] = True
        else:
            known[1 - f] = False
    return known


def resolved(e: Expr, known: Mapping[Any, bool], algebra: Algebra) -> Expr:
    """An expression by what the tensors are that it reads, if that is simpler; else the same object."""
    change = {a: new for a in accesses(e) for new in [left(a, known, algebra)] if new is not None}
    if not change:
        return e
    shifted = dict(change)
    for a in accesses(e):
        cell = algebra.cells.get(name_of(a))
        if a not in change and cell is not None and cell.expr is not None and affine(cell.expr):
            shifted[a] = at(cell, a.indices)
    new = min((cancelled(put(e, c)) for c in (change, shifted)), key=size)  # of equals, what reads cells by their names
    return new if size(new) < size(e) and not new.has(sp.zoo, sp.nan) else e


def cancelled(e: Expr) -> Expr:
    """A rational function of what it reads with common factors cancelled, multiplied out."""
    atoms = sorted(atoms_of(e), key=str)
    symbols = {a: sp.Dummy(f"x{k}", positive=a.is_positive) for k, a in enumerate(atoms)}
    plain = sp.cancel(e.xreplace(symbols))
    return cast("Expr", expanded(sp.expand(plain.xreplace({v: k for k, v in symbols.items()}))))


def left(a: Any, known: Mapping[Any, bool], algebra: Algebra) -> Any:
    """What a tensor's element is in the case that is left, None where that is not told."""
    cell = algebra.cells.get(name_of(a))
    e = at(cell, a.indices) if cell is not None and cell.expr is not None else None
    if isinstance(e, Where):
        while isinstance(e, Where) and e.args[0] in known:
            e = e.args[1] if known[e.args[0]] else e.args[2]
        if isinstance(e, Where):
            return None
        further = left(e, known, algebra) if isinstance(e, Indexed) else None
        return e if further is None else further
    if e is not None and affine(e):
        (inner,) = accesses(e)
        new = left(inner, known, algebra)
        return None if new is None else e.xreplace({inner: new})
    return None


def put(e: Any, change: Mapping[Any, Any]) -> Any:
    """An expression with accesses outside of sums replaced."""
    if isinstance(e, Sigma):
        return e
    return change.get(e, e) if isinstance(e, Indexed) else rebuilt(e, lambda x: put(x, change))


def atoms_of(e: Any) -> set[Any]:
    """What a rational function is a function of: elements, sums and choices."""
    if isinstance(e, (Indexed, Head)):
        return {e}
    return {x for a in e.args for x in atoms_of(a)}


def affine(e: Expr) -> bool:
    """c0 + c1 * access, with numbers c0 and c1."""
    parts = [t for t in sp.Add.make_args(e) if accesses(t)]
    return (
        len(parts) == 1
        and len(sp.Add.make_args(e)) == 2
        and isinstance(cast("Any", parts[0]).as_coeff_Mul()[1], Indexed)
    )


def size(e: Expr) -> int:
    """How long an expression is."""
    return len(sp.Add.make_args(e)) + int(cast("Any", sp.count_ops(e)))


__all__ = ["affine", "chosen_again", "chosen_first", "guarded"]
