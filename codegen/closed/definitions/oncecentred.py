# pyright: basic
"""Rows that are centred have no mean: what subtracts it from them once more leaves them as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.balanced import balanced
from codegen.closed.regions.called import averaged
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Container

RULE = "the mean of what is centred is zero"


def without_second_mean(cells: list[Cell], kept: Container[str] = ()) -> list[Cell]:
    """The cells without means that are zero, and without what is a tensor less such a mean. `kept` ones are read from elsewhere."""
    known: dict[str, Cell] = {}
    zeros: set[str] = set()
    same: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        if c.expr is not None and any(r in zeros or r in same for r in c.reads):
            c = replace(c, expr=put(c.expr, zeros, same), text=None)
            if isinstance(c.expr, Indexed) and c.name not in kept:
                same[c.name] = c
                continue
        known[c.name] = c
        if c.name not in kept and is_zero_mean(c, known):
            zeros.add(c.name)
        else:
            out.append(c)
    return out if zeros else cells


def put(e: Any, zeros: set[str], same: dict[str, Cell]) -> Any:
    """An expression with nothing for means that are zero, and tensors for what is the same."""
    found = {a: sp.S.Zero for a in accesses(e) if name_of(a) in zeros}
    found |= {a: at(same[name_of(a)], cast("Any", a).indices) for a in accesses(e) if name_of(a) in same}
    return e.xreplace(found)


def is_zero_mean(c: Cell, known: dict[str, Cell]) -> bool:
    """Whether a cell is the mean over one axis of a tensor that is less its mean over that."""
    if c.expr is None or averaged(c.element(c.indices), {c.name: c}) is None:
        return False
    (total,) = [f for f in Mul.make_args(c.expr) if isinstance(f, Sigma)]
    (read,) = accesses(total.body)
    if len(total.limits) != 1 or name_of(read) not in known:
        return False
    ((i, _),) = total.limits
    return i in read.indices and bool(balanced(known[name_of(read)], read.indices.index(i), known))


__all__ = ["RULE", "without_second_mean"]
