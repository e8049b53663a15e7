"""Sums of what is left at one place, as what stands there: `Sum_j [j = y] p_j` is p_y, whose logarithm is that of a share.

So are sums of what has more at one place than elsewhere: `Sum_j (a + b [j = y]) (c [j = y] - q_j)` is `(a + b) c - b q_y - a Sum_j q_j`,
for which neither factor is a tensor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sympy import Add, Expr, Mul, S

from codegen.closed.algebra.sums import resum
from codegen.closed.definitions.completed import without
from codegen.closed.regions.cells import is_plain, substituted
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell

RULE = "a sum of what is left at one place is what stands there"


def at_places(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells with every such sum as an entry, without the products that only these sums have read."""
    products = {c.name: c for c in cells if c.expr is not None and isinstance(c.expr, Mul) and c.expr.has(Delta)}
    if not products:
        return cells
    more = {n: c for n, c in read_by(products, cells).items() if n not in kept}
    out: list[Cell] = []
    for c in cells:
        if c.expr is not None and not c.call and c.expr.has(Sigma):
            body = cast("Expr", substituted(c.expr, products))
            there = resum(body, c.ranges)
            if not there.has(Sigma, Delta) and is_plain(there):
                c = replace(c, expr=there)
            elif any(name_of(a) in more for a in accesses(body)):
                whole = resum(cast("Expr", substituted(body, more)), c.ranges)
                if not whole.has(Delta) and is_one_sum(whole):
                    c = replace(c, expr=whole, text=None)
        out.append(c)
    return without(out, cells, kept)


def read_by(products: Mapping[str, Cell], cells: list[Cell]) -> dict[str, Cell]:
    """The sums with more at places that nothing reads but these products, each once, where nothing else does either."""
    readers: dict[str, list[str]] = {}
    for c in cells:
        for r in c.reads:
            readers.setdefault(r, []).append(c.name)
    return {
        c.name: c
        for c in cells
        if isinstance(c.expr, Add)
        and not c.call
        and c.expr.has(Delta)
        and not c.expr.has(Sigma)
        and c.kind == "float"
        and all(r in products and len(readers.get(r, [])) == 1 for r in readers.get(c.name, []))
    }


def is_one_sum(e: Expr) -> bool:
    """Whether one tensor at most is summed, as it is, and what is added to it is read at places or made of numbers."""
    sums = [f for t in Add.make_args(e) for f in Mul.make_args(t) if isinstance(f, Sigma)]
    rest = e.xreplace(dict.fromkeys(sums, S.Zero))
    whole = [s for s in sums if not any(isinstance(i, Indexed) for i in s.body.indices)] if plain_bodies(sums) else sums
    return plain_bodies(sums) and len(whole) <= 1 and not rest.has(Sigma)


def plain_bodies(sums: list[Sigma]) -> bool:
    """Whether tensors are summed as they are."""
    return all(isinstance(s.body, Indexed) for s in sums)
