# pyright: basic
"""A product with a minus in front as the product without it, where its readers add it to others or multiply it: they subtract.

What is added and subtracted costs the same, a minus in front of a tensor costs one more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.kernels.scattered import is_linear
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import accesses, fresh

if TYPE_CHECKING:
    from collections.abc import Container

    from codegen.closed.regions.cells import Cell

ODD = (sp.tanh, sp.sin, sp.tan, sp.asin, sp.atan, sp.sinh, sp.asinh, sp.atanh, sp.erf, sp.erfinv)
"""Functions that take a minus out of what they are of, so that a minus that is saved may come back in front of them."""
RULE = "the minus in front of a product goes to who reads it"


def without_minus(cells: list[Cell], kept: Container[str] = ()) -> list[Cell]:
    """The cells with the minus of each such product, which is not `kept`, in its readers."""
    if any(c.expr is not None and c.expr.has(*ODD) for c in cells):
        return cells
    taken = {c.name for c in cells}
    out: list[Cell] = []
    turned: dict[str, Cell] = {}
    for c in cells:
        if c.expr is not None and any(r in turned for r in c.reads):
            there = {a: -turned[n].element(a.indices) for n in c.reads if n in turned for a in accesses(c.expr, n)}
            c = replace(c, expr=cast("Any", c.expr).xreplace(there), text=None)
        if is_negative(c) and c.name not in kept and linear_in(c, cells):
            name = free_name(f"{c.name}_negated", taken)
            taken.add(name)
            own = {i: fresh() for i in c.indices if i != 0}
            turned[c.name] = c = replace(
                c,
                name=name,
                indices=tuple(own.get(i, i) for i in c.indices),
                expr=cast("Any", -cast("Any", c.expr)).xreplace(own),
                node=None,
                text=None,
            )
        out.append(c)
    return out


def is_negative(c: Cell) -> bool:
    """Whether a tensor without a name of its own is a product of tensors with a minus in front."""
    if not isinstance(c.expr, Mul) or c.named or c.call or c.kind != "float":
        return False
    several = sum(f.has(Indexed) for f in c.expr.args) > 1
    return several and bool(c.expr.as_coeff_Mul()[0].is_negative)


def linear_in(c: Cell, cells: list[Cell]) -> bool:
    """Whether all that reads a tensor adds multiples of it up, none of which is the tensor itself."""
    reads = [(d, a) for d in cells if d.expr is not None for a in accesses(d.expr, c.name)]
    return bool(reads) and all(not d.call and is_linear(d.expr, a) and d.expr != a for d, a in reads)


__all__ = ["RULE", "without_minus"]
