"""The regions of a graph closed: each with what is known of it from outside, its code, and the names of its cells here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr, Mul, S, Tuple

from codegen.closed.code import region_code
from codegen.closed.definitions.balanced import balanced_cotangent
from codegen.closed.plan.backward import cot_name
from codegen.closed.regions.cells import Cell, is_contraction
from codegen.closed.regions.code import RegionCode, resized
from codegen.closed.regions.constants import Sums, sum_of_definition
from codegen.closed.regions.copies import copies_of
from codegen.closed.regions.region import Region, boundary, normalized
from engine.notation import BINDERS, Index, Sigma, accesses, base, element, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.regions.structure import Structure, Unit
    from codegen.closed.write.blocks import Labels


@dataclass(frozen=True, eq=False)
class Closed:
    """A region's code, and what its cells and sizes, which are numbered there, are in this graph."""

    code: RegionCode
    names: dict[str, str]
    sizes: dict[Any, Expr]

    @property
    def refused(self) -> list[str]:
        """Why simpler forms were not taken, in this graph's names."""
        return [self.rule(r) for r in self.code.refused]

    def rule(self, rule: str) -> str:
        """A rule of the trail in this graph's names."""
        cots = {cot_name(n): f"d{own}" for n, own in self.names.items()}
        return " ".join(self.names.get(word) or cots.get(word, word) for word in rule.split(" "))


def closed(unit: Unit, structure: Structure, labels: Labels, before: Iterable[Closed] = ()) -> Closed:
    """The code of a unit that is a region; cells that only the code has get a name and a rank here.

    What the regions `before` it know of sums is told to it.
    """
    graph, by_name = structure.graph, structure.by_name
    readers = structure.outside(unit)
    seeds = structure.seeds(unit)
    needed = tuple(c.name for c in unit.cells if c.name in graph.outputs or c.name in readers)
    edge = boundary(list(unit.cells), by_name)
    wanted = tuple(c.name for c in edge if c.name in structure.live)
    relations, read = relations_of(seeds, readers, structure, unit.cells)
    edge = [*edge, *[replace(by_name[n], expr=None) for n in read if n not in {c.name for c in edge}]]
    summed = tuple((n, axes) for n in wanted for axes in [summed_axes(by_name[n], structure.live)] if axes)
    known = {
        names[n]: ((names[n], axis, value),) for c in before for names in [c.names] for n, axis, value in c.code.sums
    }

    def told(name: str) -> Sums:
        c = by_name[name]
        if c.expr is None and c.node is not None and c.node.op == "detach":
            return tuple((name, axis, value) for _, axis, value in told(c.node.operands[0]))
        return known.get(name) or (() if c.expr is None else sum_of_definition(c, told))

    sums = tuple(s for c in edge if c.name not in wanted for s in told(c.name) if c.kind == "float" or s[2] == 1)
    still_zero = still(seeds, readers, structure)
    whole = Region(
        (*edge, *unit.cells), seeds, wanted, needed, relations, summed, (*sums, *still_zero), copies_of(edge, by_name)
    )
    key, region, names, sizes = normalized(whole)
    values = {z: evaluate(n, graph.example) for z, n in sizes.items()}
    code = resized(region_code(key, region, values), sizes)
    for c in code.cells:
        if c.name not in names:
            origin = c.name.split("_")[0]
            names[c.name] = labels.namer(f"{names.get(origin, origin)}_{c.name.partition('_')[2]}")
            labels.note(names[c.name], c.shape, c.kind)
            structure.masks |= {names[c.name]} if c.kind == "bool" else set()
    return Closed(code, names, sizes)


def still(seeds: tuple[str, ...], readers: dict[str, list[Cell]], structure: Structure) -> Sums:
    """The cotangents that are passed back to a region and sum to zero over an axis; of each the first.

    Only those of tensors that another order of products made. What the forward itself centres is centred in its backward, too:
    at a large offset a mean is not exact, and that is what takes it out of autograd's gradient.
    """
    found: list[tuple[str, int, Expr]] = []
    for name in seeds:
        live = [c for c in readers.get(name, []) if c.name in structure.live]
        if live and structure.by_name[name].node is None:
            axes = balanced_cotangent(structure.by_name[name], live, structure.by_name)
            found.extend((cot_name(name), k, S.Zero) for k in axes[:1])
    return tuple(found)


def summed_axes(c: Cell, live: set[str]) -> tuple[tuple[int, ...], ...]:
    """The sets of axes over which a contraction's gradient is summed against a tensor, one for each tensor that gets a gradient."""
    if c.expr is None or not is_contraction(c.expr):
        return ()
    found: dict[tuple[int, ...], None] = {}
    for a in accesses(c.expr):
        if name_of(a) in live:
            at = a.free_symbols
            found[tuple(k for k, i in enumerate(c.indices) if i != 0 and i not in at)] = None
    return tuple(axes for axes in found if axes)


def relations_of(
    seeds: tuple[str, ...], readers: dict[str, list[Cell]], structure: Structure, cells: Iterable[Cell]
) -> tuple[tuple[tuple[Expr, Expr], ...], list[str]]:
    """For o = Sum_j p v, the only reader of p: Sum_j p dp = Sum_d o do, over whatever indices o has and p has not.

    It holds because o is linear in p. It is offered where o is at most half as large as p: the sum over p takes the
    rounding of dp with it, which cancels in `dp - Sum_j p dp` where p is nearly one, the one over o is rounded by itself.
    And only where the region's `cells` sum over such an axis at all, there or back: layers of a network are one region then,
    whatever reads the last of them.
    """
    found: list[tuple[Expr, Expr]] = []
    read: list[str] = []
    for name in seeds:
        live = [c for c in readers.get(name, []) if c.name in structure.live]
        if len(live) != 1 or name in structure.graph.outputs:
            continue
        o, p = live[0], structure.by_name[name]
        pair = relation(o, p) if 2 * count(o, structure) <= count(p, structure) else None
        if pair is not None and any(sums_over({n for _, n in cast("Any", pair[0]).limits}, c) for c in cells):
            found.append(pair)
            read.append(o.name)
    return tuple(found), read


def sums_over(sizes: set[Any], c: Cell) -> bool:
    """Whether a cell, or what it passes back, is summed over an axis of one of the sizes: it reads something that has no such axis."""
    if c.expr is None:
        return False
    if c.call or any(n in sizes for x in c.expr.atoms(*BINDERS) for _, n in cast("Any", x).limits):
        return True
    along = {i for i, n in c.ranges.items() if n in sizes}
    return any(not along <= a.free_symbols for a in accesses(c.expr))


def relation(o: Cell, p: Cell) -> tuple[Expr, Expr] | None:
    """(Sum_j p dp, Sum_d o do) of a contraction o that reads p once; None where there are no such sums."""
    if o.expr is None or not is_contraction(o.expr):
        return None
    sums = [f for f in Mul.make_args(o.expr) if isinstance(f, Sigma)]
    own = accesses(o.expr, p.name)
    if len(sums) != 1 or len(own) != 1 or own[0] not in Mul.make_args(sums[0].body):
        return None
    at = [i for i in own[0].indices if i != 0]
    summed = [(i, n) for i, n in sums[0].limits]
    if any(not isinstance(i, Index) for i in at) or len(set(at)) != len(at) or any(i not in at for i, _ in summed):
        return None
    rest = [(i, n) for i, n in zip(o.indices, o.shape, strict=True) if i != 0 and i not in at]
    order = {i: Index(f"_r{k}") for k, i in enumerate([*at, *[i for i, _ in rest]])}
    left = Sigma(element(base(cot_name(p.name)), own[0].indices) * own[0], *[Tuple(i, n) for i, n in summed])
    right = Sigma(
        element(base(cot_name(o.name)), o.indices) * element(base(o.name, o.positive), o.indices),
        *[Tuple(i, n) for i, n in rest],
    )
    return (left.xreplace(order), right.xreplace(order)) if rest else None


def count(c: Cell, structure: Structure) -> int:
    """The number of elements of a cell at the example's sizes."""
    return evaluate(cast("Expr", Mul(*c.shape)), structure.graph.example) if c.shape else 1


__all__ = ["Closed", "closed"]
