# pyright: basic
"""An exponential beside another tensor, `exp(f) + c`, which no axis is summed over: m is the larger of f and 0 at every place.

It is exp(m) (exp(f - m) + c exp(-m)), whatever the sign of c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell


def by_its_own(origin: Cell, exponent: Any, top: str, body: list[Cell]) -> list[Cell]:
    """Scaled cells after the larger of each exponent and 0, and after its negative's exponential, which others are multiplied by."""
    taken = {*(c.name for c in body), top}
    plain = replace(origin, node=None, text=None, named=False, positive=False)
    held = replace(plain, name=top, expr=sp.log(1 + sp.exp(exponent)), differentiable=False)
    off = replace(
        held, name=free_name(f"{origin.name}_off", taken), expr=sp.exp(-held.element(held.indices)), positive=True
    )

    def told(e: Any) -> Any:
        there = {x: off.element(a.indices) for a in accesses(e, top) for x in [sp.exp(-a)] if e.has(x)}
        return e.xreplace(there) if there else e

    return [held, off, *[c if c.expr is None else replace(c, expr=told(c.expr)) for c in body]]


def is_beside(origin: Cell, known: Mapping[str, Cell]) -> bool:
    """Whether an exponential is added to other tensors, none of which is made of exponentials, `exp(f) + c`."""
    for c in known.values():
        for a in c.expr.atoms(sp.Add) if c.expr is not None and origin.name in c.reads else ():
            moving = [t for t in a.args if t.has(Indexed)]
            others = [t for t in moving if not any(f in accesses(t, origin.name) for f in Mul.make_args(t))]
            cells = [known[n] for t in others for n in map(name_of, accesses(t)) if n in known]
            plain = not any(d.expr is not None and d.expr.has(sp.exp, Sigma) for d in cells)
            if 0 < len(others) < len(moving) and plain and not any(t.has(sp.exp, Sigma) for t in others):
                return True
    return False


__all__ = ["by_its_own", "is_beside"]
