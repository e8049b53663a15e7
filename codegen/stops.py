"""Where a forward stops derivatives: `detach`, `torch.no_grad`, and what an op reads without one, as a row of padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.notation import Fixed, accesses, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from engine.graph import Graph, Node


def read_by(e: Expr) -> set[int]:
    """Which operands an expression of a template reads elements of."""
    names = {name_of(a).removeprefix("_") for a in accesses(e)}
    return {int(n) for n in names if n.isdigit()}


def without_gradient(graph: Graph, n: Node) -> bool:
    """Whether a node was computed under `torch.no_grad` from what has a gradient."""
    if n.differentiable or not n.dtype.is_floating_point:
        return False
    read = read_by(n.template.expr) if n.template is not None else range(len(n.operands)) if n.implicit else ()
    return any(graph[n.operands[k]].differentiable for k in read)


def stops(graph: Graph, n: Node) -> bool:
    """Whether a node, or a part of what defines it, has no derivative though it is computed from what has one."""
    if n.op == "detach":
        return graph[n.operands[0]].differentiable
    if n.template is None or not n.differentiable:
        return without_gradient(graph, n)
    fixed = n.template.expr.atoms(Fixed)
    return any(graph[n.operands[k]].differentiable for f in fixed for k in read_by(f))


def needed(graph: Graph) -> list[Node]:
    """The nodes that the results are computed from, in order."""
    found: set[str] = set()
    stack = list(graph.outputs)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(graph[name].operands)
    return [n for n in graph.nodes if n.name in found]


def has_stops(graph: Graph) -> bool:
    """Whether a result depends on what has no derivative there though it is computed from what has one.

    Then a derivative of the gradient is not that of its values: `x.detach() * x` has the gradient x, whose derivative is 0.
    """
    found: set[str] = set()
    stack = [n for n in graph.outputs if graph[n].differentiable]
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        if stops(graph, graph[name]):
            return True
        stack.extend(o for o in graph[name].operands if graph[o].dtype.is_floating_point)
    return False
