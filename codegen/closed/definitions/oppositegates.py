# pyright: basic
"""Two sigmoids of opposite arguments: `1 - sigmoid(-f)` is the sigmoid(f) that is there, to its last digit.

So an objective that is 1 - sigmoid(f) for some rows and 1 - sigmoid(-f) for the others takes one sigmoid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.linear import is_linear
from codegen.closed.definitions.logistic import gate_argument
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Index, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell

RULE = "one less the sigmoid of -f is the sigmoid of f"
DEPTH = 4
"""Through how many sums an argument is written out."""


def by_opposite_gates(cells: list[Cell]) -> list[Cell]:
    """The cells, reading the one sigmoid of two where the other is subtracted from one."""
    gates = {c.name: c for c in cells if c.expr is not None and gate_argument(c.expr) is not None}
    if len(gates) < 2:
        return cells
    linear = {c.name: c for c in cells if is_linear(c)}
    arguments = {n: written_out(c, linear) for n, c in gates.items()}
    opposite = {
        n: gates[m] for n, e in arguments.items() for m, f in arguments.items() if m != n and sp.expand(e + f) == 0
    }
    done: set[str] = set()
    out: list[Cell] = []
    for c in cells:
        there = {n: d for n, d in opposite.items() if d.name in done}
        e = c.expr if c.expr is None or not there or c.name in gates else read(c.expr, there)
        out.append(c if e is c.expr else replace(c, expr=e, text=None))
        done.add(c.name)
    return out


def written_out(c: Cell, linear: dict[str, Cell]) -> Any:
    """What a sigmoid is of, at indices by position, through sums and multiples."""
    e: Any = gate_argument(c.expr)
    for _ in range(DEPTH):
        e, before = substituted(e, linear), e
        if e == before:
            break
    return e.xreplace({i: Index(f"_o{k}") for k, i in enumerate(c.indices) if i != 0})


def read(e: Any, opposite: dict[str, Cell]) -> Any:
    """An expression with one less a sigmoid as the opposite one; the same object where there is none."""
    if isinstance(e, Indexed) or not e.args:
        return e
    if isinstance(e, sp.Add) and len(e.args) == 2 and sp.S.One in e.args:
        other = -(e - 1)
        if isinstance(other, Indexed) and name_of(other) in opposite:
            return opposite[name_of(other)].element(other.indices)
    return rebuilt(e, lambda a: read(a, opposite))


__all__ = ["RULE", "by_opposite_gates"]
