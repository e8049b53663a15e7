# pyright: basic
"""Tensors that are the same all along an axis, as `ones(n, n)/n @ x` is, with one entry there: what reads them broadcasts it.

Their readers may then be the same along it, too, and what is passed back to them is summed over the axis once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import Cell, is_contraction
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from engine.indexed import Indexed

RULE = "what is the same all along an axis has one entry there"


def with_one_row(cells: list[Cell], kept: Collection[str]) -> list[Cell]:
    """The cells, those of them that are the same along an axis with one entry there; but not `kept` ones, nor what a call reads."""
    whole = {*kept, *whole_ones(cells)}
    along: dict[str, tuple[int, ...]] = {}
    out: list[Cell] = []
    for c in cells:
        new = narrowed(c, along)
        axes = () if c.name in whole else same_along(new)
        if axes:
            along[c.name] = axes
            indices, shape = (
                tuple(one if k in axes else x for k, x in enumerate(xs))
                for one, xs in ((sp.S.Zero, new.indices), (sp.S.One, new.shape))
            )
            new = replace(new, indices=indices, shape=shape, node=None, text=None)
        out.append(new)
    return out if along else cells


def whole_ones(cells: Sequence[Cell]) -> set[str]:
    """The tensors that are read with the shape that they have: by calls, and by products, whose factors are matrices."""
    found: set[str] = set()
    for c in cells:
        if c.call and c.node is not None:
            found.update(c.node.operands)
        if c.call or c.expr is None or is_contraction(c.expr):
            found.update(c.reads)
    return found


def same_along(c: Cell) -> tuple[int, ...]:
    """The axes on which the place does not matter to a definition."""
    if c.expr is None or c.call or c.kind != "float" or not accesses(c.expr):
        return ()
    used = c.expr.free_symbols
    return tuple(k for k, i in enumerate(c.indices) if i != 0 and i not in used)


def narrowed(c: Cell, along: dict[str, tuple[int, ...]]) -> Cell:
    """A cell that reads the one entry of tensors that have one."""
    if c.expr is None or c.call or not any(n in along for n in c.reads):
        return c
    there = {
        a: cast("Any", a).func(
            cast("Any", a).base, *[0 if k in along[name_of(a)] else i for k, i in enumerate(a.indices)]
        )
        for a in cast("list[Indexed]", accesses(c.expr))
        if name_of(a) in along
    }
    return replace(c, expr=c.expr.xreplace(there))


__all__ = ["RULE", "with_one_row"]
