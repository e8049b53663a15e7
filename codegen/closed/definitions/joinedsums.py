# pyright: basic
"""Sums of products that have a factor in common, added or subtracted, as one sum: `Sum_k u_k a_k - Sum_k u_k b_k` is `Sum_k u_k (a_k - b_k)`.

It is multiplied and summed once, and the difference is what the cotangent of u is a multiple of. Where a and b are nearly the same the
difference of two sums has lost its digits, and the sum of differences has them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.terms import indices_of, powers
from codegen.closed.definitions.shares import reduction
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Sigma, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "sums of products with a factor in common are one sum"


def joined(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells, with such sums that nothing else reads as one; `kept` cells stay."""
    known = {c.name: c for c in cells}
    if sum(isinstance(c.expr, sp.Add) for c in cells) == 0 or sum(has_sum(c) for c in cells) < 2:
        return cells
    readers = Counter(r for c in cells for r in c.reads)
    alone = {n: c for n, c in known.items() if readers[n] == 1 and n not in kept and not c.named}
    gone: set[str] = set()
    out: list[Cell] = []
    for c in cells:
        found = one_sum(c, alone) if isinstance(c.expr, sp.Add) and c.kind == "float" and not c.call else None
        if found is not None:
            factor, inner, limits, rest, taken = found
            gone |= taken
            new = part_of(c, inner, limits, free_name(f"{c.name}_inner", known))
            known[new.name] = new
            out.append(new)
            order = [i for i in (*c.indices, *[i for i, _ in limits]) if i in indices_of(inner)]
            c = replace(c, expr=Sigma(factor * new.element(order), *limits) + rest, text=None)
            known[c.name] = c
        out.append(c)
    return [c for c in out if c.name not in gone] if gone else cells


def has_sum(c: Cell) -> bool:
    """Whether a cell is a multiple of a sum over an axis."""
    return c.expr is not None and not c.call and reduction(c.expr)[1] is not None


def part_of(c: Cell, e: Any, limits: Any, name: str) -> Cell:
    """What is summed beside the common factor, as a cell of its own."""
    sizes: dict[Any, Any] = {**c.ranges, **dict(limits)}
    own = {i: fresh() for i in (*c.indices, *[i for i, _ in limits]) if i in indices_of(e)}
    return Cell(
        name, tuple(own.values()), tuple(sizes[i] for i in own), e.xreplace(own), c.kind, c.differentiable, c.dtype
    )


def one_sum(c: Cell, alone: Mapping[str, Cell]) -> tuple[Any, Any, Any, Any, set[str]] | None:
    """The common factor of two or more sums that a cell adds up, what it is multiplied with, the limits, the other terms, and the cells written out."""
    found: list[tuple[Any, Any, set[str], Any]] = []
    limits: Any = None
    for t in cast("Any", c.expr).args:
        number, a = t.as_coeff_Mul()
        s = alone.get(name_of(a)) if isinstance(a, Indexed) else None
        by, total = reduction(s.expr) if s is not None and has_sum(s) else (sp.S.One, None)
        if s is None or total is None or (s.dtype, s.differentiable) != (c.dtype, c.differentiable):
            continue
        total = cast("Any", reduction(at(s, a.indices))[1])
        products = {n: d for n, d in alone.items() if isinstance(d.expr, Mul) and not d.call and d.dtype == c.dtype}
        taken = {s.name, *[n for n in map(name_of, total.body.atoms(Indexed)) if n in products]}
        body = substituted(total.body, products)
        if limits is None:
            limits = total.args[1:]
        elif [n for _, n in total.limits] != [n for _, n in limits]:
            continue
        body = body.xreplace({i: j for (i, _), (j, _) in zip(total.limits, limits, strict=True)})
        if all(isinstance(b, Indexed) and x == 1 for b, x in powers(body).items()) and not body.has(Sigma):
            found.append((number * by * body, {*powers(body)}, taken, t))
    common = set.intersection(*[f for _, f, _, _ in found]) if len(found) > 1 else set[Any]()
    factor = Mul(*sorted(common, key=str))
    rests = [e / factor for e, _, _, _ in found]
    whole = {i for i, _ in limits or ()} | {i for i in c.indices if i != 0}
    if not common or any(indices_of(cast("Any", r)) != whole or len(powers(r)) != 1 for r in rests):
        return None
    rest = cast("Any", c.expr) - sp.Add(*[t for _, _, _, t in found])
    return factor, sp.Add(*rests), limits, rest, {n for _, _, taken, _ in found for n in taken}


__all__ = ["RULE", "joined"]
