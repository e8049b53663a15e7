"""A closed program: forward and backward of all regions and contractions in order, as data for the template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.closed.closing import Closed, closed
from codegen.closed.regions.samesize import with_equal_sizes
from codegen.closed.regions.structure import Structure, Unit
from codegen.closed.write.blocks import Block, Labels
from codegen.closed.write.cotangents import Cotangents
from codegen.closed.write.forward import Forward
from codegen.closed.write.inside import with_parts_inside
from codegen.closed.write.likes import Likes
from codegen.closed.write.through import Through
from codegen.formula import LETTERS
from engine.naming import Namer

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell
    from codegen.derivation import Proof
    from codegen.emitfunction import Emission
    from engine.graph import Graph


class ClosedWriter:
    """Writes the closed forward and backward of a graph for the gradients of `wanted` inputs."""

    def __init__(self, graph: Graph, wanted: tuple[str, ...]) -> None:
        self.graph = graph = with_equal_sizes(graph)
        self.wanted = wanted
        self.structure = Structure(graph, wanted)
        if self.structure.vector_sizes:
            self.graph = graph = with_equal_sizes(graph, self.structure.vector_sizes, 3)
            self.structure = Structure(graph, wanted)
        self.cells, self.by_name = self.structure.cells, self.structure.by_name
        self.live, self.units = self.structure.live, self.structure.units
        self.ranks = {c.name: len(c.shape) for c in self.cells}
        letters = frozenset(LETTERS) & {*self.by_name, *map(str, graph.sizes)}
        namer = Namer([*self.by_name, *(n.name for n in graph.nodes), *map(str, graph.sizes)])
        self.labels = Labels(namer, self.ranks, letters)
        for c in self.cells:
            self.labels.note(c.name, c.shape, c.kind)
        self.likes = Likes(self.structure, self.ranks)
        self.forward = Forward(self.structure, self.labels, self.likes)
        self.backward = Cotangents(self.structure, self.labels, self.likes)
        self.regions: dict[Unit, Closed] = {}
        self.proofs: list[Proof] = []
        self.gradients: dict[str, str] = {}
        self.saved: tuple[str, ...] = ()
        self.emitted: tuple[Block, ...] = ()
        """The forward's statements as they stand in the file."""
        self.emission: Emission | None = None

    def write(self) -> None:
        """Everything."""
        for u in self.units:
            if u.local:
                self.regions[u] = closed(u, self.structure, self.labels, tuple(self.regions.values()))
        for k, o in enumerate(self.graph.outputs):
            self.backward.seed(o, self.likes.given(k))
        for u in reversed(self.units):
            if u.local:
                through = Through(u, self.regions[u], self.backward)
                through.write()
                self.proofs.extend(through.proofs)
            elif u.root.name in self.live and passes_back(u.root) and u.root.name in self.backward.pending:
                self.backward.call(u.root)
        for name in self.wanted:
            self.gradients[name] = self.backward.finish_input(name)
        kept = {*self.gradients.values()}
        self.backward.blocks = with_parts_inside(self.backward.blocks, self.backward.sums, kept, self.labels)
        for u in self.units:
            if u.local:
                self.forward.region(self.regions[u])
            elif u.root.node is None or not u.root.node.is_input:
                self.forward.call(u.root)

    @property
    def refused(self) -> list[str]:
        """Why simpler forms were not taken, in this graph's names."""
        return [reason for region in self.regions.values() for reason in region.refused]


def passes_back(c: Cell) -> bool:
    """Whether a call has a definition, or an equation that defines it."""
    return c.expr is not None or (c.node is not None and c.node.implicit is not None)


__all__ = ["ClosedWriter"]
