# pyright: basic
"""log(1 + exp(u)) of what has its sign turned at places: with u = -x where `[j = y]` and u = x elsewhere it is log(1 + exp(x)) - [j = y] x.

That is log(1 + exp(-x)) = log(1 + exp(x)) - x: no tensor with turned signs is made, and the slope is `sigmoid(x) - [j = y]`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.logistic import softplus_arguments
from codegen.closed.regions.cells import Cell, substituted
from engine.indexed import Indexed
from engine.notation import Delta, Sigma

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "log(1 + exp(u)) with u = -x at places and u = x elsewhere is log(1 + exp(x)) less x at these places"


def by_turned_places(cells: list[Cell]) -> list[Cell]:
    """The cells with every such logarithm written so."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        change: dict[Any, Any] = {}
        for g in softplus_arguments(c.expr) if c.expr is not None and not c.call and not c.expr.has(Sigma) else []:
            found = turned(g, known)
            if found is not None:
                x, place = found
                change[sp.log(1 + sp.exp(g))] = sp.log(1 + sp.exp(x)) - place * x
        if change:
            c = replace(c, expr=sp.expand(cast("Any", c.expr).xreplace(change)), text=None)
        known[c.name] = c
        out.append(c)
    return out


def turned(g: Any, known: Mapping[str, Cell]) -> tuple[Any, Any] | None:
    """x and the place of what is a multiple of `x (1 - 2 [place])`; None for anything else."""
    products = {
        n: d for n, d in known.items() if isinstance(d.expr, Mul) and d.expr.has(Delta) and not d.expr.has(Sigma)
    }
    whole = substituted(g, products) if products else g
    for f in Mul.make_args(whole):
        deltas = f.atoms(Delta) if isinstance(f, sp.Add) else set()
        if len(deltas) != 1:
            continue
        (place,) = deltas
        mark = sp.Dummy()
        there, elsewhere = (f.xreplace({place: mark}).xreplace({mark: k}) for k in (1, 0))
        rest = whole / f
        plain = isinstance(rest.as_coeff_Mul()[1], Indexed) and elsewhere.is_number and elsewhere != 0
        if plain and there == -elsewhere:
            return elsewhere * rest, place
    return None


__all__ = ["RULE", "by_turned_places"]
