# pyright: basic
"""Sums of the same, which differ in a number in front alone, as one: a sum beside its mean is that mean times how many there are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from codegen.closed.algebra.matching import fact_key
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.regions.cells import substituted

if TYPE_CHECKING:
    from collections.abc import Container

    from codegen.closed.regions.cells import Cell

RULE = "a sum beside another one of the same is a multiple of it"


def with_one_sum(cells: list[Cell], kept: Container[str] = ()) -> list[Cell]:
    """The cells without sums that are multiples of earlier ones, which readers read instead; what is `kept` is such a multiple."""
    known = {c.name: c for c in cells}
    first: dict[Any, tuple[Cell, Any, tuple[Any, ...]]] = {}
    gone: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        if c.expr is not None and any(r in gone for r in c.reads):
            c = replace(c, expr=substituted(c.expr, gone), text=None)
        number, total = reduction(c.expr) if c.expr is not None and not c.call else (None, None)
        if total is None or exponential(total.body, known):
            out.append(c)
            continue
        shape, free = fact_key(total)
        key = shape, c.dtype
        if key not in first:
            first[key] = c, number, free
            out.append(c)
            continue
        one, its, own = first[key]
        there = dict(zip(own, free, strict=True))
        same = cast("Any", number) / its * one.element([there.get(i, i) for i in one.indices])
        if c.name in kept or c.named:
            out.append(replace(c, expr=same, text=None))
        else:
            gone[c.name] = replace(c, expr=same)
    return out


__all__ = ["RULE", "with_one_sum"]
