# pyright: basic
"""Sums that a result of the region is, read there: with o = p h + q c, what passes back `(p h + q c - h) g` reads `(o - h) g`.

So `p x - p (p x + q y + r z)` is `p (x - o)`, where o = p x + q y + r z is a sum of products that have names of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import expanded, powers
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import BINDERS, Index, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

RULE = "a sum that is there is not added up again"


def by_sums(statements: Sequence[Statement], region: Region) -> list[Statement]:
    """Statements that read a cell, which is there in any case, where they add up all that it adds up."""
    sums = [c for c in region.cells if c.name in {*region.needed, *region.seeds} and is_plain_sum(c)]
    out: list[Statement] = []
    for s in statements:
        expr = s.expr
        for c in sums:
            expr = read(expr, c)
        out.append(s if expr == s.expr else replace(s, expr=expr, rules=(*s.rules, RULE)))
    return out


def by_sums_of_products(statements: Sequence[Statement], region: Region, algebra: Algebra) -> list[Statement]:
    """Statements in generators, before their products are named, that read a cell where they add up the products that it adds up."""
    sums = [(c, terms) for c in region.cells for terms in [products_of(c, algebra)] if terms]
    out: list[Statement] = []
    for s in statements:
        e: Any = s.expr
        for c, terms in sums:
            e = whole(e, c, terms)
        out.append(s if e is s.expr else replace(s, expr=e, rules=(*s.rules, RULE)))
    return out


def products_of(c: Cell, algebra: Algebra) -> list[Any]:
    """The products of tensors that a cell adds up, each over all of its indices; [] for any other cell."""
    if not isinstance(c.expr, sp.Add) or c.call or c.kind != "float" or c.expr.has(*BINDERS):
        return []
    own = {i for i in c.indices if i != 0}
    sums = {n: d for n, d in algebra.cells.items() if isinstance(d.expr, sp.Add) and d.kind == "float" and not d.call}
    terms = list(sp.Add.make_args(expanded(algebra.lowered(substituted(c.expr, sums)))))
    products = [t for t in terms if sum(isinstance(f, Indexed) for f in sp.Mul.make_args(t)) > 1]
    wide = all({i for i in t.free_symbols if isinstance(i, Index)} == own for t in terms)
    return terms if products and wide and len(terms) > 1 else []


def whole(e: Any, c: Cell, terms: list[Any]) -> Any:
    """An expression with a cell for the sum of its terms, times whatever stands before all of it; the same object without it."""
    names = {name_of(a) for a in accesses(cast("Any", c.expr))}
    if not {name_of(a) for t in terms for a in accesses(t)} - names <= {name_of(a) for a in accesses(e)}:
        return e
    parts = list(sp.Add.make_args(expanded(e)))
    first = max(terms, key=lambda t: len(accesses(t)))
    lead = max(accesses(first), key=lambda a: len(a.free_symbols))
    for t in parts:
        for a in accesses(t, name_of(lead)):
            mapping = dict(zip(lead.indices, a.indices, strict=True))
            term = first.xreplace(mapping)
            front = t / term
            left = powers(front)
            if any((left.get(b, sp.S.Zero) * p).could_extract_minus_sign() for b, p in powers(term).items()):
                continue  # not a factor of it
            wanted = [front * x.xreplace(mapping) for x in terms]
            if all(x in parts for x in wanted):
                rest = [x for x in parts if x not in wanted]
                return sp.Add(*rest, front * c.element([i.xreplace(mapping) for i in c.indices]))
    return e


def is_plain_sum(c: Cell) -> bool:
    """Whether a cell is a sum of multiples of tensors of its own indices."""
    own = {i for i in c.indices if i != 0}
    if not isinstance(c.expr, sp.Add) or c.call or c.kind != "float":
        return False
    tensors = [t.as_coeff_Mul()[1] for t in c.expr.args]
    return all(isinstance(a, Indexed) and {i for i in a.indices if isinstance(i, Index)} == own for a in tensors)


def read(e: Any, c: Cell) -> Any:
    """An expression that reads a cell for every sum of what it adds up, times whatever stands before all of it."""
    if isinstance(e, Indexed) or not e.args:
        return e
    e = rebuilt(e, lambda a: read(a, c))
    if not isinstance(e, sp.Add):
        return e
    whole: Any = c.expr
    number, first = whole.args[0].as_coeff_Mul()
    for t in e.args:
        for a in sp.Mul.make_args(t):
            if not isinstance(a, Indexed) or name_of(a) != name_of(first):
                continue
            there = dict(zip(first.indices, a.indices, strict=True))
            front = t / a / number
            terms = [front * x.xreplace(there) for x in whole.args]
            if all(x in e.args for x in terms):
                rest = sp.Add(*[x for x in e.args if x not in terms])
                return rest + front * c.element([i.xreplace(there) for i in c.indices])
    return e


__all__ = ["RULE", "by_sums", "by_sums_of_products"]
