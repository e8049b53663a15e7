# pyright: basic
"""Exponentials with a label's complement for a weight, as one where that is zero: `(1 - y) exp(f)` is `(1 - y) exp(f if y != 1 else 0)`.

Of `y a + (1 - y) b` one may be meant alone. Zero times what has overflown is undefined in floats, and so is what it is added to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.terms import indices_of
from codegen.closed.definitions.completed import without
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import BRACKETS, Delta, Equal, Sigma, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.region import Region
    from engine.notation import Index

RULE = "what an exponential is where it is multiplied by zero does not matter: it is one there"


def by_zero_weights(region: Region, kept: tuple[str, ...]) -> Region | None:
    """The region with such exponentials; None where there is none. A weight with a gradient stays, for its own is not zero."""
    before = list(region.cells)
    known = {c.name: c for c in before}
    moving = {*region.wanted}
    for c in before:
        moving |= {c.name} if c.differentiable and moving & {*c.reads} else set()
    taken = {*known}
    moving |= {*known} - labels(before)
    cells = [d for c in before for d in weighted(c, known, moving, taken)]
    return region.by(RULE, lambda _: without(cells, before, kept)) if len(cells) > len(before) else None


def labels(cells: list[Cell]) -> set[str]:
    """The cells whose complement, `1 - y`, is a cell or a factor of one, and the cells that are such complements."""
    found: set[str] = set()
    for c in cells:
        for e in Mul.make_args(c.expr) if c.expr is not None and not c.call else ():
            y = 1 - e
            if isinstance(y, Indexed):
                found |= {name_of(y), c.name}
    return found


def weighted(c: Cell, known: Mapping[str, Cell], moving: set[str], taken: set[str]) -> tuple[Cell, ...]:
    """A product of an exponential with such weights after that exponential; any other cell alone."""
    if c.expr is None or c.call or c.kind != "float" or not isinstance(c.expr, Mul) or c.expr.has(Sigma):
        return (c,)
    factors = Mul.make_args(c.expr)
    weights = [f for f in factors if accesses(f) and moving.isdisjoint(map(name_of, accesses(f))) and is_weight(f)]
    weight = Mul(*weights)
    for f in factors:
        number, exponent = exponent_of(f, known)
        if exponent is None or not weights or not indices_of(weight) <= indices_of(exponent):
            continue
        own = {i: fresh() for i in c.indices if i != 0 and i in exponent.free_symbols}
        name = free_name(f"{c.name}_exp", taken)
        taken.add(name)
        shape = tuple(c.ranges[cast("Index", i)] for i in own)
        chosen = sp.exp(Where(Equal(weight, 0), 0, exponent)).xreplace(own)
        made = replace(c, name=name, indices=tuple(own.values()), shape=shape, expr=chosen, node=None, text=None)
        made = replace(made, named=False, positive=True)
        return made, replace(c, expr=number * c.expr / f * made.element([*own]), text=None)
    return (c,)


def is_weight(f: Any) -> bool:
    """Whether a factor may be zero: a tensor, or a sum of tensors and numbers; no truth, which chooses already."""
    return not f.is_positive and not f.has(*BRACKETS, Delta, sp.exp) and isinstance(f, (Indexed, sp.Add))


def exponent_of(f: Any, known: Mapping[str, Cell]) -> tuple[Any, Any]:
    """c and f of c exp(f) for a number c, written out or held by a cell; no f for anything else."""
    number: Any = sp.S.One
    while isinstance(f, Indexed):
        cell = known.get(name_of(f))
        if cell is None or cell.expr is None or cell.call:
            break
        factor, f = at(cell, f.indices).as_coeff_Mul()
        number *= factor
    return number, f.args[0] if isinstance(f, sp.exp) else None


__all__ = ["RULE", "by_zero_weights"]
