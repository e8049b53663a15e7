# pyright: basic
"""Sums that are a line of a forward, in other lines of it: each is taken once, and read by its name.

A logarithm of a sum of exponentials is written out where it is a kernel that does not overflow. Of exponentials whose largest was
taken out it is the logarithm of the sum that is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.shares import held
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.notation import Amax, Sigma, Where, canonical, name_of

if TYPE_CHECKING:
    from sympy import Expr

RULE = "a sum that is there is read by its name"

Line = tuple[Cell, "Expr"]


def with_sums_by_name(lines: list[Line]) -> list[Line]:
    """The lines, with sums that are an earlier one read from that."""
    known: dict[str, Cell] = {}
    sums: dict[str, Cell] = {}
    out: list[Line] = []
    for c, e in lines:
        new = read_in(e, {**known, **sums}, known) if sums and e.has(Sigma) else e
        out.append((c, new))
        whole = Cell(c.name, c.indices, c.shape, new, c.kind, c.differentiable, c.dtype, positive=c.positive)
        (sums if isinstance(new, Sigma) else known)[c.name] = whole
    return out


def read_in(e: Any, there: dict[str, Cell], known: dict[str, Cell]) -> Any:
    """An expression with the sums that are `there` by their names, but for those of exponentials that may overflow."""
    if isinstance(e, Indexed) or not e.args:
        return e
    own = held(e, there) if isinstance(e, Sigma) and is_bounded(e, known) else None
    return rebuilt(e, lambda a: read_in(a, there, known)) if own is None else own


def is_bounded(total: Sigma, known: dict[str, Cell]) -> bool:
    """Whether what is summed is no exponential, or one whose largest exponent over the sum's axes was taken out."""
    body = total.body
    if isinstance(body, Indexed) and isinstance(definition(body, known), sp.exp):
        body = definition(body, known)
    if not isinstance(body, sp.exp):
        return True
    exponent: Any = cast("Any", body).args[0]
    exponent = definition(exponent, known) if isinstance(exponent, Indexed) else exponent
    return any(is_largest(-t, exponent - t, total, known) for t in sp.Add.make_args(exponent))


def is_largest(e: Any, f: Any, total: Sigma, known: dict[str, Cell]) -> bool:
    """Whether an expression is the largest f over a sum's axes, or zero in the place of an infinite one."""
    if isinstance(e, Where) and e.args[1] == 0:
        e = e.args[2]
    m = definition(e, known) if isinstance(e, Indexed) else e
    return type(m) is Amax and canonical(m) == canonical(Amax(f, *total.limits))


def definition(e: Any, known: dict[str, Cell]) -> Any:
    """What an element is, where that is known; the element itself elsewhere."""
    cell = known.get(name_of(e))
    return e if cell is None or cell.expr is None else at(cell, e.indices)


__all__ = ["RULE", "with_sums_by_name"]
