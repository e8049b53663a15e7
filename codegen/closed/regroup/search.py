# pyright: basic
"""Products of products in another order: a large product that is read by further sums alone is not made.

`(q kᵀ) v` is `q (kᵀ v)`, `Sum (x xᵀ)²` is `Sum (xᵀ x)²`, and a kernel matrix that is centred is a product of centred
features. A product is left out where everything that is computed from it is again a sum of products, up to tensors that are
smaller, and where the cost model says that it pays at the sizes of the example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, is_contraction
from codegen.closed.regroup.among import Among
from codegen.closed.regroup.products import terms
from codegen.closed.regroup.without import Without
from engine.indexed import Indexed
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

RULE = "products and sums in the order that moves least, (q kᵀ) v = q (kᵀ v)"


def regrouped(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells without the products that cost more than they save. `fixed` cells keep the forward's own arithmetic."""
    done = {*outputs, *fixed}
    among = Among(cells, outputs, fixed, example)
    left = iter(among.cells)
    while True:
        c = next((c for c in left if c.name not in done), None)
        if c is None:
            return among.cells
        done.add(c.name)
        if not is_product(c, among):
            continue
        made = (t for t in trials(c, among) if t.possible() and t.made() and of_one_precision(t.new, among))
        trial = next((t for t in made if t.cheaper()), None)
        if trial is not None and trial.passes_gates():
            done -= {r for d in trial.new for r in d.reads} - {*outputs, *fixed}
            among = Among(among.with_instead(trial.added), outputs, fixed, example)
            left = iter(among.cells)


def of_one_precision(new: Iterable[Cell], among: Among) -> bool:
    """Whether products have factors of their own precision, as torch asks of matrices."""
    known = {**among.known, **{c.name: c for c in new}}
    products = [c for c in new if c.expr is not None and is_contraction(c.expr)]
    return all(known[r].dtype == c.dtype for c in products for r in c.reads if known[r].kind == "float")


def trials(c: Cell, among: Among) -> Iterator[Without]:
    """A product left out, with products that differ in one factor as one, `(a + b) q`, and with each by itself, `a q + b q`."""
    together = Without(c, among)
    yield together
    if together.joined:
        yield Without(c, among, apart=True)


def is_product(c: Cell, among: Among) -> bool:
    """Whether a cell is a product of tensors that do not share all indices, summed or entry by entry.

    Entry by entry it is none of exponentials, which have to become shares, nor of a tensor that is computed entry by entry
    itself: that is scaled as it is computed, unless others read it, too, and it is scaled from both sides here.
    """
    if c.expr is None or is_contraction(c.expr):
        return c.expr is not None
    products = terms(c.expr) if isinstance(c.expr, Mul) and len(c.indices) > 1 else None
    if (
        products is None
        or len(products) != 1
        or not all(isinstance(f.as_base_exp()[0], Indexed) for f in products[0].factors)
    ):
        return False
    read = {a: among.known[name_of(a)].expr for a in accesses(cast("Any", c.expr))}
    exponentials = any(isinstance(e, sp.exp) for e in read.values())
    whole = [(a, e) for a, e in read.items() if indices_of(a) == frozenset(c.ranges)]
    made = any(e is not None and not is_contraction(e) for _, e in whole)
    made = made and not (all(len(among.readers[name_of(a)]) > 1 for a, _ in whole) and len(sides(c, among)) > 1)
    return len({indices_of(f) for f in products[0].factors}) > 1 and not exponentials and not made


def sides(c: Cell, among: Among) -> set[frozenset[Any]]:
    """The indices, fewer than all, of what a matrix is multiplied with, one factor after the other: rows, columns or both."""
    found: set[frozenset[Any]] = set()
    at: Cell | None = c
    turned = dict[Any, Any]()
    while at is not None:
        products = terms(cast("Any", at.expr)) if isinstance(at.expr, Mul) else None
        if products is None or len(products) != 1 or products[0].limits:
            return found
        own = [frozenset(turned.get(i, i) for i in indices_of(f)) for f in products[0].factors]
        found |= {o for o in own if len(o) < len(c.indices)}
        readers = among.readers.get(at.name, [])
        before, at = at, readers[0] if len(readers) == 1 and readers[0].expr is not None else None
        read = [] if at is None else accesses(cast("Any", at.expr), before.name)
        if len(read) == 1:
            turned = {j: turned.get(i, i) for i, j in zip(before.indices, read[0].indices, strict=True)}
    return found


__all__ = ["RULE", "regrouped"]
