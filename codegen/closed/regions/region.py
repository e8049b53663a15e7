# pyright: basic
"""Regions: maximal runs of elementwise and reduction cells, which the algebra closes; equal ones are closed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr
from torch.utils import _pytree as pytree

from codegen.closed.definitions.outer import operands, taken_in
from codegen.closed.definitions.shares import reduction
from codegen.closed.regions.cells import Cell
from codegen.closed.regions.rewrites import compared
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import BINDERS, Index, Sigma, accesses, base, canonical, instantiate, name_of, size_symbol
from engine.spelling import SizeArg, is_slice, render_call, with_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from codegen.closed.regions.constants import Sums
    from codegen.closed.regions.copies import Copies
    from codegen.closed.regions.rewrites import Rewrite

LIMIT = 48
"""Cells that are closed together at most: what is worth folding lies closer, and plans cost more than in proportion."""
AGAIN = "an outer difference costs less to compute again than to keep"
"""The rule of `near_readers`."""


@dataclass(frozen=True)
class Region:
    """Cells in order, boundary cells first (without definition). `seeds` have cotangents from outside, `wanted` boundary
    cells get gradients, `needed` cells are read from outside in the forward. `summed` says over which axes the readers of a
    wanted cell's gradient sum it against another tensor.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[str, ...]
    wanted: tuple[str, ...]
    needed: tuple[str, ...]
    relations: tuple[tuple[Expr, Expr], ...] = ()
    summed: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = ()
    sums: Sums = ()
    """What boundary cells, and cotangents from outside, sum to over one of their axes, where that is known."""
    copies: Copies = ()
    """Boundary cells that have the values of another one."""
    notes: tuple[Rewrite, ...] = ()
    """What the rules so far made of the cells' definitions."""

    def by(self, rule: str, change: Callable[[list[Cell]], list[Cell]]) -> Region:
        """The region with its cells changed by a rule, which is noted."""
        cells = tuple(change(list(self.cells)))
        return replace(self, cells=cells, notes=(*self.notes, *compared(rule, self.cells, cells)))


def depths(cells: list[Cell]) -> dict[str, int]:
    """How many contractions and other calls lie on the longest way to each cell.

    What has no gradient and needs no region to be computed (positions, masks) is there before all of them. So lies what is of
    another dtype, if it is itself made of what has the cell's: no region is before and after another one.
    """
    depth: dict[str, int] = {}
    given: set[str] = set()
    by_name = {c.name: c for c in cells}
    above: dict[str, frozenset[Any]] = {}
    for c in cells:
        reads = [*c.reads, *c.after, *(c.node.operands if c.node is not None and c.call else ())]
        local = c.is_local
        if not local and not (c.differentiable and reads) and given.issuperset(reads):
            given.add(c.name)
        between = any(c.dtype != by_name[r].dtype and c.dtype in above[r] for r in reads if r in above)
        above[c.name] = frozenset().union(*(above[r] for r in reads if r in above), {c.dtype} if local else ())
        before = max((depth[r] for r in reads if r in depth), default=0)
        depth[c.name] = before + int(between if local or c.name in given else True)
    return sunk(cells, depth)


def sunk(cells: list[Cell], depth: dict[str, int]) -> dict[str, int]:
    """The depths, with cells that only later ones read brought to those, where nothing with a gradient lies between.

    So are outer differences, for what reads them may do without them, and functions of one tensor, which is kept as well as
    they are: of exponentials that are added up there is a logarithm then that does not overflow. The logarithm of a sum stays
    where the sum does, so that both are one logsumexp, and that of shares where they are divided by their sum. The sum of a mask,
    or of an input, goes to where it is read beside that.
    """
    by_name, readers, first = {c.name: c for c in cells}, readers_of(cells), dict(depth)
    passed: dict[str, int] = {}
    for c in cells:
        reads = [*c.reads, *c.after, *(c.node.operands if c.node is not None and c.call else ())]
        own = c.differentiable and bool(reads) and not c.is_local
        passed[c.name] = max((passed[r] for r in reads if r in passed), default=0) + own
    for c in reversed(cells):
        mine = readers.get(c.name, [])
        if not mine or not c.is_local or not all(by_name[r].is_local for r in mine):
            continue
        if not c.differentiable or all(by_name[r].expr is None for r in c.reads):
            depth[c.name] = beside_reader(c, mine, readers, depth)
        if not c.differentiable:
            continue
        near = all(passed[r] == passed[c.name] for r in mine)
        together = len({depth[r] for r in mine}) == 1 and of_one(c, by_name)
        if operands(c) is not None or shifted(c) or together or near:
            depth[c.name] = max(depth[c.name], min(depth[r] for r in mine))
        if together and not near:  # what it is made of stays
            passed[c.name] = min(passed[r] for r in mine)
    for c in cells:
        if depth[c.name] != first[c.name] and any(depth[n] == first[c.name] for n in logarithms(c, by_name)):
            depth[c.name] = first[c.name]
    return depth


def beside_reader(c: Cell, mine: list[str], readers: dict[str, list[str]], depth: dict[str, int]) -> int:
    """The depth of a cell: of a sum that of all of its readers, where what it sums is read there, too."""
    there = {depth[r] for r in mine}
    _, total = reduction(c.expr)
    body = None if total is None else total.body
    near = readers.get(name_of(body), []) if isinstance(body, Indexed) else []
    return max(there) if len(there) == 1 and any(depth[r] in there for r in near if r != c.name) else depth[c.name]


def logarithms(c: Cell, by_name: dict[str, Cell]) -> list[str]:
    """The sums that a cell is a logarithm of, and what is divided by a sum."""
    taken = [] if c.expr is None else [name_of(a) for f in c.expr.atoms(sp.log) for a in accesses(f)]
    return [n for n in taken if n in by_name and (is_sum(n, by_name) or divided(by_name[n], by_name))]


def is_sum(name: str, by_name: dict[str, Cell]) -> bool:
    """Whether a cell is a sum over an axis."""
    return name in by_name and isinstance(by_name[name].expr, Sigma)


def divided(c: Cell, by_name: dict[str, Cell]) -> bool:
    """Whether a cell is a tensor over a sum."""
    factors = sp.Mul.make_args(c.expr) if c.expr is not None else ()
    below = (f.base for f in factors if isinstance(f, sp.Pow) and f.exp == -1)
    return any(isinstance(b, Indexed) and is_sum(name_of(b), by_name) for b in below)


def of_one(c: Cell, by_name: dict[str, Cell]) -> bool:
    """Whether a cell is a function of one other tensor of its own shape."""
    moving = [by_name[r] for r in c.reads if r in by_name and by_name[r].differentiable]
    return len(moving) == 1 and moving[0].shape == c.shape and not cast("Expr", c.expr).has(*BINDERS)


def shifted(c: Cell) -> bool:
    """Whether a cell is a number and a multiple of another tensor: `1 - x` costs little wherever it is read."""
    terms = sp.Add.make_args(cast("Expr", c.expr))
    moving = [t for t in terms if accesses(t)]
    plain = len(terms) == 2 and len(moving) == 1 and isinstance(cast("Any", moving[0]).as_coeff_Mul()[1], Indexed)
    return plain and not c.named


def readers_of(cells: list[Cell]) -> dict[str, list[str]]:
    """Who reads each cell."""
    readers: dict[str, list[str]] = {}
    for c in cells:
        for r in dict.fromkeys((*c.reads, *c.after, *(c.node.operands if c.node is not None and c.call else ()))):
            readers.setdefault(r, []).append(c.name)
    return readers


def near_readers(cells: list[Cell], kept: Container[str]) -> list[Cell]:
    """The cells, with a copy of each outer difference for those of its readers that do not need it as a tensor and are elsewhere."""
    outer = [c for c in cells if c.is_local and operands(c) is not None]
    if not outer:
        return cells
    depth, by_name, readers = depths(cells), {c.name: c for c in cells}, readers_of(cells)
    taken = {*by_name}
    out = {c.name: [c] for c in cells}
    for c in outer:
        far = [r for r in readers.get(c.name, []) if by_name[r].is_local and depth[r] != depth[c.name]]
        for d in sorted({depth[r] for r in far}):
            at = [r for r in far if depth[r] == d]
            mine = [r for r in at if taken_in(by_name[r], c, [by_name[k] for k in readers.get(r, [])])]
            if not mine or (len(mine) == len(readers[c.name]) and c.name not in kept):
                continue
            name = free_name(f"{c.name}_again", taken)
            taken.add(name)
            copy = replace(c, name=name, node=None, named=False, text=None)
            for k, r in enumerate(mine):
                read = {a: copy.element(a.indices) for a in accesses(cast("Expr", out[r][-1].expr), c.name)}
                new = replace(out[r][-1], expr=cast("Expr", out[r][-1].expr).xreplace(read), text=None)
                out[r] = [*out[r][:-1], *([copy] if k == 0 else []), new]
    return [c for name in out for c in out[name]]


def grouped(cells: list[Cell]) -> list[list[Cell]]:
    """Local cells of equal depth that read one another, as connected groups of at most LIMIT, in order of their last cell."""
    depth = depths(cells)
    by_name = {c.name: c for c in cells}
    parent: dict[str, str] = {}

    def find(x: str) -> str:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    local = [c for c in cells if c.is_local]
    for c in local:
        parent[c.name] = c.name
    for c in local:
        for r in c.reads:
            if r in parent and depth[r] == depth[c.name] and by_name[r].dtype == c.dtype:
                parent[find(r)] = find(c.name)
    groups: dict[str, list[Cell]] = {}
    for c in local:
        groups.setdefault(find(c.name), []).append(c)
    return [g[k : k + LIMIT] for g in groups.values() for k in range(0, len(g), LIMIT)]


def boundary(group: list[Cell], by_name: dict[str, Cell]) -> list[Cell]:
    """The cells that a group reads from outside, without their definitions."""
    own = {c.name for c in group}
    names = dict.fromkeys(r for c in group for r in c.reads if r not in own)
    return [replace(by_name[n], expr=None) for n in names]


def normalized(region: Region) -> tuple[Any, Region, dict[str, str], dict[Any, Expr]]:
    """A key that is equal for regions of the same structure, the region with names and sizes by position, and what they were."""
    region, sizes = with_sizes_by_position(region)
    names = {c.name: f"c{k}" for k, c in enumerate(region.cells)}
    cells: list[Cell] = []
    key: list[Any] = []
    roots = rooted(region.cells)
    for c in region.cells:
        mapping: dict[Any, Any] = {}
        if c.expr is not None:
            for b in c.expr.atoms(sp.IndexedBase):
                label = cast("Any", b).label
                mapping[b] = base(names[str(label)], bool(label.is_positive), bool(label.is_integer))
        order = {i: Index(f"_p{names[c.name]}_{k}") for k, i in enumerate(c.indices) if i != 0}
        expr = None if c.expr is None else canonical(c.expr, {**mapping, **order})
        indices = tuple(order.get(i, i) for i in c.indices) if c.expr is not None else ()
        text = placed(c, names, {s: z for z, s in sizes.items()}, roots)
        own = None if expr is None else instantiate(expr, {})
        cells.append(
            Cell(
                names[c.name],
                cast("Any", indices),
                c.shape,
                own,
                c.kind,
                c.differentiable,
                c.dtype,
                None,
                False,
                c.positive,
                c.named,
                text,
                exact=c.exact,
                from_start=c.from_start,
            )
        )
        key.append(
            (expr, c.shape, c.kind, c.differentiable, c.positive, c.named, text, str(c.dtype), c.exact, c.from_start)
        )
    both: dict[Any, Any] = dict(names) | {f"d_{k}": f"d_{v}" for k, v in names.items()}
    relations = tuple((related(a, both), related(b, both)) for a, b in region.relations)
    flags = tuple(tuple(names[n] for n in group) for group in (region.seeds, region.wanted, region.needed))
    summed = tuple((names[n], groups) for n, groups in region.summed)
    sums = tuple((both[n], axis, value) for n, axis, value in region.sums)
    copies = tuple((names[a], names[b]) for a, b in region.copies)
    out = Region(tuple(cells), *flags, relations, summed, sums, copies)  # pyright: ignore[reportCallIssue]
    return (tuple(key), *flags, relations, summed, sums, copies), out, {v: k for k, v in names.items()}, sizes


def with_sizes_by_position(region: Region) -> tuple[Region, dict[Any, Expr]]:
    """The region with its sizes numbered as they are met, and what the numbers stand for.

    A size that is no product (the `n + 3 - k` of a convolution) is one number, so that counts cancel as they do elsewhere.
    """
    found: dict[Any, Any] = {}

    def meet(sizes: list[Expr]) -> None:
        for s in sizes:
            if s not in found:
                found[s] = size_symbol(f"zz{len(found)}")

    labels = {c.name for c in region.cells}
    whole = [n for c in region.cells for n in (*c.shape, *limits_of(c.expr))]
    meet([f for n in whole for f in factors_of(n) if not f.is_Symbol])
    compound = dict(found)
    for c in region.cells:
        meet([f.xreplace(compound) for n in c.shape for f in factors_of(n) if f.is_Symbol])
        if c.expr is not None:
            expr = cast("Any", c.expr.xreplace(compound) if compound else c.expr)
            free = [s for s in expr.free_symbols - {*compound.values()} if not isinstance(s, Index) and s not in found]
            meet(sorted((s for s in free if s.is_integer and s.is_positive and str(s) not in labels), key=str))

    def numbered(e: Expr) -> Expr:
        return (e.xreplace(compound) if compound else e).xreplace(found)

    cells = tuple(
        replace(c, shape=tuple(map(numbered, c.shape)), expr=None if c.expr is None else numbered(c.expr))
        for c in region.cells
    )
    relations = tuple((numbered(a), numbered(b)) for a, b in region.relations)
    return replace(region, cells=cells, relations=relations), {v: k for k, v in found.items()}


def factors_of(size: Expr) -> list[Expr]:
    """What a size is a product of, without numbers."""
    return [f.as_base_exp()[0] for f in sp.Mul.make_args(size) if not f.is_number]


def limits_of(e: Expr | None) -> list[Expr]:
    """The sizes that the sums of an expression run over, in a fixed order."""
    if e is None or not e.has(*BINDERS):
        return []
    binders = (b for b in sp.preorder_traversal(e) if isinstance(b, BINDERS))
    return [n for b in binders for _, n in cast("Any", b).limits]


def rooted(cells: tuple[Cell, ...]) -> dict[str, set[str]]:
    """The boundary cells that each cell is computed from."""
    roots: dict[str, set[str]] = {}
    for c in cells:
        roots[c.name] = {c.name} if c.expr is None else set().union(*[roots[r] for r in c.reads])
    return roots


def placed(c: Cell, names: dict[str, str], sizes: dict[Any, Any], roots: dict[str, set[str]]) -> str | None:
    """The forward's own torch call for a cell, with tensors and sizes by position.

    None where it reads something that is no cell here, or where its definition reads something that is computed elsewhere
    from what the call reads. `roots` are the boundary cells that every cell is computed from.
    """
    if c.text is None or c.node is None or c.node.call is None or any(o not in names for o in c.node.operands):
        return None
    if not roots[c.name] <= set().union(*[roots[o] for o in c.node.operands]):
        return None
    call = c.node.call

    def numbered(v: Any) -> Any:
        if isinstance(v, SizeArg):
            return SizeArg(v.expr.xreplace(sizes))
        return with_bounds(numbered, v) if is_slice(v) else v

    args, kwargs = pytree.tree_map(numbered, (call.args, dict(call.kwargs)))
    return render_call(call.function, args, kwargs, [names[o] for o in c.node.operands])


def related(e: Expr, names: dict[str, str]) -> Expr:
    """One side of a relation with tensors by position."""
    mapping: dict[Any, Any] = {}
    for b in e.atoms(sp.IndexedBase):
        label = cast("Any", b).label
        mapping[b] = base(names[str(label)], bool(label.is_positive), bool(label.is_integer))
    return e.xreplace(mapping)


__all__ = ["AGAIN", "Region", "boundary", "depths", "grouped", "normalized"]
