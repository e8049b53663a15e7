"""Sizes that the forward found to be equal, under one name: what is joined or cut at them is seen to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from engine.notation import Quo
from engine.table import Definition

if TYPE_CHECKING:
    from engine.graph import Graph, Node


def with_equal_sizes(graph: Graph) -> Graph:
    """The graph with the second of two sizes read as the first where a guard says that they are equal."""
    same = equal_sizes(graph)
    if not same:
        return graph

    return replace(graph, nodes=tuple(renamed(n, same) for n in graph.nodes))


def renamed(node: Node, same: dict[Expr, Expr]) -> Node:
    """A node in the sizes that are left, with a template in which what became equal has one name."""
    sizes: dict[Any, Expr] = {s: e.xreplace(same) for s, e in node.sizes}
    shape = tuple(n.xreplace(same) for n in node.shape)
    if node.template is None:
        return replace(node, sizes=tuple(sizes.items()), shape=shape)
    shapes = (node.template.shape, *node.operand_shapes)
    parts = dict.fromkeys(a for s in shapes for n in s for a in sorted(n.atoms(sp.Symbol, Quo), key=str))
    first: dict[Expr, Any] = {}
    known = {a: first.setdefault(a.xreplace(sizes).xreplace(same), a) for a in parts}
    there: dict[Any, Any] = {a: b for a, b in known.items() if a != b}

    def at(of: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(n.xreplace(there) for n in of)

    template = Definition(at(node.template.shape), node.template.indices, node.template.expr.xreplace(there))
    return replace(
        node,
        sizes=tuple(sizes.items()),
        shape=shape,
        template=template if there else node.template,
        operand_shapes=tuple(map(at, node.operand_shapes)),
    )


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
