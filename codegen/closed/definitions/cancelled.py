# pyright: basic
"""Exponentials that cancel: `(exp(f/2) e)^2 / exp(f)` is e^2, which overflows nowhere and passes nothing back to f.

So is the density of what was drawn by it: `(z - m) / s` with z = m + s e.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import BINDERS, accesses, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell

RULE = "exponentials of what is multiplied cancel"
DEPTH = 6
"""Through how many products an exponential is looked for."""


def without_cancelling(cells: list[Cell]) -> list[Cell]:
    """The cells, with every product of which all exponentials cancel as what is left of it."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        left = None if c.exact or not is_product(c) else left_of(c, known)
        out.append(c if left is None else replace(c, expr=left, text=None))
        if is_product(out[-1]) or isinstance(c.expr, sp.exp):
            known[c.name] = out[-1]
    return out


def is_product(c: Cell) -> bool:
    """Whether a cell is a product of powers of tensors."""
    return isinstance(c.expr, (sp.Mul, sp.Pow)) and c.kind == "float" and not c.call and not c.expr.has(*BINDERS)


def left_of(c: Cell, known: dict[str, Cell]) -> Any:
    """What is left of a product that is divided by an exponential, where no exponential is; None for any other."""
    e: Any = c.expr
    for _ in range(DEPTH):
        if not any(name_of(a) in known for a in accesses(e)):
            break
        e = substituted(e, known)
    plain = not e.has(sp.exp) and all(
        isinstance(a.as_base_exp()[0], Indexed) or a.is_number for a in sp.Mul.make_args(e)
    )
    return e if plain and e.has(Indexed) and cancels(c, known) else None


def cancels(c: Cell, known: dict[str, Cell]) -> bool:
    """Whether an exponential is among what a product is divided by."""
    below = [f.as_base_exp() for f in sp.Mul.make_args(c.expr)]
    return any(
        p.could_extract_minus_sign()
        and any(isinstance(known[r].expr, sp.exp) for r in map(name_of, accesses(b)) if r in known)
        for b, p in below
    )


__all__ = ["RULE", "without_cancelling"]
