# pyright: basic
"""A tensor that several terms of a sum are products of is multiplied once: `x + x a` is `x (1 + a)`, for an a that is smaller than x.

So a gate of channels beside a residual, or a scale beside its input, is one product; the cotangent of what it is multiplied by is one sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "what several terms are products of is multiplied once"


def multiplied_once(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells, with what a tensor is multiplied by as a cell before every such sum. `kept` cells stay."""
    readers = Counter(r for c in cells for r in c.reads)
    known = {c.name: c for c in cells}
    alone = {n: c for n, c in known.items() if readers[n] == 1 and n not in kept and not c.named and joins(c)}
    gone: set[str] = set()
    out: list[Cell] = []
    for c in cells:
        found = shared_factor(c, alone, known)
        if found is not None:
            x, scale, rest, taken = found
            gone |= taken
            new = scale_of(c, scale, free_name(f"{c.name}_scale", {*known}))
            known[new.name] = new
            out.append(new)
            own = c.indices[len(c.indices) - len(new.indices) :]
            there = [i if j != 0 else j for i, j in zip(own, new.indices, strict=True)]
            c = replace(c, expr=cast("Expr", x * new.element(there) + rest), text=None)
            known[c.name] = c
        out.append(c)
    return [c for c in out if c.name not in gone]


def scale_of(c: Cell, scale: Expr, name: str) -> Cell:
    """What a cell's tensor is multiplied by, with dimensions of size one where it has none of the cell's, but for the first ones."""
    own = {i: fresh() for i in c.indices if i in indices_of(scale)}
    first = next((k for k, i in enumerate(c.indices) if i in own), len(c.indices))
    indices = tuple(own.get(i, sp.S.Zero) for i in c.indices[first:])
    shape = tuple(n if i in own else sp.S.One for i, n in zip(c.indices[first:], c.shape[first:], strict=True))
    return Cell(name, indices, shape, cast("Expr", scale.xreplace(own)), c.kind, c.differentiable, c.dtype)


def joins(c: Cell) -> bool:
    """Whether a cell is a product of elements of tensors, or a sum of such."""
    if c.expr is None or c.call or c.kind != "float" or not isinstance(c.expr, (sp.Add, Mul)):
        return False
    return all(isinstance(f, Indexed) or f.is_number for t in sp.Add.make_args(c.expr) for f in Mul.make_args(t))


def shared_factor(
    c: Cell, alone: Mapping[str, Cell], known: Mapping[str, Cell]
) -> tuple[Indexed, Expr, Expr, set[str]] | None:
    """A tensor, what it is multiplied by in several terms of a sum, the other terms, and the cells written out; None if there is none."""
    if not isinstance(c.expr, sp.Add) or c.call or c.kind != "float":
        return None
    own = {i for i in c.indices if i != 0}
    terms = [p for t in c.expr.args for p in written_out(t, c, alone)]
    tensors = dict.fromkeys(a for t, _ in terms for a in accesses(t) if indices_of(a) == own and plain(a, known))
    for x in tensors:
        scale = cast("Expr", sp.Add(*[t / x for t, _ in terms if is_multiple(t, x)]))
        if not isinstance(scale, sp.Add) or not accesses(scale) or not indices_of(scale) < own:
            continue
        rest = cast("Expr", sp.Add(*[t for t, _ in terms if not is_multiple(t, x)]))
        return x, scale, rest, {n for _, taken in terms for n in taken}
    return None


def written_out(term: Any, c: Cell, alone: Mapping[str, Cell]) -> list[tuple[Any, tuple[str, ...]]]:
    """A term with products and sums that nothing else reads written out, as terms, each with the names of those."""
    for a in [f for f in Mul.make_args(term) if isinstance(f, Indexed) and name_of(f) in alone]:
        d = alone[name_of(a)]
        if (d.differentiable, d.dtype) == (c.differentiable, c.dtype) and (isinstance(d.expr, Mul) or term == a):
            inner = [term / a * t for t in sp.Add.make_args(at(d, a.indices))]
            return [(t, (d.name, *taken)) for i in inner for t, taken in written_out(i, c, alone)]
    return [(term, ())]


def is_multiple(term: Any, x: Indexed) -> bool:
    """Whether a term is x times what it is not in."""
    return any(f == x for f in Mul.make_args(term)) and not (term / x).has(x)


def plain(x: Indexed, known: Mapping[str, Cell]) -> bool:
    """Whether x is an element of a tensor of floats."""
    cell = known.get(name_of(x))
    return cell is not None and cell.kind == "float"


__all__ = ["RULE", "multiplied_once"]
