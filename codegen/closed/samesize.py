"""Sizes that the forward found to be equal, under one name: what is joined or cut at them is seen to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sympy as sp
from sympy import Expr

from engine.notation import Quo

if TYPE_CHECKING:
    from engine.graph import Graph


def with_equal_sizes(graph: Graph) -> Graph:
    """The graph with the second of two sizes read as the first where a guard says that they are equal."""
    same = equal_sizes(graph)
    if not same:
        return graph

    def shape(sizes: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(n.xreplace(same) for n in sizes)

    nodes = tuple(
        replace(
            n,
            sizes=tuple((s, e.xreplace(same)) for s, e in n.sizes),
            shape=shape(n.shape),
            operand_shapes=tuple(map(shape, n.operand_shapes)),
        )
        for n in graph.nodes
    )
    return replace(graph, nodes=nodes)


def equal_sizes(graph: Graph) -> dict[Expr, Expr]:
    """What stands for each size that a guard says to be another one."""
    order: list[Expr] = list(graph.sizes)
    same: dict[Expr, Expr] = {}
    for g in graph.guards:
        one, *others = sp.Add.make_args(sp.expand(g.expr.xreplace(same)))
        if g.value != 0 or g.equal is not None or len(others) != 1:
            continue
        pair = [abs(e) for e in (one, *others)]
        sizes = all(isinstance(e, (sp.Symbol, Quo)) for e in pair) and one + others[0] in (
            pair[0] - pair[1],
            pair[1] - pair[0],
        )
        if sizes:
            kept, dropped = sorted(
                pair, key=lambda e: (order.index(e) if e in order else len(order), len(str(e)), str(e))
            )
            same = {**{e: k.xreplace({dropped: kept}) for e, k in same.items()}, dropped: kept}
    return same


__all__ = ["with_equal_sizes"]
