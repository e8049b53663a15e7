# pyright: basic
"""The share `exp(f) / Sum exp(f)` of every sum of exponentials, which its derivative is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.definitions import several
from codegen.closed.definitions.stabilize import is_exponential
from codegen.closed.regions.called import share_name
from codegen.closed.regions.cells import Cell, at, natural
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, accesses, base, element, fresh, instantiate, name_of

RULE = "the derivative of a sum of exponentials is made of their shares exp(f) / Σ exp f"


def with_shares(cells: list[Cell]) -> list[Cell]:
    """`p = e / z` after every `z = Sum e` of an exponential e, unless some cell is that already, or another quotient by z.

    What divides the exponential at one place of its row, `e[i,y[i]] / z[i]`, reads that share then.
    """
    known = {c.name: c for c in cells}
    read = {r for c in cells for r in c.reads}
    out: list[Cell] = []
    shares: dict[str, Cell] = {}
    taken = set(known)
    for c in cells:
        c = picked(c, shares, known) if shares else c
        out.append(c)
        body = summand(c, known)
        if body is None or not c.differentiable:
            continue
        if not isinstance(c.expr, Sigma) and not (c.name in read and several.divides(c, cells)):
            continue
        z = element(base(c.name, True), c.indices)
        limits = dict(c.expr.limits) if isinstance(c.expr, Sigma) else {}
        free = [i for i in natural(body) if i in limits or i in c.indices]
        copy = {i: fresh() for i in free}
        sizes = {**limits, **{cast("Index", i): n for i, n in zip(c.indices, c.shape, strict=True) if i != 0}}
        share = Cell(
            free_name(share_name(body, known, c.name), taken),
            tuple(copy[i] for i in free),
            tuple(sizes[i] for i in free),
            instantiate((body / z), copy),
            "float",
            c.differentiable,
            c.dtype,
            positive=True,
        )
        divided = [d for d in cells if any(f == sp.Pow(a, -1) for a, f in divisors(d, c.name))]
        if any(len(d.ranges) >= len(free) or picked(d, {c.name: share}, known) is d for d in divided):
            continue
        taken.add(share.name)
        shares[c.name] = share
        out.append(share)
    return out


def divisors(d: Cell, name: str) -> list[tuple[Indexed, Any]]:
    """The factors of a product, each with every element of a cell that it reads."""
    return [(a, f) for a in accesses(d.expr, name) for f in d.expr.args] if d.expr is not None and d.expr.is_Mul else []


def picked(c: Cell, shares: dict[str, Cell], known: dict[str, Cell]) -> Cell:
    """A cell with `e[i,y[i]] / z[i]` read from the shares of z, which it is one of in every row."""
    factors = Mul.make_args(c.expr) if c.expr is not None and not c.call else ()
    for f in (f for f in factors if isinstance(f, sp.Pow) and f.exp == -1 and isinstance(f.base, Indexed)):
        share = shares.get(name_of(cast("Indexed", f.base)))
        for top in (t for t in factors if share is not None and isinstance(t, Indexed)):
            cell = known.get(name_of(top))
            e = at(cell, top.indices) if cell is not None and isinstance(cell.expr, Indexed) else top
            there = holding(share, cast("Expr", share.expr), e * f) if share is not None else None
            if there is not None:
                return replace(c, expr=cast("Any", c.expr) / (top * f) * there)
    return c


def summand(c: Cell, known: dict[str, Cell]) -> Expr | None:
    """The exponential that a cell sums, or the first of two exponentials over the same indices that it is the sum of."""
    if isinstance(c.expr, Sigma):
        return c.expr.body if is_exponential(c.expr.body, known) else None
    if (
        not isinstance(c.expr, sp.Add)
        or len(c.expr.args) != 2
        or not all(is_exponential(t, known) for t in c.expr.args)
    ):
        return None
    first = min(c.expr.args, key=str)
    over = {i for i in c.indices if i != 0}
    return cast("Expr", first) if all(over <= t.free_symbols for t in c.expr.args) else None


__all__ = ["RULE", "with_shares"]
