"""Sizes that the forward divided without a rest: with c = 4 q for q = c // 4, parts of a dimension are seen to fill it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.lower import Lowered
from codegen.steps import lowered
from codegen.tensors import T
from engine.notation import Quo, size_symbol
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.graph import Graph, Node

Shapes = tuple[tuple[Expr, ...], ...]


def lowered_at(graph: Graph, node: Node, position: int, kinds: tuple[str, ...]) -> Lowered:
    """What a node passes back to one operand, as torch statements over the placeholders of its template."""
    template = node.template
    assert template is not None
    whole = whole_quotients(graph, node)
    if not whole:
        return lowered(template, position, node.operand_shapes, kinds)
    units = {q: size_symbol(f"q{k}") for k, q in enumerate(whole)}
    there: dict[Any, Any] = {**units, **{q.args[0]: q.args[1] * unit for q, unit in units.items()}}
    at = Definition(shape_of(template.shape, there), template.indices, template.expr.xreplace(there))
    low = lowered(at, position, tuple(shape_of(s, there) for s in node.operand_shapes), kinds)

    def back(e: Expr) -> Expr:
        """With the sizes as they were: products of all parts are the whole, single parts are quotients."""
        plain = sp.expand(e.xreplace({unit: q.args[0] / q.args[1] for q, unit in units.items()}))
        rests = any(r.q != 1 for r in plain.atoms(sp.Rational))
        return e.xreplace({unit: q for q, unit in units.items()}) if rests else plain

    dense = low.dense
    return Lowered(
        None if dense is None else replace(dense, t=mapped(dense.t, back)),
        tuple(replace(s, items=mapped(s.items, back), value=mapped(s.value, back)) for s in low.scatters),
    )


def whole_quotients(graph: Graph, node: Node) -> list[Quo]:
    """The quotients in a node's shapes that leave no rest: the trace holds only where they do not."""
    template, sizes = node.template, dict(node.sizes)
    shapes = () if template is None else (*node.operand_shapes, template.shape)
    found = dict.fromkeys(q for s in shapes for n in s for q in sorted(n.atoms(Quo), key=str))
    fixed = [g.expr for g in graph.guards if g.value == 0 and g.equal is None]
    out: list[Quo] = []
    for q in found:
        size, count = q.args
        actual = sizes.get(cast("Any", size))
        if size.is_Symbol and count.is_Integer and actual is not None:
            rest = actual - count * Quo(actual, count)
            if any(sp.expand(e - rest) == 0 or sp.expand(e + rest) == 0 for e in fixed):
                out.append(q)
    return out


def shape_of(shape: tuple[Expr, ...], there: dict[Any, Any]) -> tuple[Expr, ...]:
    """A shape with sizes replaced."""
    return tuple(n.xreplace(there) for n in shape)


def mapped(t: Any, function: Callable[[Expr], Expr]) -> Any:
    """A torch expression with a function applied to its sizes."""
    if isinstance(t, T):
        args = tuple(mapped(a, function) for a in t.args)
        return T(t.kind, t.head, args, tuple((k, mapped(v, function)) for k, v in t.keywords))
    if isinstance(t, tuple):
        return tuple(mapped(a, function) for a in cast("tuple[Any, ...]", t))
    return function(t) if isinstance(t, Expr) else t


__all__ = ["lowered_at"]
