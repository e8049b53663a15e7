# pyright: basic
"""Definitions as sums of products, `2 Sum_j a[i,j] b[j,k]`: what may be multiplied and summed in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.terms import indices_of
from engine.indexed import Indexed
from engine.notation import BINDERS, Head, Index, Less, Sigma, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Container

Limits = tuple[tuple[Index, Expr], ...]


@dataclass(frozen=True)
class Product:
    """`number` times the sum over `limits` of all factors. What is squared is there twice."""

    number: Expr
    limits: Limits
    factors: tuple[Expr, ...]

    @property
    def summed(self) -> frozenset[Index]:
        """The indices that are summed over."""
        return frozenset(i for i, _ in self.limits)

    def reads(self, names: Container[str]) -> list[int]:
        """The positions of factors that are tensors of these names."""
        return [k for k, f in enumerate(self.factors) if isinstance(f, Indexed) and name_of(f) in names]

    def put(self, k: int, other: Product) -> Product:
        """The product with a sum of products, whose bound indices are its own, in the place of a factor."""
        factors = (*self.factors[:k], *other.factors, *self.factors[k + 1 :])
        return Product(self.number * other.number, (*self.limits, *other.limits), factors)

    def renamed(self, where: dict[Any, Any]) -> Product:
        """At other indices, with fresh bound ones."""
        own = {**where, **{i: fresh() for i, _ in self.limits}}
        return Product(
            self.number,
            tuple((own[i], n) for i, n in self.limits),
            tuple(cast("Expr", f.xreplace(own)) for f in self.factors),
        )


def terms(e: Expr) -> tuple[Product, ...] | None:
    """An expression as a sum of products; None where it is none, or reads a tensor at other than index symbols."""
    out: list[Product] = []
    for t in sp.Add.make_args(e):
        found = product_terms(t)
        if found is None:
            return None
        out.extend(found)
    return tuple(out)


def product_terms(e: Expr) -> tuple[Product, ...] | None:
    """One product as products: more than one where it is a sum over a sum."""
    number, factors = sp.S.One, []
    inner: tuple[Product, ...] | None = None
    for f in sp.Mul.make_args(e):
        power = cast("Any", f)
        if isinstance(f, Sigma):
            if inner is not None:
                return None
            inner = terms(f.body)
            if inner is None:
                return None
            limits = tuple((i, n) for i, n in f.limits)
            inner = tuple(Product(p.number, (*limits, *p.limits), p.factors) for p in inner)
        elif isinstance(f, Indexed):
            if not read_plainly(f):
                return None
            factors.append(f)
        elif f.is_Pow and isinstance(power.base, Indexed) and power.exp.is_Integer and power.exp > 0:
            if not read_plainly(power.base):
                return None
            factors.extend([power.base] * int(power.exp))
        elif not accesses(f) and not indices_of(f):
            number = number * f
        elif is_bracket(f):
            factors.append(f)
        elif f.has(Head, *BINDERS) or not all(map(read_plainly, accesses(f))):
            return None
        else:
            factors.append(f)
    one = Product(number, (), tuple(factors))
    return (one,) if inner is None else tuple(one.put(len(one.factors), p) for p in inner)


def is_bracket(f: Expr) -> bool:
    """Whether a factor is `[i <= j]` or `[i < j]` of two indices: a triangle of what has both, a running sum of what has one."""
    return isinstance(f, Less) and all(isinstance(i, Index) for i in f.args) and len(set(f.args)) == 2


def read_plainly(a: Indexed) -> bool:
    """Whether a tensor is read at index symbols, each once, or at the only place of a dimension of size one."""
    at = [i for i in cast("Any", a.indices) if i != 0]
    return all(isinstance(i, Index) for i in at) and len(set(at)) == len(at)


__all__ = ["Limits", "Product", "is_bracket", "product_terms", "terms"]
