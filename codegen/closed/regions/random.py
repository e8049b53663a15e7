"""Which nodes of a graph are drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.graph import Graph

RANDOM = frozenset(
    (
        "mask",
        "rand",
        "randn",
        "randint",
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
        "normal",
        "normal_",
        "multinomial",
    )
)
"""Ops whose result another call does not repeat."""


def random_nodes(graph: Graph) -> tuple[str, ...]:
    """Nodes that are drawn anew by every call of the forward."""
    return tuple(n.name for n in graph.nodes if n.op in RANDOM and n.definition is None)
