"""Which nodes of a graph are drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.wholes import DRAWN

if TYPE_CHECKING:
    from engine.graph import Graph


def random_nodes(graph: Graph) -> tuple[str, ...]:
    """Nodes that are drawn anew by every call of the forward."""
    return tuple(n.name for n in graph.nodes if n.op in DRAWN and n.definition is None)
