# pyright: basic
"""Sums of the same, which differ in a number in front alone, as one: a sum beside its mean is that mean times how many there are.

What is summed is the same, too, where one sum reads a product that the other one writes out. Of what is symmetric in a pair,
the sum over the first is that over the second. A sum over rows and columns beside one over rows is the sum of that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.mirrored import parities, turned
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Sigma

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from codegen.closed.regions.cells import Cell

RULE = "a sum beside another one of the same is a multiple of it"


def with_one_sum(cells: list[Cell], kept: Container[str] = ()) -> list[Cell]:
    """The cells without sums that are multiples of earlier ones, which readers read instead; what is `kept` is such a multiple."""
    known = {c.name: c for c in cells}
    first: dict[Any, tuple[Cell, Any, tuple[Any, ...]]] = {}
    gone: dict[str, Cell] = {}
    out: list[Cell] = []
    pairs = parities(cells)
    products = {c.name: c for c in cells if c.kind == "float" and not c.call and is_product(c.expr)}
    for c in cells:
        if c.expr is not None and any(r in gone for r in c.reads):
            c = replace(c, expr=substituted(c.expr, gone), text=None)
        number, total = reduction(c.expr) if c.expr is not None and not c.call else (None, None)
        if total is None or exponential(total.body, known):
            out.append(c)
            continue
        sign, own_total = turned(total, pairs)
        shape, free = fact_key(substituted(own_total, products))
        key = shape, c.dtype
        if key not in first:
            c = of_sums(c, total, first, pairs, products)
            first[key] = c, number * sign, free
            out.append(c)
            continue
        one, its, own = first[key]
        there = dict(zip(own, free, strict=True))
        same = cast("Any", number) * sign / its * one.element([there.get(i, i) for i in one.indices])
        if c.name in kept or c.named:
            out.append(replace(c, expr=same, text=None))
        else:
            gone[c.name] = replace(c, expr=same)
    return out


def is_product(e: Any) -> bool:
    """Whether an expression is a product of elements, or of powers of such."""
    factors = sp.Mul.make_args(e) if isinstance(e, (sp.Mul, sp.Pow)) and not isinstance(e, sp.exp) else ()
    return bool(factors) and all(isinstance(f.as_base_exp()[0], Indexed) for f in factors)


def of_sums(
    c: Cell,
    total: Sigma,
    first: Mapping[Any, tuple[Cell, Any, tuple[Any, ...]]],
    pairs: Mapping[str, int],
    products: dict[str, Cell],
) -> Cell:
    """A cell that sums over several axes as the sum of one that sums over some of them, where that is there."""
    for k in range(len(total.limits)) if len(total.limits) > 1 else ():
        rest = [x for m, x in enumerate(total.limits) if m != k]
        sign, part = turned(cast("Sigma", Sigma(total.body, total.limits[k])), pairs)
        shape, free = fact_key(substituted(part, products))
        if (shape, c.dtype) in first:
            one, its, own = first[shape, c.dtype]
            there = dict(zip(own, free, strict=True))
            inner = one.element([there.get(i, i) for i in one.indices])
            return replace(c, expr=cast("Any", c.expr) / total * sign / its * Sigma(inner, *rest), text=None)
    return c


__all__ = ["RULE", "with_one_sum"]
