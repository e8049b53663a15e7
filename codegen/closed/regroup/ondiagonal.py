# pyright: basic
"""Sums that stand on the diagonal of a product that is there: `Sum_i x_ij^2` beside `c = xᵀ x` is c_jj.

What is passed back to such a sum is on the diagonal of what is passed back to the product, so that x gets one product. Where x
is read entry by entry, too, the sum stays what it is: facts about x follow from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import Cell, at, is_contraction, signature
from codegen.closed.regroup.among import alive
from codegen.closed.regroup.products import product_terms
from engine.indexed import Indexed
from engine.notation import Index, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RULE = "a sum on the diagonal of a product that is there is read there"


def with_diagonals(cells: list[Cell], outputs: Collection[str], fixed: Collection[str]) -> list[Cell]:
    """The cells with such sums read from the products. `fixed` ones stay as they are."""
    products = {key: c for c in cells if c.name not in fixed for key in [of_diagonal(c)] if key is not None}
    if not products:
        return cells
    readers: dict[str, list[Cell]] = {}
    for c in cells:
        for r in c.reads if not c.call else (*c.reads, *cast("Any", c.node).operands):
            readers.setdefault(r, []).append(c)
    known = {c.name: c for c in cells}
    out = list(cells)
    for c in cells:
        whole = sp.sympify(c.expr) if c.expr is not None and c.kind == "float" and c.name not in fixed else sp.S.Zero
        sums = [f for f in sp.Mul.make_args(whole) if isinstance(f, Sigma)]
        before = sums
        sums = [written_out(s, readers, outputs, known) for s in sums]
        found = (
            products.get(key_of(sums[0], c)) if len(sums) == 1 and len(c.indices) == 1 and c.indices[0] != 0 else None
        )
        if found is None or found.name == c.name or found.dtype != c.dtype:
            continue
        read = {*map(name_of, accesses(sums[0]))}
        mine = {c.name, *(r for r in c.reads if r not in read)}
        others = [r for n in read for r in readers.get(n, []) if r.name not in mine]
        if read & {*outputs} or not all(r.expr is not None and is_contraction(r.expr) for r in others):
            continue
        number = sp.Mul(*[f for f in sp.Mul.make_args(cast("Any", found.expr)) if not isinstance(f, Sigma)])
        expr = whole / before[0] * found.element([c.indices[0]] * 2) / number
        place = out.index(c)
        out[place] = replace(c, expr=expr, call=False, text=None)
        if out.index(found) > place:
            out.remove(found)
            out.insert(place, found)
    return alive(out, outputs)


def written_out(
    s: Sigma, readers: Mapping[str, list[Cell]], outputs: Collection[str], known: Mapping[str, Cell]
) -> Sigma:
    """A sum with the product in it that nothing else reads."""
    a: Any = s.body
    inner = known.get(name_of(a)) if isinstance(a, Indexed) else None
    if inner is None or inner.name in outputs or len(readers[inner.name]) > 1 or inner.kind != "float":
        return s
    square = isinstance(inner.expr, sp.Pow) and inner.expr.exp == 2
    return cast("Sigma", s.func(at(inner, a.indices), *s.args[1:])) if square or isinstance(inner.expr, sp.Mul) else s


def of_diagonal(c: Cell) -> Any:
    """What is equal for all sums that are a square product's diagonal; None for what is no product of two tensors."""
    if c.expr is None or c.kind != "float" or c.after or len(c.indices) != 2 or not is_contraction(c.expr):
        return None
    i, j = c.indices
    products = product_terms(c.expr)
    if products is None or len(products) != 1 or len(products[0].factors) != 2 or 0 in (i, j):
        return None
    if sp.expand(c.shape[0] - c.shape[1]) != 0:
        return None
    (s,) = (f for f in sp.Mul.make_args(c.expr) if isinstance(f, Sigma))
    return key_of(cast("Any", s.xreplace({cast("Index", j): i})), c)


def key_of(s: Sigma, c: Cell) -> Any:
    """What is equal for equal sums over what a vector's index leaves."""
    return signature(replace(c, indices=c.indices[:1], shape=c.shape[:1], expr=s))[0]


__all__ = ["RULE", "with_diagonals"]
