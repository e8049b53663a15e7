# pyright: basic
"""A sum with ones on a diagonal for a factor is what stands there: `Sum_j [i = j] x_ij` is x_ii.

An identity that is multiplied with a matrix before a sum picks its diagonal, which reads as an exponential where it is one. A matrix
less its diagonal, `x_ij - [i = j] x_ii`, is `(1 - [i = j]) x_ij`: what is passed back to it has none either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.completed import without
from codegen.closed.regions.cells import Cell, substituted
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, Where

if TYPE_CHECKING:
    from sympy import Expr

RULE = "a sum with ones on a diagonal is what stands on it"
LESS = "a matrix less its diagonal is zero there"


def with_diagonals(cells: list[Cell]) -> list[Cell]:
    """The cells with every such sum over one index as an element of the diagonal."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        there = on_diagonal(c, known) if not c.call else None
        out.append(c if there is None else replace(c, expr=there))
        known[c.name] = out[-1]
    return out


def on_diagonal(c: Cell, known: dict[str, Cell]) -> Expr | None:
    """What stands on the diagonal that a cell sums over; None where it is no such sum."""
    if not isinstance(c.expr, Sigma) or len(c.expr.limits) != 1:
        return None
    total: Any = c.expr
    ((j, size),) = total.limits
    products = {n: d for n, d in known.items() if isinstance(d.expr, Mul) and d.expr.has(Delta)}
    body: Any = substituted(total.body, products)
    for f in Mul.make_args(body):
        i = next((a for a in f.args if a != j), None) if isinstance(f, Delta) and j in f.args else None
        if isinstance(i, Index) and c.ranges.get(i) == size:
            return (body / f).xreplace({j: i})
    return None


def less_diagonals(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells with every matrix less its own diagonal as what is left beside that; `kept` cells stay."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        left = beside_diagonal(c, known) if c.kind == "float" and not c.call and isinstance(c.expr, sp.Add) else None
        out.append(c if left is None else replace(c, expr=left, text=None))
        if is_diagonal(c.expr):
            known[c.name] = c
    changed = any(c is not d for c, d in zip(out, cells, strict=True))
    return without(out, cells, kept) if changed else cells


def is_diagonal(e: Any) -> bool:
    """Whether an expression is an element of a diagonal, or what is zero beside one."""
    if isinstance(e, Where):
        return isinstance(e.args[0], Delta) and e.args[2] == 0
    if isinstance(e, Mul):
        return any(isinstance(f, Delta) for f in e.args)
    return isinstance(e, Indexed) and len(set(e.indices)) < len(e.indices)


def beside_diagonal(c: Cell, known: dict[str, Cell]) -> Expr | None:
    """`(1 - [i = j]) x_ij` of a cell that is `x_ij - [i = j] x_ii`; None for any other."""
    whole: Any = c.expr
    while (written := substituted(whole, known)) != whole:
        whole = written
    terms = sp.Add.make_args(whole)
    for t in terms if len(terms) == 2 else ():
        rest = whole - t
        for f in Mul.make_args(t):
            place = f.args[0] if isinstance(f, Where) and f.args[2] == 0 else f
            if not isinstance(place, Delta) or not all(i in c.indices and isinstance(i, Index) for i in place.args):
                continue
            value = t / f * (f.args[1] if isinstance(f, Where) else 1)
            one, other = place.args
            if (value + rest).xreplace({other: one}) == 0 and not rest.has(Delta):
                return (1 - place) * rest
    return None


__all__ = ["LESS", "RULE", "less_diagonals", "with_diagonals"]
