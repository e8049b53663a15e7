# pyright: basic
"""Sums of products with a factor that several terms have in front of what these terms are else: `a b + a c + d` is `a (b + c) + d`."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.factors import factored
from codegen.closed.algebra.terms import gathered, indices_of
from engine.indexed import Indexed
from engine.notation import Delta, holds


@lru_cache(maxsize=2**12)
def by_common_factors(e: Expr) -> Expr:
    """A sum of three or more products so, the factor that most of them have first; unchanged where no two have one.

    Only tensors over all of the sum's indices are taken: a product with such a one costs most.
    """
    terms = list(sp.Add.make_args(e))
    every = frozenset[Any]().union(*map(indices_of, terms))
    if len(terms) < 3 or holds(e, Delta):
        return e
    found = complements(terms)
    if len(found) < len(terms):
        return again(cast("Expr", sp.Add(*found)))
    tables = [{f for f in sp.Mul.make_args(t) if is_large(f, every)} for t in terms]
    counts = Counter(f for table in tables for f in table)
    best = max(counts, key=lambda f: (counts[f], str(f)), default=None)
    if best is None or counts[best] < 2:
        return by_smaller(terms, every)
    if counts[best] == len(terms):
        return e
    mine = cast("Expr", sp.Add(*[without(t, best) for t, table in zip(terms, tables, strict=True) if best in table]))
    others = cast("Expr", sp.Add(*[t for t, table in zip(terms, tables, strict=True) if best not in table]))
    return cast("Expr", best * again(mine) + again(others))


def without(term: Expr, *factors: Any) -> Expr:
    """A product without some of its factors."""
    return cast("Expr", sp.Mul(*[f for f in sp.Mul.make_args(term) if f not in factors]))


def by_smaller(terms: list[Any], every: frozenset[Any]) -> Expr:
    """A sum in which tensors that the same smaller one is multiplied with are added first: `a x + a y + z` is `a (x + y) + z`."""
    groups: dict[Any, list[Any]] = {}
    for t in terms:
        rest = t.as_coeff_Mul()[1]
        large = [f for f in sp.Mul.make_args(rest) if is_large(f, every)]
        small = without(rest, *large)
        groups.setdefault(small if len(large) == 1 and indices_of(small) else rest, []).append(t)
    together = {a: [t / a for t in group] for a, group in groups.items() if len(group) > 1}
    whole = [cast("Expr", a * sp.Add(*parts)) for a, parts in together.items() if in_units(parts)]
    alone = [t for a, group in groups.items() if a not in together or not in_units(together[a]) for t in group]
    return cast("Expr", sp.Add(*whole, *alone))


def in_units(parts: list[Any]) -> bool:
    """Whether tensors are added or subtracted as they are."""
    return all(abs(t.as_coeff_Mul()[0]) == 1 for t in parts)


def complements(terms: list[Any]) -> list[Any]:
    """The terms with `t - t s` as `t (1 - s)`, which keeps its digits where s is almost one, and `t - t s^2` as `t (1 - s^2)`."""
    factors = {t: parts_of(t) for t in terms}
    left = {key: t for t, key in factors.items()}
    out: list[Any] = []
    for other in terms:
        number, own = factors[other]
        for f, share in shares_of(other) if (number, own) in left else ():
            key = -number, (own - {f}) | ({f / share} - {sp.S.One})
            if key[1] and key in left:  # a number in front of a difference is put into it
                out.append(left.pop(key) * (1 - share))
                del left[number, own]
                break
    return [*out, *left.values()] if out else terms


def shares_of(term: Any) -> list[tuple[Any, Any]]:
    """The factors of a product that are a tensor or a power of one, each with the tensor, or its square, that is taken out."""
    found: list[tuple[Any, Any]] = []
    for f in sp.Mul.make_args(term):
        base, power = f.as_base_exp()
        if isinstance(base, Indexed) and power.is_Integer and power > 0:
            found.append((f, base if power == 1 else base**2))
    return found


def parts_of(term: Any) -> tuple[Expr, frozenset[Expr]]:
    """The number in front of a product, and its factors."""
    number, rest = term.as_coeff_Mul()
    return number, frozenset(sp.Mul.make_args(rest)) - {sp.S.One}


def again(e: Expr) -> Expr:
    """A part of a sum by its own common factors."""
    out = cast("Expr", factored(gathered(e)))
    return cast("Expr", sp.Mul(*[by_common_factors(f) if isinstance(f, sp.Add) else f for f in sp.Mul.make_args(out)]))


def is_large(f: Any, every: frozenset[Any]) -> bool:
    """Whether a factor is a tensor over all indices, or a power of it."""
    return isinstance(f.as_base_exp()[0], Indexed) and indices_of(f) == every


__all__ = ["by_common_factors"]
