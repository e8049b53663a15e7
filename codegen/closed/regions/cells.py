# pyright: basic
"""The forward as cells: nodes with constants, casts and plain layouts inlined, and every sum and every repeated part a cell.

A cell is one tensor by index notation over other cells. Projection matrices disappear here: `(eye - ones/n) @ x` becomes
`x - mean(x)` because the deltas of the constant are summed out, and `(xᵀ y).diag()` becomes a sum of products because only
the diagonal of the contraction is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt, resum
from codegen.closed.regions.called import addition_name
from codegen.closed.regions.constants import chosen
from codegen.closed.regions.counted import picked
from codegen.closed.regions.fewvalues import few_values, short
from codegen.closed.regions.literal import exact_nodes, literal_nodes
from codegen.closed.regions.ones import of_ones
from codegen.closed.regions.random import random_nodes
from codegen.closed.regions.roots import with_roots
from codegen.lowering.ranges import simplified
from codegen.lowering.values import TensorInfo
from engine.fromstart import from_start, places_from_start
from engine.indexed import Indexed
from engine.naming import Namer
from engine.notation import (
    BINDERS,
    BRACKETS,
    Amax,
    Delta,
    Equal,
    Head,
    Index,
    Less,
    Parity,
    Quo,
    Rem,
    Sigma,
    Sign,
    Where,
    accesses,
    base,
    bound,
    canonical,
    element,
    fresh,
    instantiate,
    name_of,
    ordered,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.graph import Graph, Node

ZERO = sp.S.Zero


@dataclass(frozen=True, eq=False)
class Cell:
    """One tensor: its element `expr` at `indices` over other cells; None for an input and what has no definition.

    `node` is the forward's own node where the cell is one of its nodes. `call` says that the node's own torch call
    computes it from materialised tensors (nothing was inlined into it). `after` names what is drawn at random before it, so
    that the random stream is the forward's.
    """

    name: str
    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    expr: Expr | None
    kind: str
    differentiable: bool
    dtype: Any
    node: Node | None = None
    call: bool = False
    positive: bool = False
    named: bool = False
    text: str | None = None
    after: tuple[str, ...] = ()
    exact: bool = False
    """Whether its statement has to be the definition as it stands: the last bit decides."""
    from_start: bool = False
    """Whether its integers are places that torch refuses below zero."""

    @property
    def info(self) -> TensorInfo:
        """What lowering knows of it."""
        return TensorInfo(self.shape, self.kind, from_start=self.from_start)

    @property
    def ranges(self) -> dict[Index, Expr]:
        """Ranges of the cell's own indices."""
        return {cast("Index", i): n for i, n in zip(self.indices, self.shape, strict=True) if i != 0}

    def element(self, indices: Iterable[Expr]) -> Indexed:
        """An access to the cell at indices."""
        return cast("Indexed", element(base(self.name, self.positive, self.kind != "float"), list(indices)))

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The cells that the definition reads, each once, in a fixed order."""
        return () if self.expr is None else tuple(dict.fromkeys(name_of(a) for a in accesses(self.expr)))

    @cached_property
    def is_local(self) -> bool:
        """Whether the cell belongs to the algebra: elementwise or a reduction over plainly indexed tensors."""
        return (
            self.expr is not None
            and not self.call
            and self.kind == "float"
            and not is_contraction(self.expr)
            and is_plain(self.expr)
            and not is_joined(self.expr)
        )


def at(cell: Cell, indices: Iterable[Expr]) -> Expr:
    """A cell's definition at other indices, with fresh bound indices."""
    assert cell.expr is not None
    mapping = {i: j for i, j in zip(cell.indices, indices, strict=False) if i != 0}
    return instantiate(cell.expr, mapping)


def substituted(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with every access to a cell of `known` replaced by that cell's definition."""
    if isinstance(e, Indexed):
        name = name_of(e)
        if name in known:
            cell = known[name]
            return at(cell, [substituted(i, known) for i in e.indices] if cell.shape else [])
        indices = [substituted(i, known) for i in e.indices]
        return e.func(e.base, *indices) if any(x is not y for x, y in zip(indices, e.indices, strict=True)) else e
    return rebuilt(e, lambda a: substituted(a, known))


def is_contraction(e: Expr) -> bool:
    """A sum over a product of tensors that do not share all of their indices: a matrix product, not a reduction."""
    for f in sp.Mul.make_args(e):
        if not isinstance(f, Sigma):
            continue
        summed = {i for i, _ in f.limits}
        sets = [frozenset(s for s in g.free_symbols if isinstance(s, Index)) for g in sp.Mul.make_args(f.body)]
        sets = [s for s in sets if s & summed]
        if len(sets) < 2 or adds_weights(f.body):
            continue
        if any(isinstance(g, Parity) for g in sp.Mul.make_args(f.body)):
            return True
        union = frozenset().union(*sets)
        outer = union - summed
        if all(outer - s for s in sets) and len(set(sets)) > 1:
            return True
    return False


def adds_weights(e: Any) -> bool:
    """Whether a sum's body is one positive tensor at the places that integers say: weights, which stay with what divides by their sums."""
    tensors = [g for g in sp.Mul.make_args(e) if not isinstance(g, Delta)]
    return len(tensors) == 1 and isinstance(tensors[0], Indexed) and bool(tensors[0].is_positive) and e.has(Delta)


@lru_cache(maxsize=2**13)
def is_plain(e: Expr) -> bool:
    """Whether an expression reads tensors only at index symbols, constants and integer tensors (no index arithmetic)."""
    digits = any(x.atoms(Index, Indexed) for x in e.atoms(Quo, Rem))
    return not digits and all(
        isinstance(i, (Index, Indexed)) or not i.free_symbols
        for a in accesses(e)
        for i in (cast("Any", x) for x in a.indices)
    )


def is_computed(i: Any) -> bool:
    """Whether an index is computed, element by element, from integer tensors alone."""
    made = bool(accesses(i)) or i.has(Where)
    return not isinstance(i, Indexed) and all(a.is_integer for a in accesses(i)) and made and is_plain(i)


def places(e: Expr) -> Expr | None:
    """An expression that is numbers and ones at places that an integer tensor says, as `a [j = y[i]] + b`; None for any other.

    Whether two integer tensors are equal there is such a number.
    """
    whole = chosen(e)
    for d in whole.atoms(Delta):
        one, other = sorted(d.args, key=lambda x: isinstance(x, Indexed))
        if not isinstance(one, Index) or not isinstance(other, Indexed) or not is_plain(other):
            return None
    ones = {d: sp.Dummy() for d in whole.atoms(Delta) | {x for x in whole.atoms(Equal) if is_of_places(x)}}
    free = sp.sympify(whole.xreplace(ones))
    inner = free.has(Indexed, *BINDERS) or free.atoms(Index)
    return None if inner or not accesses(whole) or not free.is_polynomial(*ones.values()) else whole


def is_of_places(e: Equal) -> bool:
    """Whether it compares entries of two integer tensors."""
    return all(isinstance(x, Indexed) and x.is_integer and is_plain(x) for x in e.args)


def is_joined(e: Expr) -> bool:
    """Tensors side by side in one: which of them is read depends on the position alone."""
    return (
        isinstance(e, Where)
        and not accesses(e.args[0])
        and all(is_joined(x) or isinstance(x, Indexed) for x in e.args[1:])
    )


def plain_layout(cell: Cell) -> bool:
    """A permutation, an expansion, or dimensions of size one put in or out: nothing but renamed indices."""
    e = cell.expr
    if not isinstance(e, Indexed):
        return False
    indices = [i for i in e.indices if i != 0]
    return all(isinstance(i, Index) for i in indices) and len(set(indices)) == len(indices)


def is_table(e: Expr) -> bool:
    """Whether a constant is a table of functions or quotients of positions, as sines or powers by them or points at equal distances."""
    positions = (f for f in e.atoms(sp.exp, sp.sin, sp.cos, sp.log, sp.Pow) if (f.exp if f.is_Pow else f).has(Index))
    return any(positions) or (
        e.has(Index) and any(p.exp.is_negative for p in e.atoms(sp.Pow)) and not e.has(*BRACKETS, Delta)
    )


def on_diagonal(a: Indexed) -> bool:
    """Whether a tensor is read where two of its indices are equal."""
    return len(set(a.indices)) < len([i for i in a.indices if i != 0])


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


class Builder:
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
        """Whether a tensor has values that floats of every precision hold: ones at places, choices between numbers like 1/4."""
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

    def twin(self, key: Any, order: tuple[Any, ...], differentiable: bool = False) -> Expr:
        """The access to the cell that holds the values of `key`, whose indices correspond to `order`.

        A value that was first computed without a gradient gets one where an equal value has one.
        """
        name, own = self.same[key]
        if differentiable and not self.cells[name].differentiable:
            self.cells[name] = replace(self.cells[name], differentiable=True)
        cell = self.cells[name]
        mapping = dict(zip(own, order, strict=True))
        return cell.element([mapping.get(i, i) for i in cell.indices])

    def inline(self, e: Expr, n: Node) -> Expr:
        """A definition with aliases put in, and contractions of which only a diagonal is read."""
        known = {o: self.aliases[o] for o in n.operands if o in self.aliases}
        if not is_plain(e):  # a concatenation stays the call that it is, of tensors
            views = n.op != "cat"
            known = {
                o: c
                for o, c in known.items()
                if (views and isinstance(c.expr, Indexed)) or not accesses(cast("Expr", c.expr))
            }
        for o in n.operands:
            cell = self.cells.get(o)
            if cell is not None and cell.expr is not None and is_contraction(cell.expr):
                reads = list(accesses(e, o))
                if reads and all(map(on_diagonal, reads)) and not self.read_whole(o):
                    known[o] = cell
        return cast("Expr", substituted(e, known)) if known else e

    def read_whole(self, name: str) -> bool:
        """Whether some node reads more of a tensor than a diagonal: it has to be there, and its diagonal with it."""
        readers = (n for n in self.graph.nodes if name in n.operands)
        return any(n.definition is None or not all(map(on_diagonal, accesses(n.definition[1], name))) for n in readers)

    def looked_up(self, e: Expr, owner: Cell) -> Expr:
        """A definition with the indices that it computes as cells of their own; unchanged where something else is not plain."""
        found = list(dict.fromkeys(i for a in accesses(e) for i in cast("Any", a.indices) if is_computed(i)))
        if not found or owner.kind != "float":
            return e
        marks = {i: element(base(f"_{k}", integer=True), [ZERO]) for k, i in enumerate(found)}
        if not is_plain(e.xreplace(marks)):
            return e
        inside = self.with_ranges(owner, {i: n for b in e.atoms(*BINDERS) for i, n in cast("Any", b).limits})
        return e.xreplace({i: self.part(i, inside, "index") for i in found})

    def exploded(self, e: Any, owner: Cell, top: bool = False) -> Any:
        """Inner sums, additions below a product, a root or a reciprocal, and exponentials in a product, as cells of their own."""
        if isinstance(e, (Indexed, Delta)) or not e.args:
            return e
        if isinstance(e, BINDERS):
            inner = self.with_ranges(owner, dict(e.limits))
            body = self.exploded(e.body, inner)
            if isinstance(body, sp.Add) and isinstance(e, Sigma):
                pass
            out = e.func(body, *e.args[1:])
            return out if top else self.part(out, owner, "max" if isinstance(e, Amax) else "sum")
        if isinstance(e, sp.Mul) and top:
            factors = list(e.args)
            sums = [f for f in factors if isinstance(f, Sigma)]
            rest = sp.Mul(*[f for f in factors if not isinstance(f, Sigma)])
            if len(sums) == 1 and not accesses(rest):
                return rest * self.exploded(sums[0], owner, top=True)
        if isinstance(e, sp.Mul):
            coefficient = sp.Mul(*[f for f in e.args if not accesses(f) and not f.free_symbols & self.index_symbols(f)])
            sums = [f for f in e.args if isinstance(f, Sigma)]
            sign = sp.S.NegativeOne if coefficient.could_extract_minus_sign() else sp.S.One
            coefficient = sign * coefficient
            if not top and len(sums) == 1 and sp.Mul(*[f for f in e.args if f not in sums]) == sign * coefficient:
                return sign * self.part(
                    coefficient * self.exploded(sums[0], owner, top=True), owner, self.label(coefficient, sums[0])
                )
            if len(sums) == 1 and coefficient != 1:
                mean = self.part(
                    coefficient * self.exploded(sums[0], owner, top=True), owner, self.label(coefficient, sums[0])
                )
                others = [
                    f
                    for f in e.args
                    if f is not sums[0] and not (not accesses(f) and not f.free_symbols & self.index_symbols(f))
                ]
                return sp.Mul(sign, mean, *[self.factor(f, owner) for f in others])
            share = any(isinstance(f, sp.Pow) and f.exp.could_extract_minus_sign() for f in e.args)
            apart = [f for f in e.args if not share and isinstance(f, sp.exp) and self.computed(f.args[0])]
            return sp.Mul(*[self.part(f, owner, "exp") if f in apart else self.factor(f, owner) for f in e.args])
        if isinstance(e, sp.Pow):
            return self.factor(e, owner)
        if isinstance(e, Sign):
            return e.func(self.factor(e.args[0], owner))
        if isinstance(e, sp.log) and not top and self.computed(e.args[0]):
            return self.part(e, owner, "log")
        return rebuilt(e, lambda a: self.exploded(a, owner))

    def computed(self, e: Any) -> bool:
        """Whether an expression is a tensor that a cell defines."""
        cell = self.cells.get(name_of(e)) if isinstance(e, Indexed) else None
        return cell is not None and cell.expr is not None and cell.differentiable

    def index_symbols(self, e: Any) -> set[Any]:
        return {s for s in e.free_symbols if isinstance(s, Index)}

    def label(self, coefficient: Any, s: Sigma) -> str:
        """`mean` for a sum divided by its count, `var` for one of squares divided by one less, else `sum`."""
        count = sp.Mul(*[n for _, n in s.limits])
        if isinstance(s.body, sp.Pow) and s.body.exp == 2 and sp.cancel(coefficient * (count - 1)) == 1:
            return "var"
        return "mean" if sp.cancel(coefficient * count) == 1 else "sum"

    def factor(self, f: Any, owner: Cell) -> Any:
        """A factor of a product: additions become cells, also below a power."""
        if isinstance(f, sp.Add) and places(f) is not None:
            return f
        if isinstance(f, sp.Add):
            inner = self.exploded(f, owner)
            return self.part(inner, owner, "add") if accesses(inner) else inner
        if isinstance(f, sp.Pow):
            b = f.base
            inner = self.exploded(b, owner)
            if isinstance(inner, sp.Add) and accesses(inner):
                inner = self.part(inner, owner, "add")
            return inner ** self.exploded(f.exp, owner)
        return self.exploded(f, owner)

    def with_ranges(self, owner: Cell, extra: Mapping[Index, Expr]) -> Cell:
        """The owner as seen from inside of a sum: its indices and the summed ones."""
        return replace(owner, indices=(*owner.indices, *extra), shape=(*owner.shape, *extra.values()))

    def part(self, e: Any, owner: Cell, label: str) -> Expr:
        """A part of a definition as a cell of its own, shared with equal parts; returns the access to it."""
        ranges = owner.ranges
        inside = bound(e)
        product = is_contraction(e)
        order = [i for i in owner.indices if i in e.free_symbols] if product else natural(e)
        free: list[Any] = [i for i in order if i in ranges and i not in inside]
        label = "matmul" if product else label
        copy = {i: fresh() for i in free}
        expr = instantiate(e, copy)
        layout = free if product else self.with_ones(e, free)
        indices = tuple(copy.get(i, ZERO) for i in layout)
        shape = tuple(ranges.get(i, sp.S.One) for i in layout)
        differentiable = owner.differentiable and self.depends(expr)
        kind, dtype = "float", owner.dtype
        if label == "index":
            dtypes = ((self.cells.get(n) or self.graph[n]).dtype for n in map(name_of, accesses(expr)))
            kind, dtype = "int", next(dtypes, torch.int64)
        name = f"{self.root(owner)}_{label}"
        name = addition_name(expr, self.root(owner), self.cells) if label == "add" else name
        strict = label == "index" and from_start(expr, self.places.__contains__)
        cell = Cell(name, indices, shape, expr, kind, differentiable, dtype, from_start=strict)
        key, order = signature(cell)
        if key not in self.same:
            cell = replace(cell, name=self.namer(cell.name), positive=is_positive(key[0]))
            self.same[key] = (cell.name, order)
            self.cells[cell.name] = cell
        back = {j: i for i, j in copy.items()}
        return self.twin(key, tuple(back[i] for i in order), differentiable)

    def with_ones(self, e: Any, free: list[Any]) -> list[Any]:
        """The dimensions of a part: of tensors that all lie alike, also those of size one."""
        found = {a.indices for a in accesses(e)}
        if len(found) != 1:
            return free
        (read,) = found
        ones = [k for k, i in enumerate(read) if i == 0]
        shapes = [(self.cells.get(n) or self.graph[n]).shape for n in map(name_of, accesses(e))]
        alike = len(read) > 1 and [i for i in read if i != 0] == free and all(s[k] == 1 for s in shapes for k in ones)
        return list(read) if alike else free

    def root(self, owner: Cell) -> str:
        return owner.node.name if owner.node is not None else owner.name

    def depends(self, e: Expr) -> bool:
        return any(self.cells[name_of(a)].differentiable for a in accesses(e) if name_of(a) in self.cells)


def is_positive(e: Expr) -> bool:
    """Whether an expression is positive whatever its tensors hold; asked once for all that differ in their names only."""
    tensors = dict.fromkeys(cast("Any", a).base for a in accesses(e))
    known = ((b, bool(b.label.is_positive), bool(b.label.is_integer)) for b in tensors)
    return _is_positive(canonical(e, {b: base(f"_{k}", p, i) for k, (b, p, i) in enumerate(known)}))


@lru_cache(maxsize=2**10)
def _is_positive(e: Expr) -> bool:
    return bool(e.is_positive)


def natural(e: Any) -> list[Index]:
    """The indices of an expression in the order in which its largest access has them."""
    order: list[Index] = []
    for a in sorted(accesses(e), key=lambda a: -sum(1 for i in a.indices if i != 0)):
        for i in a.indices:
            order.extend(s for s in ([i] if isinstance(i, Index) else accesses(i) and natural(i)) if s not in order)  # pyright: ignore[reportArgumentType]
    rest = ordered(s for s in e.free_symbols if isinstance(s, Index) and s not in order)
    return [*order, *rest]


def signature(cell: Cell) -> tuple[Any, tuple[Any, ...]]:
    """A key that is equal for cells that hold the same values up to the order of dimensions, and that order."""
    assert cell.expr is not None
    own = {i for i in cell.indices if i != 0}
    order = tuple(i for i in natural(cell.expr) if i in own)
    order = (*order, *[i for i in cell.indices if i != 0 and i not in order])
    mapping = {i: Index(f"_o{k}") for k, i in enumerate(order)}
    sizes = dict(zip(cell.indices, cell.shape, strict=True))
    return (canonical(cell.expr, mapping), tuple(sizes[i] for i in order), cell.dtype), order


__all__ = ["Builder", "Cell", "at", "is_contraction", "natural", "signature", "substituted"]
