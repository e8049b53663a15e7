# pyright: basic
"""The forward as cells: nodes with constants, casts and plain layouts inlined, and every sum and every repeated part a cell.

A cell is one tensor by index notation over other cells. Projection matrices disappear here: `(eye - ones/n) @ x` becomes
`x - mean(x)` because the deltas of the constant are summed out, and `(xᵀ y).diag()` becomes a sum of products because only
the diagonal of the contraction is read.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import resum
from codegen.closed.regions.cells import (
    Cell,
    is_contraction,
    is_joined,
    is_plain,
    is_table,
    natural,
    places,
    plain_layout,
    signature,
    substituted,
)
from codegen.closed.regions.counted import picked
from codegen.closed.regions.exploding import Exploding
from codegen.closed.regions.fewvalues import few_values, short
from codegen.closed.regions.literal import exact_nodes, literal_nodes
from codegen.closed.regions.ones import of_ones
from codegen.closed.regions.random import random_nodes
from codegen.closed.regions.roots import with_roots
from codegen.lowering.ranges import simplified
from engine.fromstart import places_from_start
from engine.indexed import Indexed
from engine.naming import Namer
from engine.notation import (
    BINDERS,
    BRACKETS,
    Delta,
    Head,
    Index,
    Less,
    Sigma,
    Where,
    accesses,
    base,
    element,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.graph import Graph, Node


def counts_of_puts(e: Any) -> list[Sigma]:
    """How often each place is named, of a definition that tells what is put there by the sum of what is put at each."""
    puts = [w for w in e.atoms(Where) if isinstance(w.args[0], Less) and w.args[0].args[0] == 0]
    counts = [(w.args[0].args[1], w.args[1]) for w in puts]
    return [
        count
        for count, put in counts
        if isinstance(count, Sigma)
        and count.body.has(Delta)
        and any(s.limits == count.limits for s in put.atoms(Sigma))
    ]


def stopped_nodes(graph: Graph) -> set[str]:
    """What was computed under `no_grad` from what has a gradient, and is read by what has one, or is a result.

    Its definition would pass on what it is to keep, so that it has none, like a detached tensor.
    """
    without: set[str] = set()
    for n in graph.nodes:
        if n.template is None or n.differentiable or not n.dtype.is_floating_point:
            continue
        places = {name_of(a) for a in accesses(n.template.expr)}
        reads = [o for k, o in enumerate(n.operands) if f"_{k}" in places]
        if any(graph[o].differentiable or o in without for o in reads):
            without.add(n.name)
    read = {o for n in graph.nodes if n.differentiable for o in n.operands} if without else set[str]()
    return without & (read | {*graph.outputs})


class Builder(Exploding):
    """Turns a graph into cells."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.cells: dict[str, Cell] = {}
        self.aliases: dict[str, Cell] = {}
        self.diagonals: dict[str, Cell] = {}
        """Aliases that are diagonal matrices, as they are where they are asked for as tensors."""
        self.namer = Namer([*(n.name for n in graph.nodes), *map(str, graph.sizes)])
        self.same: dict[Any, tuple[str, tuple[Any, ...]]] = {}
        self.contracted: dict[str, Cell] = {}
        literal = literal_nodes(graph)
        self.exact = exact_nodes(graph, literal)
        self.literal = literal - self.exact
        self.stopped = stopped_nodes(graph)
        self.places = places_from_start(graph).alone

    def build(self) -> list[Cell]:
        """All cells that the outputs depend on, in order."""
        for n in self.graph.nodes:
            self.add(n)
        for before, name in pairwise(random_nodes(self.graph)):
            self.cells[name] = replace(self.cells[name], after=(before,))
        needed: set[str] = set()
        stack = [self.resolved(o) for o in self.graph.outputs] + list(self.graph.inputs)
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                cell = self.cells[name]
                stack.extend((*cell.reads, *cell.after))
                if cell.node is not None and (cell.call or cell.expr is None):
                    stack.extend(self.resolved(o) for o in cell.node.operands)
        return self.each_after_its_reads([c.name for c in self.cells.values() if c.name in needed])

    def each_after_its_reads(self, names: list[str]) -> list[Cell]:
        """Cells so that each comes after what it is computed from, otherwise as they were: an alias may be asked for late."""
        done: dict[str, Cell] = {}
        for name in names:
            stack = [name]
            while stack:
                cell = self.cells[stack[-1]]
                operands = cell.node.operands if cell.node is not None and cell.call else ()
                left = [r for r in (*cell.reads, *operands, *cell.after) if r not in done and r in self.cells]
                if left:
                    stack.extend(reversed(left))
                else:
                    done.setdefault(stack.pop(), cell)
        wanted = {*names}
        return [c for n, c in done.items() if n in wanted]

    def resolved(self, name: str) -> str:
        """The cell that holds a node's value; an alias that is asked for by name becomes a cell."""
        if name in self.cells:
            return name
        alias = self.aliases.pop(name)
        self.cells[name] = self.diagonals.get(name, alias)
        return name

    def add(self, n: Node) -> None:
        """One node of the graph."""
        if n.name in self.cells or n.name in self.aliases:
            return
        kind = "float" if n.dtype.is_floating_point else "bool" if str(n.dtype) == "torch.bool" else "int"
        known = n.definition
        cell = Cell(
            n.name,
            known[0] if known else (),
            n.shape,
            None,
            kind,
            n.differentiable,
            n.dtype,
            n,
            True,
            n.positive,
            n.named,
            from_start=n.name in self.places,
        )
        if known is None or n.name in self.stopped:
            for o in n.operands:
                self.resolved(o)
            self.cells[n.name] = cell
            return
        ranges = cell.ranges
        raw = known[1]
        floats = {self.graph[o].dtype for o in n.operands if self.graph[o].dtype.is_floating_point}
        if floats - {n.dtype}:
            floats = {self.graph[o].dtype for o in n.operands if not self.is_short(o)} & floats
        widened = bool(n.operands) and not floats and n.dtype.itemsize > self.main_dtype(n.dtype).itemsize
        changes = kind == "float" and (floats - {n.dtype} or widened) and n.call is not None and n.output is None
        if (
            changes or n.name in self.literal
        ):  # the algebra knows neither precisions nor rounding: this stays torch's call
            for o in n.operands:
                self.resolved(o)
            self.cells[n.name] = replace(cell, expr=raw, text=n.forward_text())
            return
        inlined = self.inline(raw, n)
        if n.name in self.exact and inlined is raw:
            self.keep(replace(cell, expr=raw, call=False, exact=True))
            return
        if n.name in self.exact:
            for o in n.operands:
                self.resolved(o)
            self.cells[n.name] = replace(cell, expr=raw, text=n.forward_text())
            return
        expr = raw if inlined is raw else of_ones(simplified(resum(inlined, ranges), ranges))
        if inlined is not raw and isinstance(raw, Indexed) and self.cuts_ones(raw, cell, inlined):
            self.resolved(n.operands[0])
            inlined = expr = raw
        expr = self.looked_up(sp.sympify(expr), cell)
        told = resum(raw, ranges) if raw.has(Less) else raw
        twice = n.call is not None and n.output is None and self.puts_twice(told, n, ranges)
        if twice:  # torch's call puts one of them there
            for o in n.operands:
                self.resolved(o)
            counted = {count: self.part(count, cell, "count") for count in counts_of_puts(told)}
            self.cells[n.name] = replace(cell, expr=told.xreplace(counted), text=n.forward_text())
            return
        expr = picked(replace(cell, expr=expr), self.graph, self.part)
        cell = replace(cell, expr=expr, call=inlined is raw and isinstance(expr, type(raw)))
        if cell.call and n.call is not None and n.output is None:
            cell = replace(cell, text=n.forward_text())
        is_output = n.name in self.graph.outputs
        if not accesses(expr) and not is_output and n.dtype.is_floating_point and is_table(expr):
            self.keep(replace(cell, text=None, call=False))
            return
        if not accesses(expr) and self.rounded(n, expr):
            self.keep(replace(cell, expr=raw, call=True))
            return
        constants = [o for o in n.operands if self.is_constant(o)] if n.op == "cat" and accesses(expr) else []
        if constants:  # put beside the tensors, and not chosen by the position
            self.aliases |= {o: replace(self.aliases[o], text=None, call=False) for o in constants}
            self.keep(replace(cell, expr=raw, text=None, call=True))
            return
        changes_dtype = any(
            self.graph[o].dtype != n.dtype for o in n.operands if self.graph[o].dtype.is_floating_point
        ) and plain_layout(cell)
        negated = isinstance(-expr, Indexed) and plain_layout(replace(cell, expr=-expr)) and not n.named
        if negated and not is_output and n.dtype.is_floating_point:
            self.aliases[n.name] = cell
            return
        if (not accesses(expr) and not is_output) or (
            plain_layout(cell)
            and not is_output
            and not changes_dtype
            and self.same_dtype(cell)
            and self.reads_all(cell)
        ):
            self.aliases[n.name] = cell
            return
        diagonal = None if is_output or not expr.has(Delta) else self.diagonal(cell)
        if diagonal is not None:
            self.aliases[n.name], self.diagonals[n.name] = replace(cell, expr=diagonal), cell
            return
        placed = None if is_output or not expr.has(Delta) else places(expr)
        if placed is not None:
            self.aliases[n.name] = replace(cell, expr=placed)  # where ones stand costs less to say than to keep
            return
        if kind == "bool" and not is_output and not expr.has(Sigma) and is_plain(expr):
            self.aliases[n.name] = cell  # a condition costs less to compute again than to keep
            return
        if (
            is_contraction(expr)
            or not is_plain(expr)
            or is_joined(expr)
            or not n.dtype.is_floating_point
            or (plain_layout(cell) and not self.reads_all(cell))
        ):
            self.keep(cell)
            return
        if not n.named and not is_output and self.multiplies(n, cell):
            self.aliases[n.name] = cell
            return
        cell = replace(cell, expr=self.exploded(with_roots(expr), cell, top=True), call=False)
        order = tuple(i for i in natural(cell.expr) if i in cell.indices)
        if (
            not n.named
            and not is_output
            and order != cell.indices
            and any(set(a.indices) >= set(order) for a in accesses(cast("Expr", cell.expr)))
            and 0 not in cell.indices
            and len(order) == len(cell.indices)
        ):
            self.keep_as(cell, self.namer(f"{n.name}_t"), order)
            return
        flat = self.without_ones(n)
        if flat is not None:
            self.keep_as(replace(cell, named=flat.named), flat.name, tuple(i for i in cell.indices if i != 0))
            return
        self.keep(cell)

    def multiplies(self, n: Node, cell: Cell) -> bool:
        """Whether a product is of two tensors that are copied along each other, and a sum, its one reader, makes a matrix product of it."""
        factors = sp.Mul.make_args(cast("Expr", cell.expr))
        if sum(isinstance(f, Indexed) for f in factors) < 2 or cast("Expr", cell.expr).has(*BINDERS):
            return False
        readers = [m for m in self.graph.nodes if n.name in m.operands]
        if len(readers) != 1 or readers[0].op not in ("sum", "mean") or readers[0].name in self.literal:
            return False
        (m,) = readers
        if m.definition is None or m.dtype != n.dtype:
            return False
        return is_contraction(cast("Expr", substituted(m.definition[1], {n.name: cell})))

    def keep_as(self, cell: Cell, name: str, order: tuple[Expr, ...]) -> None:
        """A cell with its dimensions in another order, or without those of size one, by another name; its own is an alias."""
        sizes = cell.ranges
        shape = tuple(sizes[cast("Index", i)] for i in order)
        turned = replace(cell, text=None, name=name, indices=order, shape=shape)
        self.keep(turned)
        inner = self.aliases.get(name)
        read = inner.expr if inner is not None else element(base(name, cell.positive), order)
        self.aliases[cell.name] = replace(cell, expr=read)

    def without_ones(self, n: Node) -> Node | None:
        """The one reader of a tensor that has no name and dimensions of size one, where it is the tensor without these."""
        if n.named or n.name in self.graph.outputs or 1 not in n.shape:
            return None
        readers = [m for m in self.graph.nodes if n.name in m.operands]
        if len(readers) != 1:
            return None
        (m,) = readers
        if m.definition is None or m.name in self.stopped or m.name in self.literal or m.dtype != n.dtype:
            return None
        indices, e = m.definition
        rest = tuple(i for i in indices if i != 0)
        read = isinstance(e, Indexed) and tuple(i for i in e.indices if i != 0) == rest == indices
        return m if read and m.shape == tuple(s for s in n.shape if s != 1) else None

    def puts_twice(self, e: Any, n: Node, ranges: Mapping[Index, Expr]) -> bool:
        """Whether a node's definition puts several numbers at one place, as far as what it reads tells: all of them would add up.

        A place is named once where its count is a product of equalities, with no sum and no size beside them.
        """
        counts = [simplified(resum(self.inline(c, n), ranges), ranges) for c in counts_of_puts(e)]
        return not all(isinstance(f, (*BRACKETS, Delta)) or f in (0, 1) for c in counts for f in sp.Mul.make_args(c))

    def diagonal(self, cell: Cell) -> Expr | None:
        """`[i = j] v[i]` for a diagonal matrix that products alone read, which then scale rows by v; None for any other."""
        e: Any = cell.expr
        if (
            not isinstance(e, Where)
            or not isinstance(e.args[0], Delta)
            or e.args[2] != 0
            or not isinstance(e.args[1], Indexed)
        ):
            return None
        readers = [n.definition for n in self.graph.nodes if cell.name in n.operands]
        multiplied = all(d is not None and is_contraction(d[1]) for d in readers)
        return e.args[0] * e.args[1] if multiplied and {*e.args[0].args} == {*cell.indices} else None

    def main_dtype(self, default: Any) -> Any:
        """The dtype of the first input that has a gradient."""
        return next((self.graph[i].dtype for i in self.graph.inputs if self.graph[i].differentiable), default)

    def rounded(self, n: Node, expr: Expr) -> bool:
        """Whether a constant is computed in another dtype than the inputs', and rounded there: it is made as written."""
        main = self.main_dtype(n.dtype)
        if not n.dtype.is_floating_point or n.dtype == main or n.call is None:
            return False
        powers = any(not (p.exp.is_Integer and p.exp > 0) for p in expr.atoms(sp.Pow))
        fractions = any(r.q & (r.q - 1) for r in expr.atoms(sp.Rational))
        return powers or fractions or any(not isinstance(f, Head) for f in expr.atoms(sp.Function))

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an alias that reads no other."""
        alias = self.aliases.get(name)
        return alias is not None and alias.expr is not None and not accesses(alias.expr)

    def reads_all(self, cell: Cell) -> bool:
        """Whether a layout reads every element of its source: a slice from the start has the same indices over fewer sizes."""
        (a,) = accesses(cast("Expr", cell.expr))
        source = self.cells[name_of(a)].shape if name_of(a) in self.cells else self.graph[name_of(a)].shape
        return all(
            i == 0 or sp.expand(cell.ranges[cast("Index", i)] - n) == 0 for i, n in zip(a.indices, source, strict=False)
        )

    def cuts_ones(self, read: Indexed, cell: Cell, e: Expr) -> bool:
        """Whether a slice has fewer places than the ones of its source may stand at: a sum over it finds none for some."""
        ones = (d.args for d in e.atoms(Delta) if d.has(Indexed))
        named = {i for pair in ones for x in pair if not x.has(Indexed) for i in x.atoms(Index)} & {*cell.ranges}
        source = zip(read.indices, self.graph[name_of(read)].shape, strict=False)
        sizes = cell.ranges
        return any(sp.expand(sizes[i] - n) != 0 for x, n in source for i in x.atoms(Index) & named)

    def is_short(self, name: str) -> bool:
        """Whether a tensor has values that floats of every precision hold, and is written out where it is read: ones at places,
        choices between numbers like 1/4. What reads another tensor of floats is a tensor of that one's precision.
        """
        alias = self.aliases.get(name)
        if alias is None or any(r in self.cells and self.cells[r].kind == "float" for r in alias.reads):
            return False
        found = few_values(self.graph[name].definition, self.graph)
        return found is not None and all(short(v) for v in found)

    def same_dtype(self, cell: Cell) -> bool:
        """Whether an alias has the dtype of what it reads."""
        (name,) = cell.reads
        return self.cells[name].dtype == cell.dtype if name in self.cells else True

    def keep(self, cell: Cell) -> None:
        """A cell, or an alias to an equal one that is there already."""
        assert cell.expr is not None
        key, order = signature(cell)
        if key in self.same and cell.name not in self.graph.outputs:
            self.aliases[cell.name] = replace(
                cell, expr=self.twin(key, order, cell.differentiable), text=None, call=False
            )
            return
        self.same.setdefault(key, (cell.name, order))
        for o in cast("Any", cell.node).operands if cell.call else cell.reads:
            if o in self.aliases:  # what could not be put in is there as a tensor
                self.resolved(o)
        self.cells[cell.name] = cell


__all__ = ["Builder"]
