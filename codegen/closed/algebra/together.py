# pyright: basic
"""Products that are added and have all tensors but one in common: `D x + Dᵀ x` is `(D + Dᵀ) x`, one product instead of two.

So is a number in front of a product multiplied into the smallest of its tensors, where that is smaller than what comes out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import sympy as sp
from sympy import Expr, Mul, Tuple

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regroup.factored import as_one
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from codegen.closed.regroup.products import Product
    from engine.notation import Index


def together(products: list[Product], out: float, elements: Callable[[Iterable[Index]], float]) -> list[Product]:
    """The products with those joined that cost less so. `out` is how many elements each of them has in the end."""
    found: dict[int, Product] = dict(enumerate(products))
    reading: dict[str, list[int]] = {}
    for k, p in found.items():
        for name in names_of(p):
            reading.setdefault(name, []).append(k)
    for k in range(len(products)):
        alike = dict.fromkeys(j for name in names_of(products[k]) for j in reading[name] if j > k)
        for j in alike:
            one = joined(found[k], found[j], out, elements) if k in found and j in found else None
            if one is not None:
                found[k] = one
                del found[j]
    return list(found.values())


def names_of(p: Product) -> list[str]:
    """The tensors that a product reads."""
    return list(dict.fromkeys(name_of(a) for f in p.factors for a in accesses(f)))


def joined(p: Product, q: Product, out: float, elements: Callable[[Iterable[Index]], float]) -> Product | None:
    """Two products as one; None where there is none, or where adding what differs costs as much as the second product."""
    if not (p.limits and q.limits):
        return None
    found = as_one((p, q))
    if found is None:
        return None
    one, place, (rest,) = found
    own = one.factors[place]
    if rest.limits or indices_of(Mul(*rest.factors)) != indices_of(own):
        return None
    small = elements(indices_of(own))
    saved = sum(elements(indices_of(f)) for f in one.factors) + out + 3 * out
    if 3 * small >= saved:
        return None
    added = cast("Expr", sp.Add(own, rest.number * Mul(*rest.factors)))
    return replace(one, factors=(*one.factors[:place], added, *one.factors[place + 1 :]))


def written(p: Product, out: float, elements: Callable[[Iterable[Index]], float]) -> Expr:
    """A product as an expression, its number where it is multiplied with least."""
    body = Mul(*p.factors)
    if not p.limits:
        return p.number * body
    limits = [Tuple(i, n) for i, n in p.limits]
    if moves(p, out, elements):
        return cast("Expr", Sigma(p.number * body, *limits))
    return p.number * Sigma(body, *limits)


def moves(p: Product, out: float, elements: Callable[[Iterable[Index]], float]) -> bool:
    """Whether the number in front of a product is multiplied into a tensor that is smaller than the product."""
    small = min((elements(indices_of(f)) for f in p.factors), default=out)
    return bool(p.limits) and p.number not in (1, -1) and len(p.factors) > 1 and small < out


__all__ = ["moves", "together", "written"]
