# pyright: basic
"""Sums over both of a pair that are each other's opposite: `Sum_ij w_ij x_i - Sum_ij w_ij x_j` is zero where w is symmetric.

So whatever is added to all rows alike, before their distances from one another are taken, has gradient zero.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import by_shape
from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Sigma, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "what pairs say of one another cancels in a sum over both"
PAIRS = 4
"""How many tensors of pairs a product may have: each is tried both ways."""


def without_opposites(e: Expr, known: Mapping[str, int]) -> Expr:
    """An expression without sums that are zero or cancel for the parity of tensors of pairs; the same object where none are."""
    return cast("Expr", cancelled(e, known)) if known and e.has(Sigma) else e


def cancelled(e: Any, known: Mapping[str, int]) -> Any:
    """The same object where nothing cancels."""
    if isinstance(e, Indexed) or not e.args or not e.has(Sigma):
        return e
    e = rebuilt(e, lambda a: cancelled(a, known))
    totals: dict[Any, Any] = {}
    like: dict[Any, list[Any]] = {}
    for t in sp.Add.make_args(e):
        key, number = shape_of(t, known)
        totals[key] = totals.get(key, 0) + number
        like.setdefault(key, []).append(t)
    gone = [t for key, terms in like.items() if totals[key] == 0 for t in terms]
    return sp.Add(*[t for t in sp.Add.make_args(e) if t not in gone]) if gone else e


def shape_of(t: Any, known: Mapping[str, int]) -> tuple[Any, Any]:
    """What a product with a sum is, whichever way its pairs are read, and the number in front: 0 where it is its own opposite."""
    sums = [f for f in Mul.make_args(t) if isinstance(f, Sigma)]
    if len(sums) != 1:
        return t, sp.S.One
    limits, body = flat(cast("Sigma", instantiate(sums[0], {})))
    inside = {i for i, _ in limits}
    pairs = [
        a for a in sorted(body.atoms(Indexed), key=str) if name_of(a) in known and inside.issuperset(a.indices[:2])
    ]
    if not pairs or len(pairs) > PAIRS or not isinstance(body, (Mul, Indexed)):
        return t, sp.S.One
    found: dict[Any, set[Any]] = {}
    for ways in product((False, True), repeat=len(pairs)):
        turn = {a: turned(a, known) for a, way in zip(pairs, ways, strict=True) if way}
        number, rest = body.xreplace(turn).as_coeff_Mul()
        found.setdefault(by_shape(cast("Expr", Sigma(rest, *limits))), set()).add(number)
    key = min(found, key=sp.default_sort_key)
    number, front = cast("Any", t / sums[0]).as_coeff_Mul()
    return (front, key), sp.S.Zero if len(found[key]) > 1 else number * found[key].pop()


def turned(a: Any, known: Mapping[str, int]) -> Any:
    """An element of a tensor of pairs by the one for the pair the other way round."""
    return known[name_of(a)] * a.func(a.base, a.indices[1], a.indices[0], *a.indices[2:])


def flat(total: Any) -> tuple[list[Any], Any]:
    """The limits and the body of a sum with those that are factors of its body taken in."""
    limits, factors = [*total.limits], list[Any]()
    for f in Mul.make_args(total.body):
        inner, body = flat(f) if isinstance(f, Sigma) else ([], f)
        limits += inner
        factors.append(body)
    return limits, Mul(*factors)


__all__ = ["RULE", "without_opposites"]
