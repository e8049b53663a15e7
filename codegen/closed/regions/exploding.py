# pyright: basic
"""What stands inside of a definition as cells of its own: inner sums, additions below a product, exponentials, repeated parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.called import addition_name
from codegen.closed.regions.cells import (
    ZERO,
    Cell,
    is_computed,
    is_contraction,
    is_plain,
    is_positive,
    natural,
    on_diagonal,
    places,
    signature,
    substituted,
)
from engine.fromstart import from_start
from engine.indexed import Indexed
from engine.notation import (
    BINDERS,
    Amax,
    Delta,
    Index,
    Sigma,
    Sign,
    accesses,
    base,
    bound,
    element,
    fresh,
    instantiate,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.graph import Graph, Node
    from engine.naming import Namer


class Exploding:
    """Takes definitions apart, into cells that are kept once."""

    graph: Graph
    cells: dict[str, Cell]
    aliases: dict[str, Cell]
    namer: Namer
    same: dict[Any, tuple[str, tuple[Any, ...]]]
    places: frozenset[str]

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


__all__ = ["Exploding"]
