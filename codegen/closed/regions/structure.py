"""A graph's cells as what is processed at once, in order, with who reads whom and what gradients pass through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import sympy as sp

from codegen.closed.regions import fromend, onerow, productlogs, rows, runninglogs, runningproducts
from codegen.closed.regions.builder import Builder
from codegen.closed.regions.indifferent import told, without_indifferent
from codegen.closed.regions.largest import DETACHED, LARGEST, without_detached, without_places
from codegen.closed.regions.region import AGAIN, grouped, near_readers
from codegen.closed.regions.rewrites import compared
from codegen.closed.regions.symmetric import symmetric_among
from codegen.closed.regroup import RULE as ORDER
from codegen.closed.regroup import angles, ondiagonal, outerpowers, pairs, picked, regrouped, vectorproducts
from engine.notation import BRACKETS, accesses, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell
    from codegen.lowering.values import TensorInfo
    from engine.graph import Graph


@dataclass(frozen=True, eq=False)
class Unit:
    """What is processed at once: one contraction or call, or a region, which is `local`."""

    cells: tuple[Cell, ...]
    local: bool

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its cells."""
        return frozenset(c.name for c in self.cells)

    @property
    def root(self) -> Cell:
        """The last of its cells."""
        return self.cells[-1]


class Structure:
    """The cells of a graph and their units, seen from the gradients of `wanted` inputs."""

    def __init__(self, graph: Graph, wanted: tuple[str, ...]) -> None:
        self.graph = graph
        builder = Builder(graph)
        self.traced = builder.build()
        """The forward's own tensors."""
        narrow = onerow.with_one_row(self.traced, graph.outputs)
        self.vector_sizes = vectorproducts.vector_sizes(narrow, builder.literal, graph.example)
        """Sizes of which a vector product is made where they are fixed at three, with where it is."""
        vectors = vectorproducts.with_vector_products(narrow, graph.outputs, builder.literal)
        straight = fromend.from_the_end(vectors, graph.outputs)
        running = runninglogs.by_running_logarithms(straight, graph.outputs)
        summed = productlogs.by_logarithms(running, {*graph.outputs, *builder.literal}, graph.example)
        factored = runningproducts.by_slopes(summed, graph.outputs)
        picks = picked.with_picks_apart(factored, graph.outputs, builder.literal, graph.example)
        added = angles.with_angles_apart(picks, graph.outputs, builder.literal, graph.example)
        outer = outerpowers.with_powers_apart(added, graph.outputs, builder.literal, graph.example)
        paired = pairs.in_pairs(outer, graph.outputs, builder.literal, graph.example)
        divided = rows.with_shares_in_products(paired, graph.outputs)
        ordered = regrouped(divided, graph.outputs, builder.literal, graph.example)
        diagonal = ondiagonal.with_diagonals(ordered, graph.outputs, builder.literal)
        attached = without_detached(diagonal, graph.outputs)
        stilled = without_indifferent(attached, graph.outputs)
        values = without_places(stilled, graph)
        self.cells = near_readers(values, graph.outputs)
        self.notes = (
            *compared(onerow.RULE, self.traced, narrow),
            *compared(vectorproducts.RULE, narrow, vectors),
            *compared(fromend.RULE, vectors, straight),
            *compared(runninglogs.RULE, straight, running),
            *compared(productlogs.RULE, running, summed),
            *compared(runningproducts.RULE, summed, factored),
            *compared(picked.RULE, factored, picks),
            *compared(angles.RULE, picks, added),
            *compared(outerpowers.RULE, added, outer),
            *compared(pairs.RULE, outer, paired),
            *compared(rows.RULE, paired, divided),
            *compared(ORDER, divided, ordered),
            *compared(ondiagonal.RULE, ordered, diagonal),
            *compared(DETACHED, diagonal, attached),
            *told(attached, stilled),
            *compared(LARGEST, stilled, values),
            *compared(AGAIN, values, self.cells),
        )
        """What became of them before regions were closed."""
        self.by_name = {c.name: c for c in self.cells}
        self.readers: dict[str, list[Cell]] = {}
        for c in self.cells:
            for r in dict.fromkeys(reads(c)):
                self.readers.setdefault(r, []).append(c)
        self.live = self._live(wanted)
        self.symmetric = symmetric_among(self.cells)
        """The cells that are symmetric matrices."""
        self.units = self._units()
        self.masks = set[str]()
        """Truth values that regions keep beside these cells."""

    def _live(self, wanted: tuple[str, ...]) -> set[str]:
        """Cells on a path from a wanted input to an output."""
        down: set[str] = set()
        for c in self.cells:
            if c.name in wanted or (c.differentiable and any(r in down for r in reads(c))):
                down.add(c.name)
        up: set[str] = set(self.graph.outputs)
        for c in reversed(self.cells):
            if c.name in up:
                up.update(moved_by(c))
        return down & up

    def _units(self) -> list[Unit]:
        """Regions, contractions and calls, each after what it reads. Of a region that reads itself through others, every cell is one."""
        groups = grouped(self.cells)
        while True:
            found, torn = self._in_order([Unit(tuple(g), True) for g in groups])
            if torn is None:
                return found
            groups = [part for g in groups for part in ([[c] for c in g] if g[0] in torn.cells else [g])]

    def _in_order(self, regions: list[Unit]) -> tuple[list[Unit], Unit | None]:
        """Regions and what lies between them in order; a region for which there is no place."""
        owner = {c.name: u for u in regions for c in u.cells}
        units = dict.fromkeys(owner.get(c.name) or Unit((c,), False) for c in self.cells)
        of = {c.name: u for u in units for c in u.cells}
        done: dict[Unit, None] = {}
        begun: set[Unit] = set()
        for unit in units:
            stack: list[tuple[Unit, bool]] = [(unit, False)]
            while stack:
                u, ready = stack.pop()
                if u in done:
                    continue
                if ready:
                    done[u] = None
                    continue
                if u in begun:
                    return [], u if len(u.cells) > 1 else next(v for v in begun if v not in done and len(v.cells) > 1)
                begun.add(u)
                stack.append((u, True))
                needs = dict.fromkeys(of[r] for c in u.cells for r in (*reads(c), *c.after) if of[r] is not u)
                stack.extend((n, False) for n in reversed(list(needs)) if n not in done)
        return list(done), None

    def outside(self, u: Unit) -> dict[str, list[Cell]]:
        """The cells of a unit that are read from outside of it, with who reads them."""
        found = {c.name: [r for r in self.readers.get(c.name, []) if r.name not in u.names] for c in u.cells}
        return {n: cs for n, cs in found.items() if cs}

    def seeds(self, u: Unit) -> tuple[str, ...]:
        """The cells of a unit whose cotangent comes, in part or as a whole, from outside."""
        return tuple(c.name for c in u.cells if c.name in self.live and self.has_source_outside(c.name, u))

    def has_source_outside(self, name: str, u: Unit) -> bool:
        """Whether a cell gets cotangents from elsewhere than a unit: from the caller, or from who reads it there."""
        return name in self.graph.outputs or any(
            c.name not in u.names and c.name in self.live for c in self.readers.get(name, [])
        )

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """Shape and kind of every cell."""
        return {c.name: c.info for c in self.cells}


def moved_by(c: Cell) -> tuple[str, ...]:
    """What a cell may have a derivative to: not what it only compares."""
    if c.expr is None or c.call or not c.expr.has(*BRACKETS):
        return reads(c)
    compared_in = {b: sp.Dummy() for b in c.expr.atoms(*BRACKETS)}
    return tuple(dict.fromkeys(name_of(a) for a in accesses(c.expr.xreplace(compared_in))))


def reads(c: Cell) -> tuple[str, ...]:
    """What a cell is computed from."""
    return tuple(dict.fromkeys((*c.node.operands, *c.reads))) if c.node is not None and c.call else c.reads


__all__ = ["Structure", "Unit", "reads"]
