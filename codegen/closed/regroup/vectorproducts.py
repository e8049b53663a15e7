# pyright: basic
"""Vector products that are written out: a stack of `x1 y2 - x2 y1`, `x2 y0 - x0 y2` and `x0 y1 - x1 y0` is one sum over a sign.

So what is passed back to x and y are vector products, too, and nothing is put together from slices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import Cell, at, is_joined
from codegen.closed.regroup.among import alive
from engine.indexed import Indexed
from engine.notation import Parity, accesses, fresh, name_of, sigma

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engine.notation import Index

RULE = "three differences of products of two vectors' entries are a vector product"
MOST = 12
"""Tensors in the definition of one entry, at most, while it is written out."""


def with_vector_products(cells: list[Cell], outputs: Collection[str], fixed: Collection[str]) -> list[Cell]:
    """The cells with every such stack, of vectors that have three entries, as a sum. `fixed` ones stay as they are."""
    known = {c.name: c for c in cells}
    changed = {
        c.name: replace(c, expr=e, call=False, text=None)
        for c, e, sizes in products_among(cells, fixed)
        if all(n == 3 for n in sizes)
    }
    return alive([changed.get(n, c) for n, c in known.items()], outputs) if changed else cells


def vector_sizes(cells: list[Cell], fixed: Collection[str], example: Mapping[Any, int]) -> dict[Any, str]:
    """The sizes that are three in the example and count a vector's entries, which no more than these are read of; with where."""
    found: dict[Any, str] = {}
    for c, _, sizes in products_among(cells, fixed):
        if all(n == 3 or (n.is_Symbol and example.get(n) == 3) for n in sizes):
            where = "" if c.node is None or c.node.source is None else str(c.node.source)
            found |= {n: where for n in sizes if n.is_Symbol}
    return found


def products_among(cells: list[Cell], fixed: Collection[str]) -> list[tuple[Cell, Any, tuple[Any, Any]]]:
    """The cells that are stacks of a vector product's entries, with the sum, and how many entries the two vectors have."""
    known = {c.name: c for c in cells}
    found: list[tuple[Cell, Any, tuple[Any, Any]]] = []
    for c in cells:
        if c.expr is None or c.kind != "float" or c.name in fixed or c.after or not is_joined(c.expr):
            continue
        for i, n in zip(c.indices, c.shape, strict=True):
            product = vector_product(c, cast("Index", i), known) if n == 3 else None
            if product is not None:
                found.append((c, *product))
    return found


def vector_product(c: Cell, i: Index, known: Mapping[str, Cell]) -> Any:
    """A tensor whose entries along i are those of a vector product, as a sum over the sign, and sizes; None for any other."""
    entries = [written_out(cast("Any", c.expr).xreplace({i: sp.Integer(k)}), known) for k in range(3)]
    first = entries[0]
    if any(e is None for e in entries) or not isinstance(first, sp.Add) or len(first.args) != 2:
        return None
    for term in first.args:
        factors = sp.Mul.make_args(term)
        if len(factors) != 2 or not all(isinstance(f, Indexed) for f in factors):
            continue
        for one, other in (factors, factors[::-1]):
            for x in vectors(cast("Any", one), 1):
                for y in vectors(cast("Any", other), 2):
                    if all(e == difference(x, y, k) for k, e in enumerate(entries)):
                        j, k = fresh(), fresh()
                        body = Parity(i, j, k) * entry(x, j) * entry(y, k)
                        sizes = tuple(known[name_of(a)].shape[d] for a, d in (x, y))
                        return sigma(body, (j, sp.Integer(3)), (k, sp.Integer(3))), sizes
    return None


def difference(x: tuple[Any, int], y: tuple[Any, int], k: int) -> Any:
    """Entry k of the vector product of two vectors."""
    a, b = sp.Integer((k + 1) % 3), sp.Integer((k + 2) % 3)
    return entry(x, a) * entry(y, b) - entry(x, b) * entry(y, a)


def vectors(access: Any, place: int) -> list[tuple[Any, int]]:
    """The dimensions along which an access reads the entry of a place, each with the access."""
    return [(access, d) for d, i in enumerate(access.indices) if i == place]


def entry(vector: tuple[Any, int], i: Any) -> Any:
    """An entry of a vector."""
    access, d = vector
    return access.func(access.base, *access.indices[:d], i, *access.indices[d + 1 :])


def written_out(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression over tensors that are read at a number's place; None where it is made of something else."""
    while True:
        reads = accesses(e)
        if len(reads) > MOST:
            return None
        inner = [a for a in reads if not any((i.is_Integer and i != 0) or is_first(a, i, known) for i in a.indices)]
        if not inner:
            return e
        change: dict[Any, Any] = {}
        for a in inner:
            cell = known.get(name_of(a))
            if cell is None or cell.kind != "float" or not isinstance(cell.expr, (sp.Add, sp.Mul, Indexed)):
                return None
            change[a] = at(cell, cast("Any", a).indices) if cell.shape else cell.expr
        e = sp.expand(e.xreplace(change))


def is_first(a: Any, i: Any, known: Mapping[str, Cell]) -> bool:
    """Whether the place 0 is that of the first of several entries, and not the only one."""
    cell = known.get(name_of(a))
    return i == 0 and cell is not None and any(x == 0 and n != 1 for x, n in zip(a.indices, cell.shape, strict=False))


__all__ = ["RULE", "vector_sizes", "with_vector_products"]
