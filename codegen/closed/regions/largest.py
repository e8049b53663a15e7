# pyright: basic
"""Calls that stand in the way of the algebra and need not: a detached tensor that nothing else reads, a maximum's place.

`exp(z - z.max(1, keepdim=True).values.detach())` is what most people write before a softmax. The maximum's derivative asks where
it is; but nothing is passed back to what is detached, nor to what the result does not change with, and then its value is enough.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from engine.indexed import Indexed
from engine.notation import BRACKETS, Amax, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from codegen.closed.regions.cells import Cell
    from engine.graph import Graph

DETACHED = "a tensor that is only read detached is its own copy: nothing is passed back to it"
LARGEST = "the largest value that nothing is passed back to needs no place"


def without_detached(cells: list[Cell], outputs: Collection[str]) -> list[Cell]:
    """The cells, without the detached copies of tensors that are read for them alone, or have no gradient anyway.

    Nothing is passed back to what is compared, detached or not.
    """
    known = {c.name: c for c in cells}
    gone: dict[str, str] = {}
    compared: dict[str, str] = {}
    for d in cells:
        if d.node is None or d.node.op != "detach" or d.expr is not None or d.name in outputs or d.after:
            continue
        x = known.get(d.node.operands[0])
        if x is None or x.dtype != d.dtype or d.kind != "float":
            continue
        mine = readers(d, cells)
        if any(r.expr is None for r in mine):
            continue
        if mine and all(only_compared(d.name, r) for r in mine):
            compared[d.name] = x.name
            continue
        if x.expr is None or x.name in outputs:
            continue
        if not x.differentiable or [r.name for r in readers(x, cells)] == [d.name]:
            gone[d.name] = x.name
    if compared:
        cells = [reading_instead(c, compared, known) for c in cells if c.name not in compared]
    if not gone:
        return cells
    out = [reading_instead(c, gone, known) for c in cells if c.name not in gone]
    still = {*gone.values()}
    for k, c in reversed([*enumerate(out)]):
        mine = [r for r in readers(c, out) if r.differentiable]
        if c.name in still or (c.differentiable and c.expr is not None and not mine and c.name not in outputs):
            out[k] = replace(c, differentiable=False)
    return out


def only_compared(name: str, c: Cell) -> bool:
    """Whether all that a cell reads of a tensor is compared."""
    e = cast("Any", c.expr)
    return not c.call and not accesses(e.xreplace({b: sp.Dummy() for b in e.atoms(*BRACKETS)}), name)


def reading_instead(c: Cell, gone: dict[str, str], known: dict[str, Cell]) -> Cell:
    """A cell that reads tensors in the place of their copies."""
    if c.expr is None or not any(r in gone for r in c.reads):
        return c
    there = {a: known[gone[name_of(a)]].element(a.indices) for a in accesses(c.expr) if name_of(a) in gone}
    return replace(c, expr=cast("Any", c.expr).xreplace(there), call=False, text=None)


def without_places(cells: list[Cell], graph: Graph) -> list[Cell]:
    """The cells, in which a maximum without a gradient is its value, where nothing else reads its place."""
    known = {c.name: c for c in cells}
    new: dict[str, Cell] = {}
    gone: set[str] = set()
    for c in cells:
        place = place_of(c, known)
        if place is None or c.differentiable or not {place.name, c.name}.isdisjoint(graph.outputs):
            continue
        if [r.name for r in readers(place, cells)] == [c.name]:
            new[c.name] = replace(c, expr=largest(c, graph), call=False, text=None)
            gone.add(place.name)
    return [new.get(c.name, c) for c in cells if c.name not in gone] if new else cells


def place_of(c: Cell, known: dict[str, Cell]) -> Cell | None:
    """The places that `max` found, where a cell is the values that it found there."""
    e = c.expr
    if not isinstance(e, Indexed) or c.node is None or c.node.op != "max" or c.node.output != 0:
        return None
    inside = [i for i in e.indices if isinstance(i, Indexed)]
    place = known.get(name_of(inside[0])) if len(inside) == 1 else None
    return place if place is not None and place.node is not None and place.node.call is c.node.call else None


def largest(c: Cell, graph: Graph) -> Amax:
    """The largest value over the dimension along which the places are."""
    node, i = cast("Any", c.node), fresh()
    (place,) = [k for k, at in enumerate(node.template.expr.indices) if isinstance(at, Indexed)]
    size = graph[node.operands[0]].shape[place]
    access = cast("Any", c.expr)
    return Amax(access.func(access.base, *[i if isinstance(at, Indexed) else at for at in access.indices]), (i, size))


def readers(x: Cell, cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are computed from one."""
    return [c for c in cells if x.name in c.reads or (c.node is not None and c.call and x.name in c.node.operands)]


__all__ = ["DETACHED", "LARGEST", "without_detached", "without_places"]
