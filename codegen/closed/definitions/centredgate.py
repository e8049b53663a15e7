"""A sigmoid less its value at zero, as the tanh that it is: 2 sigmoid(f) - 1 = tanh(f/2), whatever quotient it is written as."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.definitions.completed import without
from codegen.closed.definitions.logistic import DEPTH, elementwise_cells, moebius, of_exponentials
from codegen.closed.regions.cells import substituted
from engine.naming import free_name
from engine.notation import Sigma, accesses, base, element

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell

RULE = "2 sigmoid(f) - 1 is tanh(f / 2), which keeps its digits where it is small"


def with_centred_gates(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells with every such sum as a multiple of a tanh, without what only these sums have read."""
    known: dict[str, Cell] = {}
    names = {c.name for c in cells}
    out: list[Cell] = []
    for c in cells:
        found = centred(c, known)
        if found is not None and found[1] != 1:
            gate = replace(c, name=free_name(f"{c.name}_tanh", names), expr=found[0], node=None, text=None, named=False)
            gate = replace(gate, positive=False)
            names.add(gate.name)
            known[gate.name] = gate
            out.append(gate)
            c = replace(c, expr=found[1] * element(base(gate.name, positive=False), c.indices))
        elif found is not None:
            c = replace(c, expr=found[0])
        known[c.name] = c
        out.append(c)
    return without(out, cells, kept)


def centred(cell: Cell, known: Mapping[str, Cell]) -> tuple[Expr, Expr] | None:
    """tanh and its number, of a cell that adds up to one; None for any other."""
    inner: Any = cell.expr
    if not isinstance(inner, sp.Add) or cell.call or cell.kind != "float":
        return None
    usable = {n: c for n, c in elementwise_cells(known).items() if not cast("Expr", c.expr).has(Sigma)}
    usable = of_exponentials(usable)
    for _ in range(DEPTH + 2):
        if inner.has(sp.exp) and all(t.has(sp.exp) for t in sp.Add.make_args(inner) if accesses(t)):
            number, tanh = (moebius(inner) or sp.S.Zero).as_coeff_Mul()
            return (tanh, number) if isinstance(tanh, sp.tanh) else None
        step = substituted(inner, usable)
        if step == inner:
            return None
        inner = step
    return None
