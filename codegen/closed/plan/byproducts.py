# pyright: basic
"""Products that a statement is, read by others that have all of its factors: with `da = g / b`, `-a g / b**2` is `-(a / b) da`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sympy import Mul

from codegen.closed.algebra.matching import matched
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import powers
from codegen.closed.plan.names import Pattern, pattern_of, quotient, tensors_of
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.closed.plan.backward import Statement
    from codegen.closed.plan.prices import Prices

RULE = "a product that is there is not multiplied again"
LEAST = 1e-9
"""The part of a plan's cost that has to be saved."""


def by_products(statements: Sequence[Statement], prices: Prices) -> list[Statement]:
    """Statements that read others which are products, for what these multiply, where that costs less."""
    out = list(statements)
    for k, s in enumerate(out):
        product = product_of(s)
        if product is None:
            continue
        for j, t in enumerate(out):
            if j == k or not product.tensors <= tensors_of(t.expr) or t.name in needed(s, out):
                continue
            expr = read(t.expr, product)
            if expr == t.expr:
                continue
            before = prices.total(x.expr for x in out)
            after = prices.total(expr if i == j else x.expr for i, x in enumerate(out))
            if after < before * (1 - LEAST):
                out[j] = replace(t, expr=expr, rules=(*t.rules, RULE))
    return out


def product_of(s: Statement) -> Pattern | None:
    """A statement as the product of at least two tensors that it is; None where it is none, or is summed or put at places."""
    if not isinstance(s.expr, Mul) or s.expr.has(Sigma, Delta) or len(tensors_of(s.expr)) < 2:
        return None
    cell = Cell(s.name, s.indices, s.shape, s.expr, "float", differentiable=True, dtype=None)
    found = pattern_of(cell, cell)
    return found if found is not None and all(isinstance(b, Indexed) for b in found.table) else None


def needed(s: Statement, statements: Sequence[Statement]) -> set[str]:
    """The statements that one is computed from, and what these are."""
    by_name = {t.name: t for t in statements}
    found, stack = set[str](), [s.name]
    while stack:
        for name in map(name_of, accesses(by_name[stack.pop()].expr)):
            if name in by_name and name not in found:
                found.add(name)
                stack.append(name)
    return found


def read(e: Any, pattern: Pattern) -> Any:
    """An expression that reads a product wherever all of its factors are."""
    if isinstance(e, Indexed) or not e.args or not pattern.heads <= tensors_of(e):
        return e
    e = rebuilt(e, lambda a: read(a, pattern))
    if not isinstance(e, Mul):
        return e
    table = powers(e)
    for b in table:
        mapping = matched(pattern.head, b, set(pattern.free))
        if mapping is None or any(i not in mapping for i in pattern.free):
            continue
        there = [i.xreplace(mapping) for i in pattern.product.indices]
        written = at(pattern.product, there)
        if all(f in table and 0 < x / table[f] <= 1 for f, x in powers(written).items()):
            return quotient(e, written, 1) * pattern.cell.element(there)
    return e


__all__ = ["RULE", "by_products"]
