# pyright: basic
"""Sums that are read at places alone: what is picked of a product is the product of what is picked, (x wᵀ)[i, y_i] = x_i · w_{y_i}.

The distances of all pairs are compared to find the nearest, and nothing but the nearest has a gradient: `d[i, j]` with j the place
of the least is computed once more from the rows that it belongs to. No cotangent is as large as all pairs then, and the gradients are
gathered and scattered rows. The whole stays what is compared; it is not made at all where nothing compares it.

So it is with what is computed entry by entry and compared: the largest of `log(1 + relu(x))` is that of the entry that is largest, and
one slope is needed for each of those, not for all of x. And so it is with differences of neighbours, as the share of one class of an
ordinal model is one: what they are made of is computed at two places then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, at, is_contraction
from codegen.closed.regroup.accuracy import passes_gates
from codegen.closed.regroup.among import Among, alive
from codegen.closed.regroup.neighbours import by_places, shifts
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Less, Sigma, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sympy import Expr

RULE = "what is picked is computed of what is picked alone, (x wᵀ)[i, y[i]] = Σ x[i,k] w[y[i],k]"
PASSES = 2
"""How often as many elements as a pick sums are moved for each that the whole has, at most: both are moved some seven times."""


def with_picks_apart(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells with sums that are read at places alone, as far as gradients go, computed at these places."""
    if not any(is_pick(a) for c in cells if c.expr is not None for a in accesses(c.expr)):
        return cells
    among = Among(cells, outputs, fixed, example)
    compared = {n for c in cells if c.expr is None and c.node is not None and c.call for n in c.node.operands}
    for name in [
        c.name
        for c in reversed(cells)
        if c.expr is not None and (c.expr.has(Sigma) or c.name in compared or shifts(c, among.known))
    ]:
        if name not in among.known or name in {*outputs, *fixed}:
            continue
        trial = Picked(among.known[name], among)
        if trial.made() and trial.passes_gates():
            among = Among(alive(trial.cells, outputs), outputs, fixed, example)
    return among.cells


class Picked:
    """The cells with one sum, or one that is compared, and what is computed from it or for it entry by entry, computed at the places that are read."""

    def __init__(self, whole: Cell, among: Among) -> None:
        self.whole, self.among = whole, among
        self.cells = list(among.cells)
        self.gone: dict[str, Cell] = {}
        """What is not read any more where there is a gradient."""
        self.twins: dict[Any, Cell] = {}
        """What there is instead, by what it is of and where."""
        self.readers: dict[str, Cell] = {}
        """The cells that read it, as they were."""
        self.sizes: dict[str, Expr] = {}
        """How many places there are of those that whole numbers tell, counted from the first."""
        self.shifts = shifts(whole, among.known)

    def made(self) -> bool:
        """Put what is picked in the place of picks; False where something else has a gradient, or where that costs more.

        What is computed entry by entry is followed down to the last slope that is not a number: the gradients are put at places there.
        """
        sums = cast("Expr", self.whole.expr).has(Sigma)
        above = self.above()
        if above is None or not self.pays(above) or not (sums or self.shifts or self.bends(self.whole)):
            return False
        for c in reversed(above):
            self.pick(c)
        below = [self.among.known[r] for r in self.whole.reads]
        while below:
            below.sort(key=lambda c: self.among.place[c.name])
            c = below.pop()
            if c.name in self.gone or not c.differentiable or c.kind != "float" or not self.placed(c):
                continue
            small = self.among.size(c.shape) < self.among.size(self.whole.shape)
            goes = sums or self.bends(c) or self.spreads(c)
            if self.may_go(c) and goes and not self.live(c, besides=True):
                self.pick(c)
                below.extend(self.among.known[r] for r in c.reads)
            elif not sums:
                self.gather(c)
            elif not small:
                return False
        return True

    def above(self) -> list[Cell] | None:
        """The sum, and what is computed from it entry by entry, in order; None where that is read otherwise than at places."""
        found: dict[str, Cell] = {}
        stack, picks = [self.whole], False
        while stack:
            c = stack.pop()
            if not self.may_go(c):
                return None
            found[c.name] = c
            for r in self.among.readers.get(c.name, []):
                if r.name in found or not r.differentiable:
                    continue
                if r.expr is not None and all(map(is_pick, read_of(r, c))):
                    picks = True
                elif r.expr is not None and not r.expr.has(Sigma) and is_by_entry(r, c):
                    stack.append(r)
                else:
                    return None
        return sorted(found.values(), key=lambda c: self.among.place[c.name]) if picks else None

    def may_go(self, c: Cell) -> bool:
        """Whether a cell is a definition that can be read at other places: nothing is drawn in it, or converted."""
        if c.expr is None or c.after or c.kind != "float" or c.name in {*self.among.outputs, *self.among.fixed}:
            return False
        read = [self.among.known[r] for r in c.reads]
        return all(r.dtype == c.dtype for r in read if r.differentiable)

    def bends(self, c: Cell) -> bool:
        """Whether a cell, or one that it is computed from entry by entry, has a slope that is not a number: there is one to save."""
        stack, seen = [c], {c.name}
        while stack:
            e = stack.pop().expr
            if e is None or e.has(Sigma):
                continue
            if not all(
                t.as_coeff_Mul()[1].is_number or isinstance(t.as_coeff_Mul()[1], Indexed) for t in sp.Add.make_args(e)
            ):
                return True
            below = [self.among.known[name_of(a)] for a in accesses(e)]
            stack.extend(r for r in below if r.differentiable and r.name not in seen)
            seen.update(r.name for r in below)
        return False

    def spreads(self, c: Cell) -> bool:
        """Whether a cell has more entries than all that it is computed from, as a difference of all pairs."""
        return self.among.size(c.shape) > sum(self.among.size(self.among.known[r].shape) for r in c.reads)

    def live(self, c: Cell, besides: bool = False) -> list[Cell]:
        """The cells with a gradient that read a cell; those alone that read it whole where they are asked for `besides` picks."""
        found = [
            r
            for r in self.cells
            if r.name not in self.gone and r.differentiable and (c.name in r.reads or self.is_called_with(r, c))
        ]
        return [r for r in found if r.expr is None or not all(map(is_pick, read_of(r, c)))] if besides else found

    @staticmethod
    def is_called_with(r: Cell, c: Cell) -> bool:
        """Whether a cell is an operand of another that is a call."""
        return r.expr is None and r.node is not None and c.name in r.node.operands

    def placed(self, c: Cell) -> bool:
        """Whether anything reads a cell at places."""
        return any(is_pick(a) for r in self.live(c) if r.expr is not None for a in read_of(r, c))

    def pays(self, above: list[Cell]) -> bool:
        """Whether the sums at all places have fewer elements than the whole, and none of them is a matrix product."""
        total, names = 0, {c.name for c in above}
        for c in above:
            for r in self.among.readers[c.name]:
                for a in read_of(r, c) if r.differentiable and r.name not in names else []:
                    if is_contraction(at(self.whole, a.indices)):
                        return False
                    total += self.among.size(tuple(self.ranges(r)[i] for i in indices_of(a))) * self.summed()
        return 0 < PASSES * total < self.among.size(self.whole.shape)

    def summed(self) -> int:
        """How many elements the whole sums for each of its own."""
        sums = cast("Any", self.whole.expr).atoms(Sigma)
        return max((self.among.size(tuple(n for _, n in s.limits)) for s in sums), default=1)

    @staticmethod
    def ranges(r: Cell) -> dict[Any, Expr]:
        """The ranges of a cell's indices, and of those that it sums over."""
        return {**r.ranges, **{i: n for s in cast("Any", r.expr).atoms(Sigma) for i, n in s.limits}}

    def pick(self, c: Cell) -> None:
        """Let everything with a gradient that reads a cell at places read its twin there, and forget the cell."""
        self.gone[c.name] = c
        self.gather(c)

    def gather(self, c: Cell) -> None:
        """Let everything with a gradient that reads a cell at places read what stands there, which is gathered once where the cell stays."""
        for r in self.live(c):
            change = {a: self.twin(c, a, r) for a in (read_of(r, c) if r.expr is not None else ()) if is_pick(a)}
            if not change:
                continue
            new = replace(r, expr=cast("Any", r.expr).xreplace(change), call=False, text=None)
            if r.name in self.among.known:
                self.readers.setdefault(r.name, self.among.known[r.name])
            else:
                self.twins = {key: new if t.name == r.name else t for key, t in self.twins.items()}
            self.cells[next(k for k, x in enumerate(self.cells) if x.name == r.name)] = new

    def twin(self, c: Cell, access: Any, reader: Cell) -> Indexed:
        """An access to a cell at places as one to its twin."""
        free = indices_of(access)
        own = [i for i in dict.fromkeys(x for place in access.indices for x in in_order(place)) if i in free]
        key = c.name, tuple(x.xreplace({i: Index(f"_{k}") for k, i in enumerate(own)}) for x in access.indices)
        if key not in self.twins:
            ranges = self.ranges(reader)
            new = {i: fresh() for i in own}
            name = free_name(f"{c.name}_picked", {d.name for d in self.cells})
            places = [x.xreplace(new) for x in access.indices]
            pairs = list(zip(places, c.shape, strict=True))
            chosen = any(access in accesses(w) for w in cast("Any", reader.expr).atoms(Where))
            if (
                self.shifts and reader.name in self.among.known
            ):  # beside them there are others, which are counted from the first
                wrapped = [Where(Less(x, 0), x + n, x) for x, n in pairs]
                found = [self.place(x, e, None, reader, new) for x, e in zip(places, wrapped, strict=True)]
                self.sizes |= {name_of(x): n for x, n in zip(found, c.shape, strict=True) if isinstance(x, Indexed)}
                places = found
            elif self.shifts and chosen:  # what a choice leaves out, too
                ends = [self.known_of(Where(Less(x, 0), 0, Where(Less(x, n), x, n - 1))) for x, n in pairs]
                places = [self.place(x, e, c, reader, new) for x, e in zip(places, ends, strict=True)]
            expr = cast("Expr", c.element(places) if c.name not in self.gone else self.told(at(c, places)))
            twin = replace(
                c, name=name, indices=tuple(new.values()), shape=tuple(ranges[i] for i in own), expr=expr, node=None,
                call=False, named=False, text=None,
            )  # fmt: skip
            self.twins[key] = twin
            self.cells.insert(next(k for k, x in enumerate(self.cells) if x.name == reader.name), twin)
        return self.twins[key].element(own)

    def place(self, x: Any, e: Any, of: Cell | None, reader: Cell, new: Mapping[Any, Any]) -> Any:
        """What a place is as a cell before a reader, called after what is read there, or told it; a place that is an index as it is."""
        if not x.has(Indexed) or isinstance(e, Indexed):
            return e if x.has(Indexed) else x
        back, sizes = {j: i for i, j in new.items()}, self.ranges(reader)
        own = [i for i in in_order(x) if isinstance(i, Index)]
        key = "", (e.xreplace({i: Index(f"_{k}") for k, i in enumerate(own)}),)
        if key not in self.twins:
            copy = {i: fresh() for i in own}
            named = of.name if of is not None else name_of(accesses(x)[0])
            name = free_name(f"{named}_place", {d.name for d in self.cells})
            shape = tuple(sizes[back[i]] for i in own)
            self.twins[key] = cell = Cell(name, (*copy.values(),), shape, e.xreplace(copy), "int", False, torch.int64)
            self.cells.insert(next(k for k, d in enumerate(self.cells) if d.name == reader.name), cell)
        return self.twins[key].element(own)

    def told(self, e: Any) -> Any:
        """A definition at places, without constants by name, and with what is known of the whole numbers that it compares."""
        numbers = {a: self.among.known[name_of(a)].expr for a in accesses(e) if name_of(a) in self.among.known}
        return self.known_of(e.xreplace({a: x for a, x in numbers.items() if x is not None and x.is_number}))

    def known_of(self, e: Any) -> Any:
        """An expression with what is known of places."""
        return by_places(e, self.sizes)

    def passes_gates(self) -> bool:
        """Whether what reads the twins has the values that it had, at a random point and in float32 around several offsets."""
        own = {t.name for t in self.twins.values()}
        told = {r for c in self.gone.values() for r in c.reads}
        numbers = [c for r, c in self.among.known.items() if r in told and c.expr is not None and c.expr.is_number]
        old = sorted((*numbers, *self.gone.values(), *self.readers.values()), key=lambda c: self.among.place[c.name])
        new = [c for c in self.cells if c.name in own or c.name in self.readers]
        return passes_gates(old, new, self.among)


def read_of(r: Cell, c: Cell) -> list[Any]:
    """The accesses of a cell to another."""
    return [a for a in accesses(cast("Expr", r.expr)) if name_of(a) == c.name]


def is_pick(access: Any) -> bool:
    """Whether an access reads a cell where integers say, and so over fewer indices than it has."""
    return any(x.has(Indexed) for x in access.indices) and len(indices_of(access)) < sum(
        1 for x in access.indices if x != 0
    )


def is_by_entry(r: Cell, c: Cell) -> bool:
    """Whether a cell has one entry for each of another, of which it is computed: they may be transposed."""
    return len(r.ranges) == len(c.ranges) and all(indices_of(a) == frozenset(r.ranges) for a in read_of(r, c))


def in_order(e: Any) -> list[Any]:
    """The indices in one place of an access, from left to right."""
    return [e] if isinstance(e, Index) else [i for a in e.args for i in in_order(a)]


__all__ = ["RULE", "with_picks_apart"]
