# pyright: basic
"""Sums over the terms of a tensor that is there as the sum of the tensor: with a = (1 + s) g / 2, `Sum s g` is `2 Sum a - Sum g`.

So the two gradients that a maximum passes on to what is broadcast, `Sum (1 + s) g / 2` and `Sum (1 - s) g / 2`, are `Sum a` and
`Sum g - Sum a`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.matching import fact_key, matched
from codegen.closed.plan.prices import sums_of
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, accesses, base, element, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.plan.backward import Statement

RULE = "sums over all terms of a tensor that is there are its sum"
TERMS = 3
"""How many terms a tensor may have."""


def by_wholes(statements: list[Statement]) -> list[Statement]:
    """Statements whose sums are written so, where every term of a tensor that another statement makes is summed alike."""
    for s in statements:
        terms = terms_of(s)
        for other in statements if terms else ():
            if other is s or other.name in needed_by(s, statements):
                continue
            found = next(
                (x for t in sums_of(other.expr) for x in [as_whole(t, s, terms, statements)] if x is not None), None
            )
            if found is not None:
                total, rest = found
                change = same_as(total, rest, statements)
                return by_wholes(
                    [t if t is s or t.name in needed_by(s, statements) else put(t, change) for t in statements]
                )
    return statements


def terms_of(s: Statement) -> list[tuple[Any, Any]]:
    """What a tensor adds up, as numbers and what they multiply; nothing where it is one term, or sums or is filled."""
    if not s.shape or s.expr.has(Sigma, Delta):
        return []
    terms = [cast("Any", t).as_coeff_Mul() for t in sp.Add.make_args(sp.expand(s.expr))]
    own = {i for i in s.indices if i != 0}
    whole = all(own <= t.free_symbols and t.has(Indexed) for _, t in terms)
    return terms if 1 < len(terms) <= TERMS and whole and all(k.is_Rational for k, _ in terms) else []


def as_whole(
    total: Sigma, s: Statement, terms: list[tuple[Any, Any]], statements: list[Statement]
) -> tuple[Any, Any] | None:
    """A sum that is one over the longest term of a tensor, and what it is by the sum of that tensor and sums that are there."""
    k, longest = max(terms, key=lambda t: (len(Mul.make_args(t[1])), str(t[1])))
    own = {cast("Any", i) for i in s.indices if i != 0}
    there = matched(longest, total.body, own)
    if there is None or set(there) != own or not {i for i, _ in total.limits} <= set(there.values()):
        return None
    others = [(n, Sigma(t.xreplace(there), *total.limits)) for n, t in terms if t is not longest]
    known = {fact_key(x)[0] for t in statements for x in sums_of(t.expr)}
    if not all(isinstance(x, Sigma) and fact_key(x)[0] in known for _, x in others):
        return None
    whole = Sigma(element(base(s.name), [there.get(i, i) for i in s.indices]), *total.limits)
    return total, (whole - sp.Add(*[n * x for n, x in others])) / k


def same_as(total: Any, rest: Any, statements: list[Statement]) -> dict[Any, Any]:
    """Every sum in the statements that is this one, whatever its indices are called, and what it is."""
    key, free = fact_key(total)
    found: dict[Any, Any] = {}
    for x in (x for s in statements for x in sums_of(s.expr)):
        its, own = fact_key(x)
        if its == key:
            found[x] = rest.xreplace(dict(zip(free, own, strict=True)))
    return found


def put(s: Statement, change: dict[Any, Any]) -> Statement:
    """A statement with such sums replaced; the rule is added."""
    expr = cast("Expr", s.expr.xreplace(change))
    return s if expr == s.expr else replace(s, expr=sp.expand(expr), rules=(*s.rules, RULE))


def needed_by(s: Statement, statements: list[Statement]) -> set[str]:
    """The statements that one is computed from."""
    by_name = {t.name: t for t in statements}
    found: set[str] = set()
    stack = [s]
    while stack:
        reads = {name_of(a) for a in accesses(stack.pop().expr)} & {*by_name} - found
        found |= reads
        stack.extend(by_name[n] for n in reads)
    return found


__all__ = ["RULE", "by_wholes"]
