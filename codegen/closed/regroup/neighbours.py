# pyright: basic
"""Differences of neighbours, and what is known of the places at which they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Less, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sympy import Expr

    from codegen.closed.regions.cells import Cell


def shifts(c: Cell, known: Mapping[str, Cell]) -> bool:
    """Whether a cell is computed from several parts of tensors, as differences of neighbours are."""
    if c.expr is None:
        return False
    parts = [known[r] for r in c.reads if r in known and isinstance(known[r].expr, Indexed)]
    return len(parts) > 1 and len(parts) == len(c.reads) and not cast("Expr", c.expr).has(Sigma)


def by_places(e: Any, sizes: Mapping[str, Expr]) -> Any:
    """An expression with what is known of whole numbers that are places: none is below zero, nor beyond the `sizes` that it is a place of."""
    slots = {a: sp.Dummy(integer=True, nonnegative=True) for a in accesses(e) if name_of(a) in sizes}
    back = {x: a for a, x in slots.items()}

    def compared(f: Any) -> Any:
        number, a = f.args[0].as_coeff_Add()
        b = f.args[1] - number
        size = sizes[name_of(back[a])] if a in back else None
        return sp.S.One if size is not None and sp.expand(b - size).is_nonnegative else f.func(a, b)

    return e.xreplace(slots).replace(lambda f: type(f) is Less, compared).xreplace(back)


__all__ = ["by_places", "shifts"]
