# pyright: basic
"""Logarithms of products of matrices of exponentials: `Sum_k exp(f_ik) exp(g_kj)` is `Sum_k exp(f_ik + g_kj)`, which is in one region with
its logarithm, a kernel of torch that does not overflow. So is a step of the forward algorithm of a hidden Markov model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.definitions.several import exponent_of
from codegen.closed.regions.cells import is_contraction, natural
from engine.naming import free_name
from engine.notation import Sigma, accesses, fresh
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from codegen.closed.regions.cells import Cell

RULE = "the logarithm of a sum of products of exponentials is one of the sum of the exponentials of sums"
MOST = 16
"""How many times as many sums as elements of the factors and of the product there may be: a kernel multiplies matrices without them."""


def by_logarithms(cells: list[Cell], kept: Collection[str], example: Mapping[Any, int]) -> list[Cell]:
    """The cells with every such product in that form, where all that reads it takes its logarithm."""
    if not any(c.expr is not None and c.expr.has(sp.log) for c in cells):
        return cells
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        total = sum_of_exponentials(c, known, example) if c.name not in kept and c.kind == "float" else None
        if total is not None and takes_logarithms([d for d in cells if c.name in d.reads or is_operand(c.name, d)], c):
            plain = replace(c, node=None, call=False, text=None, named=False)
            inner = exponent_of_sum(total, plain, free_name(f"{c.name}_add", known))
            known[inner.name] = inner
            out.append(inner)
            read = inner.element([*natural(total.body)])
            c = replace(plain, expr=total.func(sp.exp(read), *total.args[1:]), positive=True)
        out.append(c)
    return out


def exponent_of_sum(total: Any, c: Cell, name: str) -> Cell:
    """What the exponentials that are added up are of."""
    own = {i: fresh() for i in natural(total.body)}
    sizes: dict[Any, Any] = {**c.ranges, **dict(total.limits)}
    shape, expr = tuple(sizes[i] for i in own), total.body.args[0].xreplace(own)
    return replace(c, name=name, indices=tuple(own.values()), shape=shape, expr=expr, positive=False)


def is_operand(name: str, c: Cell) -> bool:
    """Whether a call is of a tensor."""
    return c.call and c.node is not None and name in c.node.operands


def takes_logarithms(readers: list[Cell], c: Cell) -> bool:
    """Whether all that reads a cell, and something does, takes its logarithm."""
    return bool(readers) and all(takes_logarithm(d, c.name) for d in readers)


def takes_logarithm(c: Cell, name: str) -> bool:
    """Whether a cell reads another one as what it takes the logarithm of alone."""
    if c.call or c.expr is None:
        return False
    logs = {
        x: sp.Dummy()
        for x in c.expr.atoms(sp.log)
        if accesses(cast("Any", x).args[0], name) == [cast("Any", x).args[0]]
    }
    return not accesses(cast("Any", c.expr.xreplace(logs)), name)


def sum_of_exponentials(c: Cell, known: Mapping[str, Cell], example: Mapping[Any, int]) -> Any:
    """A product of tensors of exponentials as a sum of exponentials; None for any other cell, and where there were too many of these."""
    e: Any = c.expr
    if not isinstance(e, Sigma) or not is_contraction(e):
        return None
    exponents = [exponent_of(f, known) for f in sp.Mul.make_args(e.body)]
    if None in exponents or any(known[a].dtype != c.dtype for a in c.reads):
        return None
    shapes = [c.shape, *[known[a].shape for a in c.reads]]
    whole, *parts = (count(s, example) for s in ((*c.shape, *[n for _, n in e.limits]), *shapes))
    return None if whole > MOST * sum(parts) else e.func(sp.exp(sp.Add(*exponents)), *e.args[1:])


def count(shape: Any, example: Mapping[Any, int]) -> int:
    """How many elements a shape has at the example's sizes."""
    return evaluate(cast("Any", sp.Mul(*shape)), example) if shape else 1


__all__ = ["RULE", "by_logarithms"]
