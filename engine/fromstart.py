"""Integer tensors that torch takes for places counted from the start alone: brackets count from the end below zero, most ops refuse that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy as sp
import torch

from engine.indexed import Indexed
from engine.notation import Delta, Equal, Index, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sympy import Expr

    from engine.graph import Graph, Node

READ = frozenset(("cross_entropy", "embedding", "gather", "index_select", "multi_margin_loss", "nll_loss"))
"""Ops that read at places and refuse those below zero."""
WRITTEN = frozenset(("index_add", "index_copy", "one_hot", "scatter", "scatter_add", "scatter_reduce"))
"""Ops that write at places and refuse those below zero."""


@dataclass(frozen=True)
class Place:
    """That a node takes the values of an integer tensor for places: of how many, and from which on.

    `least` is below zero where a loss leaves out a place there, None where only some of the values have to be places.
    """

    name: str
    node: Node
    size: Expr
    least: int | None

    @property
    def strict(self) -> bool:
        """Whether torch refuses those below zero."""
        return self.node.op in READ | WRITTEN


@dataclass(frozen=True)
class Places:
    """`alone` are integer tensors that are places from the start, and nowhere such as may count from the end. `inputs` are those
    of the graph of which each number has to be such a place.
    """

    alone: frozenset[str]
    inputs: dict[str, Place]


def places_from_start(graph: Graph) -> Places:
    """What a graph's ops take for places counted from the start."""
    refused: set[str] = set()
    counted: set[str] = set()
    checked: dict[str, Place] = {}
    for p in (p for n in graph.nodes for p in places_of(n, graph)):
        shown = list(sights(p.name, graph))
        (counted if p.least == -1 or not p.strict else refused).update(shown)
        if not p.strict or p.least is None:
            continue
        for s in shown:
            whole = sp.expand(sp.Mul(*graph[s].shape) - sp.Mul(*graph[p.name].shape)) == 0
            if graph[s].is_input and whole and (s not in checked or p.node.op in WRITTEN):
                checked[s] = p
    alone = frozenset(n for n in refused - counted if graph[n].dtype in (torch.int32, torch.int64))
    return Places(alone, checked)


def places_of(n: Node, graph: Graph) -> Iterator[Place]:
    """What a node takes for places."""
    if n.definition is None:
        return
    indices, e = n.definition
    sizes = dict(zip(indices, n.shape, strict=True))
    brackets = e.atoms(Delta, Equal)
    left_out = {m.args[0] for m in brackets if isinstance(m, Equal) and m.args[1] == -1}
    for a in accesses(e):
        for at, size in zip(a.indices, graph[name_of(a)].shape, strict=False):
            for inner in () if isinstance(at, (Index, sp.Integer)) else at.atoms(Indexed):
                yield Place(name_of(inner), n, size, None if inner != at else -1 if at in left_out else 0)
    for d in (d for d in brackets if isinstance(d, Delta)):
        for k, at in (d.args, d.args[::-1]):
            if isinstance(at, Indexed):
                yield Place(name_of(at), n, sizes.get(k, sp.oo), 0)


def from_start(at: Expr, alone: Callable[[str], bool]) -> bool:
    """Whether a place is refused below zero: that of a tensor of such `alone`, or a number where it is left out."""
    if isinstance(at, Where):
        return all(from_start(b, alone) or (b.is_Integer and b >= 0) for b in at.args[1:])
    return isinstance(at, Indexed) and alone(name_of(at))


def sights(name: str, graph: Graph) -> Iterator[str]:
    """A tensor, and what it shows elements of."""
    while True:
        yield name
        n = graph[name]
        if n.definition is None or not isinstance(n.definition[1], Indexed):
            return
        name = name_of(n.definition[1])


__all__ = ["Place", "Places", "from_start", "places_from_start"]
