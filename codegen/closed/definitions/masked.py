# pyright: basic
"""Sums of products of exponentials and masks as sums of exponentials: `Sum_j m_ij exp(f_j) exp(g_j)` is `Sum_j exp(f_j + g_j if m_ij else -oo)`.

Their logarithms and shares are kernels of torch, which do not overflow. A running sum has such a mask, [j <= i], and so has a sum
over all that is still at risk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.completed import without
from codegen.closed.definitions.exponents import logarithm_in
from codegen.closed.definitions.scaled import indicates
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Equal, Sigma, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.region import Region

RULE = "a sum of products of exponentials and masks is one of exponentials, of -oo where a mask is 0"


def by_masked_exponents(region: Region, kept: tuple[str, ...]) -> Region | None:
    """The region with such sums as sums of one exponential each; None where there is none."""
    before = list(region.cells)
    cells = [masked(c, region.cells) for c in before]
    changed = any(c is not d for c, d in zip(cells, before, strict=True))
    return region.by(RULE, lambda _: without(cells, before, kept)) if changed else None


def masked(c: Cell, cells: tuple[Cell, ...]) -> Cell:
    """A cell that is such a sum as one of exponentials; any other as it is."""
    number, total = reduction(c.expr) if c.expr is not None and not c.call and c.kind == "float" else (sp.S.One, None)
    if total is None or not number.is_positive:
        return c
    known = {d.name: d for d in cells}
    products = {n: d for n, d in known.items() if isinstance(d.expr, Mul) and not d.call and not d.expr.has(Sigma)}
    body = substituted(total.body, products)
    exponent = None if exponential(body, known) else masked_exponent(body, known)
    if exponent is None:
        return c
    return replace(c, expr=number * total.func(sp.exp(exponent), *total.args[1:]), text=None, positive=True)


def masked_exponent(body: Any, known: Mapping[str, Cell]) -> Any:
    """f of a product of exponentials that is exp(f), -oo where a mask among the factors is 0; None where other factors are in it."""
    exponent: Any = sp.S.Zero
    conditions: list[Any] = []
    found = False
    for f in Mul.make_args(body):
        if f.has(Delta):
            return None
        if indicates(f, known):
            conditions.append(f)
            continue
        b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
        inner = logarithm_in(b, known)
        if inner is None or not x.is_number:
            return None
        exponent += x * inner
        found = found or inner.has(Indexed)
    if not found:
        return None
    for m in conditions:
        cell = known.get(name_of(m)) if isinstance(m, Indexed) else None
        held = at(cell, cast("Any", m).indices) if cell is not None and cell.expr is not None else m
        exponent = Where(held, exponent, -sp.oo) if isinstance(held, BRACKETS) else Where(Equal(m, 0), -sp.oo, exponent)
    return exponent


__all__ = ["RULE", "by_masked_exponents"]
