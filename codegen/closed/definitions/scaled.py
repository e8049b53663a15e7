# pyright: basic
"""Exponentials that are summed, with the largest exponent taken out: exp(f) is s e for s = exp(m), e = exp(f - m) and m = max f.

What is made of them is a power of s times what is made of e: `Sum exp(f)` is s Sum e, `exp(f) / Sum exp(f)` has no s, nor has
log Sum exp(f) = m + log Sum e. Where powers of s meet in a sum, as in `1 + Sum exp(f)`, the largest is taken out, and m is 0 at
least, so that 1/s does not overflow. No value depends on m, so nothing is passed back to it. Nothing overflows then.

An exponential beside another tensor, `c + exp(f)`, is summed over no axis: m is the larger of f and 0 then.

A sum at places, `z_i = Sum_j [i = d_j] exp(f_j)` as over the edges into each node of a graph, has a largest exponent of its own at
each of them, m_i, and exp(f_j) is exp(m_i) e_j for i = d_j.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul, Pow

from codegen.closed.definitions.ownscale import by_its_own, is_beside
from codegen.closed.regions.cells import Cell, at, is_positive, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import (
    BRACKETS,
    Amax,
    Delta,
    Equal,
    Index,
    LessEqual,
    Sigma,
    Where,
    accesses,
    base,
    element,
    fresh,
    instantiate,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.region import Region


RULE = "the largest exponent is taken out, exp(f) = exp(m) exp(f - m), so that nothing overflows"


class Unscaled(Exception):  # no error: that there is no such form
    """Powers of s that do not come off, or of several rows at once."""


@dataclass
class Scaling:
    """One exponential cell with the cells that are scaled because of it: the power of s that each was divided by."""

    origin: Cell
    rows: tuple[Any, ...]
    """Where the largest exponent is read, in terms of its indices."""
    name: str
    degrees: dict[str, int] = field(default_factory=dict[str, int])
    own: dict[str, tuple[Cell, tuple[Any, ...]]] = field(default_factory=dict[str, tuple[Cell, tuple[Any, ...]]])
    """Where scaled cells read it, in terms of their own indices."""
    names: dict[str, str] = field(default_factory=dict[str, str])
    positive: dict[str, bool] = field(default_factory=dict[str, bool])
    """Whether scaled cells are positive: not what an exponential is multiplied by, `Sum exp(f) v` may be zero."""
    mixed: bool = False
    weight: Any = sp.S.One
    """What every reader multiplies the exponential by, at its own indices."""
    indicates: bool = False
    """Whether that is zero or one."""

    def masked(self, known: Mapping[str, Cell]) -> Any:
        """Where that is zero, by the comparison that a cell holds as a number, if it is one."""
        cell = known.get(name_of(self.weight)) if isinstance(self.weight, Indexed) else None
        held = at(cell, self.weight.indices) if cell is not None and cell.expr is not None else self.weight
        return 1 - held if truth(held) else Equal(self.weight, 0)

    def unweighted(self, c: Cell) -> Any:
        """A reader's definition without a weight that is zero or one: the exponential is zero then."""
        if not self.indicates or self.origin.name not in c.reads:
            return c.expr
        (a,) = accesses(cast("Expr", c.expr), self.origin.name)
        return cast("Any", c.expr) / at(replace(self.origin, expr=self.weight), a.indices)

    def largest(self, indices: Any) -> Indexed:
        """The largest exponent of a row."""
        return cast("Indexed", element(base(self.name), list(indices)))

    def of(self, e: Any) -> tuple[int, Any, Indexed | None]:
        """(k, x, m) of an expression that is exp(k m) x."""
        if isinstance(e, Indexed):
            name = name_of(e)
            if name not in self.degrees:
                return 0, e, None
            cell, rows = self.own[name]
            there = {i: j for i, j in zip(cell.indices, e.indices, strict=False) if i != 0}
            m = self.largest([x.xreplace(there) for x in rows])
            return self.degrees[name], element(base(self.names[name], self.positive[name]), list(e.indices)), m
        if not any(name_of(a) in self.degrees for a in accesses(e)):
            return 0, e, None
        if isinstance(e, Mul):
            parts = [self.of(f) for f in e.args]
            return sum(k for k, _, _ in parts), Mul(*[x for _, x, _ in parts]), self.one_row(parts)
        if isinstance(e, sp.Pow) and not isinstance(e, sp.exp) and e.exp.is_Integer:
            k, x, m = self.of(e.base)
            return k * int(e.exp), x**e.exp, m
        if isinstance(e, sp.Add):
            return self.together(e.args, lambda xs: sp.Add(*xs))
        if isinstance(e, sp.log):
            k, x, m = self.of(e.args[0])
            return 0, sp.log(x) + (k * cast("Any", m) if m is not None else 0), m
        if isinstance(e, Sigma):
            k, x, m = self.of(e.body)
            m = None if m is None else cast("Indexed", m.xreplace(placed(e.body)))
            if k and m is not None and m.free_symbols & {i for i, _ in e.limits}:
                raise Unscaled
            return k, e.func(x, *e.args[1:]), None if k == 0 else m
        if isinstance(e, Where) and not any(name_of(a) in self.degrees for a in accesses(e.args[0])):
            return self.together(e.args[1:], lambda xs: Where(e.args[0], *xs))
        raise Unscaled

    def together(self, parts: Any, f: Any) -> tuple[int, Any, Indexed | None]:
        """Several expressions with the same power of s taken out."""
        found = [self.of(t) for t in parts]
        m = self.one_row(found)
        top = max(k for k, x, _ in found if x != 0)
        self.mixed = self.mixed or any(k != top and x != 0 for k, x, _ in found)
        return top, f([x if k == top or x == 0 else x * sp.exp((k - top) * cast("Any", m)) for k, x, _ in found]), m

    def one_row(self, parts: list[tuple[int, Any, Indexed | None]]) -> Indexed | None:
        """The largest exponent that several parts were divided by, which must be one."""
        rows = {m for k, _, m in parts if m is not None and k}
        if len(rows) > 1:
            raise Unscaled
        return next(iter(rows), None)


def scaled(region: Region, kept: tuple[str, ...]) -> Region | None:
    """The region with the largest exponent taken out of every exponential that is summed; None where there is none."""
    cells, moving = list(region.cells), {*region.wanted}
    for c in cells:
        moving |= {c.name} if c.differentiable and moving & {*c.reads} else set()
    for name in [c.name for c in cells if isinstance(c.expr, sp.exp) and c.name not in kept]:
        cells = without_scale(cells, name, kept, moving) or cells
    return region.by(RULE, lambda _: cells) if len(cells) > len(region.cells) else None


def without_scale(cells: list[Cell], name: str, kept: tuple[str, ...], moving: set[str]) -> list[Cell] | None:
    """The cells with the scale taken out of one exponential; None where it is not summed, or its scale is seen outside.

    What a gradient goes through is `moving`: a weight that is 0 masks nothing then, for its own gradient is not 0.
    """
    known = {c.name: c for c in cells}
    origin = known[name]
    alone = is_beside(origin, known)
    over = () if alone else summed_positions(origin, cells)
    if not (over or alone) or any(i == 0 for i in origin.indices):
        return None
    places = summed_places(origin, cells)
    rows = beside(tuple(i for p, i in enumerate(origin.indices) if p not in over), tuple(x for x, _ in places), over)
    weight = sp.S.One if alone else weight_of(origin, cells)
    smooth = weight.xreplace({b: sp.Dummy() for b in weight.atoms(*BRACKETS)})  # no gradient goes through a comparison
    weight = sp.S.One if any(name_of(a) in moving for a in accesses(smooth)) else weight
    top = free_name(f"{name}_max", known)
    scaling = Scaling(origin, rows, top, weight=weight, indicates=indicates(weight, known))
    exponent, off = cast("Any", origin.expr).args[0], list[Cell]()
    if weight != 1:
        filled = Where(scaling.masked(known), -sp.oo, exponent)
        off.append(replace(origin, name=f"{top}_off", expr=filled, node=None, text=None, named=False, positive=False))
        exponent = off[0].element(origin.indices)
    try:
        body = written(scaling, cells, kept, exponent)
    except Unscaled:
        return None
    if alone:
        return in_order(by_its_own(origin, exponent, top, body)) if scaling.mixed else None
    first = largest_of(scaling, exponent, over, places, f"{top}_" if scaling.mixed or weight != 1 else top)
    least = [*off, first]
    if scaling.mixed:
        read = first.element(first.indices)
        least.append(replace(first, name=top, expr=Where(LessEqual(read, 0), 0, read)))
    elif weight != 1:  # a row may be masked altogether
        read = first.element(first.indices)
        least.append(replace(first, name=top, expr=Where(Equal(read, -sp.oo), 0, read)))
    place = next(k for k, c in enumerate(body) if top in c.reads)
    return in_order([*body[:place], *least, *body[place:]])


def in_order(cells: list[Cell]) -> list[Cell]:
    """The cells, each after those that it reads: a weight may be computed after the exponential that it masks."""
    known = {c.name: c for c in cells}
    done: dict[str, Cell] = {}

    def add(c: Cell) -> None:
        if c.name not in done:
            for r in c.reads:
                if r in known:
                    add(known[r])
            done[c.name] = c

    for c in cells:
        add(c)
    return list(done.values())


def written(scaling: Scaling, cells: list[Cell], kept: tuple[str, ...], exponent: Any) -> list[Cell]:
    """The cells in terms of scaled ones, which have names of their own."""
    taken = {c.name for c in cells}
    out: list[Cell] = []
    for c in cells:
        if c.name == scaling.origin.name:
            k, expr = 1, sp.exp(exponent - scaling.largest(scaling.rows))
            own = scaling.rows
        elif c.expr is None or not set(c.reads) & set(scaling.degrees):
            out.append(c)
            continue
        else:
            k, expr, m = scaling.of(scaling.unweighted(c))
            if k and (m is None or not {i for i in m.free_symbols if isinstance(i, Index)} <= set(c.indices)):
                raise Unscaled
            own = tuple(m.indices) if k and m is not None else ()
        if k == 0:
            out.append(replace(c, expr=expr))
            continue
        if c.name in kept or c.kind != "float":
            raise Unscaled
        name = free_name(f"{c.name}_scaled", taken)
        taken.add(name)
        scaling.degrees[c.name], scaling.own[c.name], scaling.names[c.name] = k, (c, own), name
        scaling.positive[c.name] = positive = c.positive or is_positive(expr)
        out.append(replace(c, name=name, expr=expr, node=None, text=None, call=False, positive=positive))
    return out


def summed_positions(origin: Cell, cells: list[Cell]) -> tuple[int, ...]:
    """Over which positions an exponential, or a product with it, or one with that, is summed: by all sums alike, else none."""
    products: dict[str, Cell] = {}
    for c in cells:
        if isinstance(c.expr, Mul) and any(r == origin.name or r in products for r in c.reads):
            products[c.name] = replace(c, expr=cast("Expr", substituted(c.expr, products)))
    found: set[tuple[int, ...]] = set()
    for c in cells:
        for s in c.expr.atoms(Sigma) if c.expr is not None else ():
            body = substituted(s.body, products)
            for a in accesses(body, origin.name):
                found.add(tuple(p for p, i in enumerate(a.indices) if i in {j for j, _ in s.limits}))
    return next(iter(found)) if len(found) == 1 else ()


def placed(body: Any) -> dict[Any, Any]:
    """What stands for the places that the factors [i = d_j] of a sum's body name: i for d_j."""
    deltas = [f.args for f in Mul.make_args(body) if isinstance(f, Delta)]
    return {x: i for pair in deltas for i, x in (pair, pair[::-1]) if isinstance(i, Index) and isinstance(x, Indexed)}


def summed_places(origin: Cell, cells: list[Cell]) -> list[tuple[Any, Any]]:
    """The places at which an exponential is summed, in terms of its indices, and how many there are; none where sums differ."""
    found: list[list[tuple[Any, Any]]] = []
    for c in cells:
        for s in c.expr.atoms(Sigma) if c.expr is not None else ():
            for a in accesses(s.body, origin.name):
                own = {i: j for i, j in zip(a.indices, origin.indices, strict=False) if i != 0}
                sizes = c.ranges
                at_places = [(x, i) for x, i in placed(s.body).items() if i in sizes]
                found.append([(x.xreplace(own), sizes[i]) for x, i in at_places])
    return found[0] if found and all(f == found[0] for f in found) else []


def weight_of(origin: Cell, cells: list[Cell]) -> Any:
    """What every reader of an exponential multiplies it by, at its own indices; one where that is not the same."""
    found: set[Any] = set()
    for c in cells:
        for a in accesses(c.expr, origin.name) if c.expr is not None else ():
            factors = list(Mul.make_args(c.expr))
            if a not in factors or len(set(a.indices)) != len(a.indices):
                return sp.S.One
            own = dict(zip(a.indices, origin.indices, strict=True))
            found.add(Mul(*[f for f in factors if f != a]).xreplace(own))
    weight = next(iter(found), sp.S.One)
    alone = len(found) == 1 and not weight.has(Sigma, Pow) and weight.has(Indexed, Delta)
    return (
        weight
        if alone and {i for i in weight.free_symbols if isinstance(i, Index)} <= set(origin.indices)
        else sp.S.One
    )


def beside(kept: tuple[Any, ...], at_places: tuple[Any, ...], over: tuple[int, ...]) -> tuple[Any, ...]:
    """What belongs to the positions that are kept, with what belongs to places where those are that are summed, if any is."""
    first = over[0] if over else len(kept)
    return (*kept[:first], *at_places, *kept[first:])


def truth(e: Any) -> bool:
    """Whether an expression is zero or one."""
    return isinstance(e, (*BRACKETS, Delta)) or isinstance(1 - e, (*BRACKETS, Delta))


def indicates(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether an expression is zero or one: a product of truths, or of cells that are such products."""
    cells = (known.get(name_of(f)) if isinstance(f, Indexed) else None for f in Mul.make_args(e))
    return all(
        truth(f) or (c is not None and c.expr is not None and indicates(c.expr, known))
        for f, c in zip(Mul.make_args(e), cells, strict=True)
    )


def largest_of(
    scaling: Scaling, exponent: Any, over: tuple[int, ...], places: list[tuple[Any, Any]], name: str
) -> Cell:
    """The largest exponent of every row, which nothing is passed back to."""
    origin = scaling.origin
    copy: Mapping[Any, Any] = {i: fresh() for i in origin.indices}
    limits = [sp.Tuple(copy[origin.indices[p]], origin.shape[p]) for p in over]
    kept = [p for p in range(len(origin.indices)) if p not in over]
    at_places = [fresh() for _ in places]
    indices = beside(tuple(copy[origin.indices[p]] for p in kept), tuple(at_places), over)
    shape = beside(tuple(origin.shape[p] for p in kept), tuple(n for _, n in places), over)
    body: Any = instantiate(exponent, dict(copy))
    for i, (x, _) in zip(at_places, places, strict=True):
        body = Where(Delta(i, x.xreplace(dict(copy))), body, -sp.oo)
    return Cell(name, indices, shape, Amax(body, *limits), "float", False, origin.dtype)


__all__ = ["RULE", "scaled"]
