# pyright: basic
"""Several products that differ in one factor alone are one, with a sum in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from codegen.closed.algebra.terms import indices_of
from engine.indexed import Indexed
from engine.notation import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sympy import Expr

    from codegen.closed.regroup.products import Product
    from engine.notation import Index


def as_one(products: tuple[Product, ...]) -> tuple[Product, int, list[Product]] | None:
    """One of the products, the place of a factor, and what is added to that factor so that the product is all of them.

    None where no such product is among them.
    """
    for k, one in enumerate(products):
        others = [*products[:k], *products[k + 1 :]]
        for place, own in enumerate(one.factors if len(one.factors) > 1 else ()):
            found = [added(one, place, p) for p in others]
            free = indices_of(own)
            if all(p is not None and open_indices(p) <= free for p in found):
                return one, place, cast("list[Product]", found)
    return None


def open_indices(p: Product) -> frozenset[Index]:
    """The indices that a product is not summed over."""
    return frozenset[Any]().union(*map(indices_of, p.factors)) - p.summed


def added(one: Product, place: int, other: Product) -> Product | None:
    """`r` so that `other` is `one` with r at the place of a factor; None where it has not all the other factors."""
    wanted = [f for k, f in enumerate(one.factors) if k != place]
    for mapping, left in matched(wanted, list(other.factors), {}, one, other):
        used = set(mapping)
        limits = tuple((i, n) for i, n in other.limits if i not in used)
        if {mapping[i] for i in used} != {i for i, _ in one.limits if any(i in indices_of(f) for f in wanted)}:
            continue
        if any(i not in mapping.values() for i in one.summed & indices_of(one.factors[place])):
            continue
        factors = tuple(cast("Expr", f.xreplace(mapping)) for f in left)
        return replace(other, number=other.number / one.number, limits=limits, factors=factors)
    return None


def matched(
    wanted: list[Expr], among: list[Expr], mapping: dict[Any, Any], one: Product, other: Product
) -> Iterator[tuple[dict[Any, Any], list[Expr]]]:
    """The ways to find factors among others, up to the names of what is summed over."""
    if not wanted:
        yield mapping, among
        return
    first = wanted[0]
    for k, f in enumerate(among):
        found = paired(first, f, mapping, one, other)
        if found is not None:
            yield from matched(wanted[1:], [*among[:k], *among[k + 1 :]], found, one, other)


def paired(f: Expr, g: Expr, mapping: dict[Any, Any], one: Product, other: Product) -> dict[Any, Any] | None:
    """The mapping with the summed indices of `g` as those of `f`; None where the two are not the same then."""
    if not isinstance(f, Indexed) or not isinstance(g, Indexed) or name_of(f) != name_of(g):
        return mapping if f == g else None
    out, sizes, others = dict(mapping), dict(one.limits), dict(other.limits)
    for i, j in zip(cast("Any", f.indices), cast("Any", g.indices), strict=True):
        if j in others:
            if i not in sizes or sizes[i] != others[j] or out.get(j, i) != i:
                return None
            if j not in out and i in out.values():
                return None
            out[j] = i
        elif i != j:
            return None
    return out


__all__ = ["as_one", "open_indices"]
