# pyright: basic
"""Rows of a product divided by the sums of what they were made of: `(e v) / Sum e` is `(e / Sum e) v`.

For exponentials e the shares e / Sum e are a softmax, which does not overflow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.shares import reduction
from codegen.closed.gates.points import given_to, one_value
from codegen.closed.regions.cells import Cell, at, is_contraction
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

RULE = "rows of a product over the sums of what made them are a product with shares, (Σ e v) / Σ e = Σ (e / Σ e) v"


@dataclass(frozen=True)
class Quotient:
    """A cell that is a product over a sum, with these two, and the three cells that it is written as."""

    cell: Cell
    product: Cell
    total: Cell
    parts: tuple[Cell, Cell, Cell]


def with_shares_in_products(cells: list[Cell], outputs: Collection[str]) -> list[Cell]:
    """The cells with every such quotient of exponentials as the product with the shares."""
    if not any(isinstance(c.expr, sp.exp) for c in cells):
        return cells
    for cell in tuple(cells):
        known = {c.name: c for c in cells}
        for found in quotients(cell, known) if isinstance(cell.expr, Mul) and not cell.expr.has(Sigma) else ():
            alone = all(found.product.name not in c.reads or c.name == cell.name for c in cells)
            if alone and found.product.name not in outputs and proven(found, known):
                place = next(k for k, c in enumerate(cells) if c.name == cell.name)
                before = [c for c in cells[:place] if c.name != found.product.name]
                cells = [*before, *found.parts, *cells[place + 1 :]]
                break
    return cells


def quotients(cell: Cell, known: dict[str, Cell]) -> Iterator[Quotient]:
    """A cell `rest (Sum_j e_ij v_jd) / Sum_j e_ij` as a share, its product with v, and that with the rest."""
    factors: list[Any] = list(Mul.make_args(cell.expr))
    bottoms = [f for f in factors if isinstance(f, sp.Pow) and f.exp == -1 and isinstance(f.base, Indexed)]
    for top in cast("list[Any]", [f for f in factors if isinstance(f, Indexed)]):
        product = known[name_of(top)]
        if product.expr is None or not isinstance(product.expr, Sigma) or not is_contraction(product.expr):
            continue
        inside = cast("Any", at(product, top.indices))
        for e in [a for a in accesses(inside.body) if a in Mul.make_args(inside.body)]:
            origin = known[name_of(e)]
            for f in bottoms if isinstance(origin.expr, sp.exp) and len(inside.limits) == 1 else ():
                total = known[name_of(cast("Any", f).base)]
                if not f.atoms(Index) <= set(e.indices) or not sums(total, f.base, e, inside.limits[0]):
                    continue
                own = tuple(i if i == 0 else fresh() for i in origin.indices)
                below = f.xreplace(dict(zip(e.indices, own, strict=True)))
                name = free_name(f"{origin.name}_share", known)
                share = replace(
                    origin, name=name, indices=own, expr=origin.element(own) * below, node=None, text=None, named=False
                )
                body = cast("Any", product.expr).body
                access = next(a for a in accesses(body, origin.name))
                inner = Sigma(body.xreplace({access: share.element(access.indices)}), *cast("Any", product.expr).limits)
                other = replace(
                    product,
                    name=free_name(f"{product.name}_shared", known),
                    expr=inner,
                    node=None,
                    text=None,
                    call=False,
                )
                rest = Mul(*[g for g in factors if g not in (top, f)])
                last = replace(cell, expr=rest * other.element(top.indices), call=False)
                yield Quotient(cell, product, total, (replace(share, call=False), other, last))


def sums(total: Cell, read: Any, e: Any, limit: Any) -> bool:
    """Whether a cell, where it is read, is the sum of e over an index."""
    if total.expr is None:
        return False
    number, whole = reduction(at(total, read.indices))
    if whole is None or number != 1 or len(whole.limits) != 1:
        return False
    ((k, n),) = whole.limits
    return n == limit[1] and whole.body.xreplace({k: limit[0]}) == e


def proven(found: Quotient, known: dict[str, Cell]) -> bool:
    """Whether both ways of writing it give one value, at a random point in 50-digit arithmetic."""
    old, new = (found.product, found.total, found.cell), found.parts
    return one_value(old, new, given_to([*old, *new], known))


__all__ = ["RULE", "with_shares_in_products"]
