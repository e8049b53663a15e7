"""Logarithms of running sums of exponentials: `Sum_j [j <= i] exp(f_j)` is `Sum_j exp(f_j if j <= i else -oo)`, which is in one region with
its logarithm, a kernel of torch that does not overflow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.definitions.several import divides, exponent_of
from engine.indexed import Indexed
from engine.notation import LessEqual, Sigma, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.regions.cells import Cell

RULE = "the logarithm of a running sum of exponentials is one of the sum of those that are not -oo"


def by_running_logarithms(cells: list[Cell], kept: Sequence[str]) -> list[Cell]:
    """The cells with every such sum in that form, where all that reads it takes its logarithm or divides an exponential by it."""
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        total = running_total(c, known) if c.name not in kept else None
        fits = (
            total is not None
            and divides(c, cells)
            and all(scales(d, c.name, known) for d in cells if c.name in d.reads)
        )
        out.append(replace(c, expr=total, node=None, call=False, text=None, positive=True) if fits else c)
    return out


def scales(c: Cell, name: str, known: Mapping[str, Cell]) -> bool:
    """Whether a cell takes the logarithm of another one, or divides an exponential by it."""
    logs = {a for x in cast("Any", c.expr).atoms(sp.log) for a in accesses(x, name)}
    tops = [f for f in sp.Mul.make_args(c.expr) if exponent_of(f, known) is not None]
    return not c.call and (bool(tops) or logs >= {*accesses(cast("Any", c.expr), name)})


def running_total(c: Cell, known: Mapping[str, Cell]) -> Any:
    """A running sum of exponentials as a sum of exponentials; None for any other cell."""
    e: Any = c.expr
    if not isinstance(e, Sigma) or len(e.limits) != 1 or c.kind != "float" or not isinstance(e.body, sp.Mul):
        return None
    brackets = [f for f in e.body.args if isinstance(f, LessEqual)]
    terms = [f for f in e.body.args if f not in brackets]
    if len(brackets) != 1 or len(terms) != 1 or e.limits[0][0] not in brackets[0].args:
        return None
    source = known.get(name_of(terms[0])) if isinstance(terms[0], Indexed) else None
    exponent = None if source is not None and source.dtype != c.dtype else exponent_of(terms[0], known)
    return None if exponent is None else e.func(sp.exp(Where(brackets[0], exponent, -sp.oo)), *e.args[1:])


__all__ = ["RULE", "by_running_logarithms"]
