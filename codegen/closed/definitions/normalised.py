# pyright: basic
"""`w u / sqrt(v)` with v a moment of u: 1 / sqrt(v) and its product with u as tensors of their own.

These are what the published backwards of normalisations are made of. They cost nothing: where w has an axis that v has not,
a tensor has to be made on the way in any case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.matching import determined
from codegen.closed.regions.cells import Cell, natural
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF = sp.S.Half
RULE = "what is divided by a root of its own moment is a tensor of its own, which is multiplied later"


def with_normalised(cells: list[Cell]) -> list[Cell]:
    """The cells, with such a root, and its product with u where more is done to it, as cells before those that read them."""
    known: dict[str, Cell] = {}
    taken = {c.name for c in cells}
    out: list[Cell] = []
    for c in cells:
        for u, root, apart in normalisations(c, known):
            before, name = set(known), source(u, known)
            r = named(c, root, f"{name}_rstd" if name != name_of(u) else f"{name}_rsqrt", known, taken)
            whole = named(c, u * r, f"{name}_hat", known, taken) if apart else u * r
            expr: Any = c.expr
            there = {t: t / (u * root) * whole for t in terms(expr) if {u, root} <= {*factors(t)}}
            c = replace(c, expr=sp.Add(*[there.get(t, t) for t in terms(expr)]))
            out += [d for n, d in known.items() if n not in before]
        known[c.name] = c
        out.append(c)
    return out


def source(u: Any, known: Mapping[str, Cell]) -> str:
    """The tensor that a deviation is one of, by name; of what is none, its own."""
    cell = known[name_of(u)]
    whole = terms(cell.expr) if isinstance(cell.expr, sp.Add) else ()
    return next((name_of(t) for t in whole if isinstance(t, Indexed) and axes(t) == axes(cell)), cell.name)


def named(c: Cell, e: Any, name: str, known: dict[str, Cell], taken: set[str]) -> Indexed:
    """The element of a cell for a part of another one's definition, where it is read there."""
    ranges = c.ranges
    order = [i for i in natural(e) if i in ranges]
    for d in known.values():
        found = None if d.expr is None or d.call else determined(d.expr, e, d.indices)
        if found is not None and {*found.values()} == {*order}:
            return d.element([i.xreplace(found) for i in d.indices])
    name = free_name(name, taken)
    taken.add(name)
    own: dict[Any, Any] = {i: fresh() for i in order}
    known[name] = Cell(
        name, tuple(own.values()), tuple(ranges[i] for i in order), e.xreplace(own), "float", c.differentiable, c.dtype
    )
    return known[name].element(order)


def normalisations(c: Cell, known: Mapping[str, Cell]) -> list[tuple[Any, Any, bool]]:
    """(u, 1 / sqrt(v), whether their product is a tensor of its own) for every u / sqrt(v) of a cell."""
    if c.expr is None or c.call or c.exact or c.kind != "float":
        return []
    full = axes(c)
    found: dict[tuple[Any, Any], bool] = {}
    for term in terms(c.expr):
        large = [f for f in factors(term) if isinstance(f, Indexed) and axes(f) == full]
        roots = [f for f in factors(term) if f.is_Pow and f.exp == -HALF and isinstance(f.base, Indexed)]
        if len(large) != 1 or len(roots) != 1 or not made_of(name_of(roots[0].base), name_of(large[0]), known):
            continue
        (u,), (root,) = large, roots
        rest = [f for f in factors(term) if f not in (u, root)]
        beside = isinstance(c.expr, sp.Add) and not any(f.has(Indexed) for f in rest)
        across = any(not axes(a) <= axes(root.base) for f in rest for a in accesses(f))
        if axes(root.base) < full:
            found[u, root] = found.get((u, root), False) or beside or across
    return [(u, root, apart) for (u, root), apart in found.items()]


def terms(e: Any) -> tuple[Any, ...]:
    """The terms of a sum."""
    return sp.Add.make_args(e)


def factors(t: Any) -> tuple[Any, ...]:
    """The factors of a product."""
    return Mul.make_args(t)


def axes(a: Any) -> set[Any]:
    """The indices that an element is at, without those that are fixed at zero."""
    return {i for i in a.indices if i != 0}


def made_of(name: str, operand: str, known: Mapping[str, Cell]) -> bool:
    """Whether a cell is computed from another one."""
    left, seen = [name], {name}
    while left:
        cell = known.get(left.pop())
        for r in cell.reads if cell is not None else ():
            if r == operand:
                return True
            if r not in seen:
                seen.add(r)
                left.append(r)
    return False


__all__ = ["RULE", "with_normalised"]
