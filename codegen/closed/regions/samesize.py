# pyright: basic
"""Sizes that the forward found to be equal, under one name: what is joined or cut at them is seen to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul
from torch.utils import _pytree as pytree

from engine.notation import Delta, Part, Quo, Sigma, size_symbol
from engine.sizes import Guard
from engine.spelling import SizeArg, is_slice, with_bounds
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.graph import Graph, Node


def with_equal_sizes(graph: Graph, fixed: Mapping[Any, str] | None = None, number: int = 0) -> Graph:
    """The graph with the second of two sizes read as the first where a guard says that they are equal.

    Sizes that are `fixed` at a number, with where this is, get a guard that says so.
    Products of sizes are compared by what they are made of: a template in which they stand has one name for each size.
    """
    guards = (*graph.guards, *(g for n in graph.nodes for g in met(n, graph)))
    shares, guards = without_shares(guards, graph)
    graph = replace(graph, guards=tuple(g for guard in guards for g in factor_by_factor(guard, graph)))
    whole: dict[Expr, Expr] = {s: cast("Expr", sp.Integer(number)) for s in fixed or ()}
    same = {**{e: k.xreplace(whole) for e, k in equal_sizes(graph).items()}, **shares, **whole}
    if fixed:
        graph = replace(graph, guards=(*graph.guards, *(Guard(s, number, where) for s, where in fixed.items())))
    parts = {p for e in same.values() for p in e.atoms(Part)}
    example = {**graph.example, **{p: graph.example[p.whole] // p.count for p in parts}}
    nodes = tuple(recalled(renamed(n, same), same) if same or multiplies(n) else n for n in graph.nodes)
    return replace(graph, nodes=nodes, example=example)


def multiplies(node: Node) -> bool:
    """Whether a dimension of a node or of an operand is a product of sizes."""
    law = node.template or node.implicit
    shapes = () if law is None else (law.shape, *node.operand_shapes)
    return any(isinstance(n, Mul) for shape in shapes for n in shape)


def renamed(node: Node, same: dict[Expr, Expr]) -> Node:
    """A node in the sizes that are left, with a template in which what became equal has one name."""
    sizes: dict[Any, Expr] = {s: e.xreplace(same) for s, e in node.sizes}
    shape = tuple(n.xreplace(same) for n in node.shape)
    law = node.template or node.implicit
    if law is None:
        return replace(node, sizes=tuple(sizes.items()), shape=shape)
    shapes = (law.shape, *node.operand_shapes)
    parts = dict.fromkeys(a for s in shapes for n in s for a in sorted(n.atoms(sp.Symbol, Quo), key=str))
    first: dict[Expr, Any] = {}
    values = {a: a.xreplace(dict(node.sizes)).xreplace(same) for a in parts}
    for a, value in values.items():
        first.setdefault(value, a)
    for value, a in first.items():
        if isinstance(value, Part) and not a.is_Symbol:  # a size of its own from here on
            first[value] = unit = size_symbol(f"unit{len(sizes)}")
            sizes[unit] = value
    there: dict[Any, Any] = {a: first[value] for a, value in values.items() if a != first[value]}
    there |= {a: value for a, value in values.items() if value.is_Integer}
    names = {value: a for value, a in first.items() if value.is_Symbol}
    for a, value in values.items():  # a size that is a product of others that the template has
        if isinstance(value, Mul) and value.free_symbols <= {*names}:
            there[a] = value.xreplace(names)
    for product, kept in same.items():
        if isinstance(product, Mul) and product.free_symbols <= {*names}:
            for n in sorted(kept.free_symbols - {*names}, key=str):  # sizes that the node had no part of
                names[n] = unit = size_symbol(f"unit{len(sizes)}")
                sizes[unit] = n
            there[product.xreplace(names)] = kept.xreplace(names)

    def at(of: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(n.xreplace(there) for n in of)

    if there and node.implicit is not None:
        node = replace(node, implicit=node.implicit.replaced(there))
    elif there and node.template is not None:
        expr = node.template.expr.xreplace(there)
        node = replace(node, template=Definition(at(node.template.shape), node.template.indices, expr))
    shapes = tuple(map(at, node.operand_shapes))
    return replace(node, sizes=tuple(sizes.items()), shape=shape, operand_shapes=shapes)


def recalled(node: Node, same: dict[Expr, Expr]) -> Node:
    """A node whose call has the sizes that are left among its arguments."""
    if node.call is None or not same:
        return node

    def left(v: Any) -> Any:
        if isinstance(v, SizeArg):
            return SizeArg(v.expr.xreplace(same))
        return with_bounds(left, v) if is_slice(v) else v

    args, kwargs = pytree.tree_map(left, (node.call.args, dict(node.call.kwargs)))
    return replace(node, call=replace(node.call, args=args, kwargs=tuple(kwargs.items())))


def is_size(e: Expr) -> bool:
    """A size, or a product of sizes and numbers."""
    return isinstance(e, (sp.Symbol, Quo)) or (
        isinstance(e, Mul) and all(f.is_Integer or isinstance(f, (sp.Symbol, Quo)) for f in e.args)
    )


def met(n: Node, graph: Graph) -> list[Guard]:
    """Where a sum puts values at rows of a tensor, as many as it has in the example: that it has as many."""
    if n.template is None or not n.template.expr.has(Delta) or n.definition is None:
        return []
    own = dict(zip(n.definition[0], n.shape, strict=True))
    where = "" if n.source is None else str(n.source)
    found: dict[Expr, None] = {}
    for s in sorted(n.definition[1].atoms(Sigma), key=str):
        limits, sizes = cast("dict[Any, Any]", dict(s.limits)), cast("dict[Any, int]", graph.example)
        for a, b in (x for d in s.atoms(Delta) for x in (d.args, d.args[::-1])):
            one, other = limits.get(a), cast("Any", own.get(b))
            if one != other and one in graph.sizes and other in graph.sizes and sizes[one] == sizes[other]:
                found[one - other] = None
    return [Guard(e, 0, where) for e in found]


def factor_by_factor(guard: Guard, graph: Graph) -> tuple[Guard, ...]:
    """`b t = n m` as b = n and t = m, where that is so in the example: rows of logits, flattened, beside as many targets."""
    terms = sp.Add.make_args(sp.expand(guard.expr))
    pair = [list(Mul.make_args(abs(cast("Any", e)))) for e in terms]
    known = {*graph.sizes}
    if guard.value != 0 or guard.equal is not None or len(terms) != 2 or guard.expr.subs(dict.fromkeys(known, 1)) != 0:
        return (guard,)
    if len(pair[0]) != len(pair[1]) or len(pair[0]) < 2 or not all(f in known for side in pair for f in side):
        return (guard,)
    order: dict[Any, int] = {n: k for k, n in enumerate(graph.sizes)}
    left, right = sorted((sorted(side, key=lambda f: order[f]) for side in pair), key=lambda side: order[side[0]])
    sizes = cast("dict[Any, int]", graph.example)
    if any(sizes[a] != sizes[b] for a, b in zip(left, right, strict=True)):
        return (guard,)
    return tuple(replace(guard, expr=b - a) for a, b in zip(left, right, strict=True) if a != b)


def equal_sizes(graph: Graph) -> dict[Expr, Expr]:
    """What stands for each size that a guard says to be another one."""
    order: list[Expr] = list(graph.sizes)
    same: dict[Expr, Expr] = {}
    for g in graph.guards:
        one, *others = sp.Add.make_args(undivided(g.expr.xreplace(same)))
        if g.value != 0 or g.equal is not None or len(others) != 1:
            continue
        pair = [abs(e) for e in (one, *others)]
        if not all(map(is_size, pair)) or one + others[0] not in (pair[0] - pair[1], pair[1] - pair[0]):
            continue
        whole = [e for e in pair if isinstance(e, Mul)]
        if len(whole) == 2:
            same |= product_by_product(whole[0], whole[1], order)
            continue
        if whole:  # n = 4 k
            (kept,), dropped = whole, next(e for e in pair if e not in whole)
            times, quotient = kept.as_coeff_Mul()
            if isinstance(quotient, Quo) and quotient.args == (dropped, times) and isinstance(dropped, sp.Symbol):
                part = Part(dropped, int(times))  # n = 4 (n // 4)
                own: dict[Any, Any] = {quotient: part, dropped: times * part}
                same = {**{e: k.xreplace(own) for e, k in same.items()}, **own}
            if dropped not in kept.atoms(sp.Symbol, Quo):
                same = {**{e: k.xreplace({dropped: kept}) for e, k in same.items()}, dropped: kept}
        else:
            kept, dropped = sorted(
                pair, key=lambda e: (order.index(e) if e in order else len(order), len(str(e)), str(e))
            )
            same = {**{e: k.xreplace({dropped: kept}) for e, k in same.items()}, dropped: kept}
    return same


def undivided(e: Expr) -> Expr:
    """A difference of sizes without a number that both are multiplied with."""
    return cast("Expr", cast("Any", sp.expand(e)).primitive()[1])


def without_shares(guards: tuple[Guard, ...], graph: Graph) -> tuple[dict[Expr, Expr], tuple[Guard, ...]]:
    """`h // g` as the number that it is in the example, where a guard says that g of them are h: heads that share keys.

    The guards then say that h is so many times g. What is repeated and what is split in groups fit each other so.
    """
    shares: dict[Expr, Expr] = {}
    sizes = cast("dict[Any, int]", graph.example)
    for guard in guards:
        for q in sorted(guard.expr.atoms(Quo), key=str):
            whole, own = cast("tuple[Expr, Expr]", q.args)
            known = whole.is_Symbol and own.is_Symbol and guard.value == 0 and guard.equal is None
            if known and guard.expr in (whole - own * q, own * q - whole):
                shares[q] = cast("Expr", sp.Integer(sizes[whole] // sizes[own]))
    if not shares:
        return {}, guards
    return shares, tuple(
        replace(g, expr=undivided(g.expr.xreplace(shares))) if g.expr.has(*shares) else g for g in guards
    )


def product_by_product(one: Mul, other: Mul, order: list[Expr]) -> dict[Expr, Expr]:
    """One product of sizes as another, where a guard says that they are equal: `h w c = 9 k`, rows of logits beside `k m` targets.

    What goes is a product without a number, that of the sizes met last where neither has one.
    """

    def met(product: Mul) -> int:
        return max((order.index(f) for f in product.args if f in order), default=-1)

    for product, kept in sorted(((one, other), (other, one)), key=lambda pair: -met(pair[0])):
        if all(f.is_Symbol for f in product.args) and product.free_symbols.isdisjoint(kept.free_symbols):
            return {product: kept}
    return {}


__all__ = ["with_equal_sizes"]
