# pyright: basic
"""Sizes that cancel in front of a sum and in its terms: `2 ((n/2 - 1/2) a + b (n/2 - 1/2) / (n - 1)) / (n - 1)` is `a + b / (n - 1)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import operations, scalar_part
from engine.indexed import Indexed

if TYPE_CHECKING:
    from sympy import Expr


def without_sizes(e: Any) -> Any:
    """An expression in which numbers in front of sums, and of their terms, have no sum of sizes above that is below as well."""
    if isinstance(e, Indexed) or not e.args or not any(map(of_sizes, e.atoms(sp.Add))):
        return e
    e = rebuilt(e, without_sizes)
    factors = Mul.make_args(e)
    total = next((f for f in factors if isinstance(f, sp.Add) and f.has(Indexed)), None)
    front = scalar_part(cast("Expr", e))
    if total is None:
        new = shorter(front)
        return e if new is front else new * e / front
    terms = sp.Add.make_args(total)
    scalars = [scalar_part(t) for t in terms]
    inside = [shorter(front * s) for s in scalars]
    if all(n == front * s for n, s in zip(inside, scalars, strict=True)) or operations(*inside) > operations(
        front, *scalars
    ):
        return e
    return e / (front * total) * sp.Add(*[n * (t / s) for n, s, t in zip(inside, scalars, terms, strict=True)])


def of_sizes(e: Any) -> bool:
    """Whether a sum is of sizes and numbers alone."""
    return not e.is_number and not e.has(Indexed)


def shorter(scalar: Any) -> Any:
    """A number with what cancels in it; itself where nothing does."""
    if not any(map(of_sizes, scalar.atoms(sp.Add))):
        return scalar
    new = sp.factor(sp.cancel(scalar))
    return new if operations(new) < operations(scalar) else scalar


__all__ = ["without_sizes"]
