# pyright: basic
"""Tensors of few different numbers, which none of a graph's inputs changes: ones at places, masks, choices between constants."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import sympy as sp

from engine.indexed import Indexed
from engine.notation import BRACKETS, Where, name_of

if TYPE_CHECKING:
    from engine.graph import Graph

MOST, DEPTH = 8, 8
BITS = 8
"""Of numbers that floats of every precision hold: above, and below as a power of two."""


def few_values(definition: Any, graph: Graph, depth: int = DEPTH) -> frozenset[Any] | None:
    """The numbers that a definition comes to, wherever it is asked; None for any other, or for more than a few."""
    return None if definition is None else values_of(definition[1], graph, depth)


def values_of(e: Any, graph: Graph, depth: int) -> frozenset[Any] | None:
    """The numbers that an expression comes to."""
    if e.is_Rational:
        return frozenset({e})
    if isinstance(e, BRACKETS):
        return frozenset({sp.S.Zero, sp.S.One})
    if isinstance(e, Indexed):
        return few_values(graph[name_of(e)].definition, graph, depth - 1) if depth else None
    parts = e.args[1:] if isinstance(e, Where) else e.args if isinstance(e, (sp.Add, sp.Mul)) else ()
    found = [f for a in parts if (f := values_of(a, graph, depth)) is not None]
    if not found or len(found) != len(parts):
        return None
    every = frozenset().union(*found) if isinstance(e, Where) else {e.func(*chosen) for chosen in product(*found)}
    return frozenset(every) if len(every) <= MOST else None


def short(v: Any) -> bool:
    """Whether a number is a small whole number over a small power of two."""
    return abs(v.p) < 2**BITS and v.q <= 2**BITS and v.q & (v.q - 1) == 0


__all__ = ["few_values", "short"]
