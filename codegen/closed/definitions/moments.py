# pyright: basic
"""`E[f g] - E[f] E[g]` as `E[(f - E[f]) (g - E[g])]`: a variance or a covariance is the mean of products of deviations.

The two are equal, but the difference loses all digits where the means are large, and a variance may come out negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.matching import by_shape, determined
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.shares import reduction
from codegen.closed.regions.cells import Cell, at, natural, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Sigma, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

RULE = "a mean of products less the product of the means is the mean of the products of deviations"
DEPTH = 4
"""How many products of products are written out to find those of two means."""


@dataclass(frozen=True)
class Moment:
    """An element of a cell that is a number times a sum, with that sum written out."""

    element: Indexed
    number: Any
    body: Any
    limits: tuple[Any, ...]

    @property
    def sizes(self) -> list[Any]:
        """What the sum runs over."""
        return [n for _, n in self.limits]

    @property
    def mean(self) -> Any:
        """The mean of what is summed."""
        return self.element / (self.number * Mul(*self.sizes))


class Moments:
    """The cells of a region, and the deviations that differences of moments need."""

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells
        self.known: dict[str, Cell] = {}
        self.taken = {c.name for c in cells}
        self.deviations: dict[str, Cell] = {}
        """By the name of a mean's cell, the cell of what deviates from it."""

    def written(self) -> list[Cell]:
        """The cells with such differences as sums of products of deviations, each deviation right after the mean that it needs."""
        made: list[Cell] = []
        for c in self.cells:
            c = self.changed(c, self.by_deviations)
            self.known[c.name] = c
            made.append(c)
        if not self.deviations:
            return self.cells
        own = {u.name for u in self.deviations.values()}
        out: list[Cell] = []
        for c in (c for c in made if c.name not in own):
            out.append(self.changed(c, self.by_own))
            out += [u for mean, u in self.deviations.items() if mean == c.name]
        return out

    def changed(self, c: Cell, change: Callable[[Any], Any]) -> Cell:
        """A cell with its definition changed, where it is the algebra's."""
        if c.expr is None or c.call or c.kind != "float" or not c.expr.has(sp.Add):
            return c
        expr = inside(c.expr, change)
        return c if expr == c.expr else replace(c, expr=expr, text=None)

    def by_deviations(self, e: Any) -> Any:
        """A sum of terms two of which are such a difference, as what that is."""
        terms = list(e.args)
        for t in terms:
            pair = self.product_of_means(t)
            for s in (s for s in terms if s is not t) if pair is not None else ():
                new = self.as_one(s, *cast("Any", pair))
                if new is not None:
                    return sp.Add(new, *[x for x in terms if x is not s and x is not t])
        return e

    def by_own(self, e: Any) -> Any:
        """A sum that is a deviation as the element of its cell."""
        for u in self.deviations.values():
            found = determined(cast("Any", u.expr), self.products(e), u.indices)
            if found is not None:
                return u.element([i.xreplace(found) for i in u.indices])
        return e

    def product_of_means(self, t: Any) -> tuple[Any, Moment, Moment] | None:
        """(k, f, g) of a term k f g, where f and g are reductions of something, and nothing else in it is one."""
        powers = [f.as_base_exp() for f in Mul.make_args(self.products(t))]
        found = [(m, b, x) for b, x in powers for m in [self.moment(b)] if m is not None]
        if not all(x.is_Integer and x > 0 for _, _, x in found) or sum(x for _, _, x in found) != 2:
            return None
        rest = Mul(*[b**x for b, x in powers if (b, x) not in [(c, y) for _, c, y in found]])
        one, other = (m for m, _, x in found for _ in range(int(x)))
        return rest, one, other

    def moment(self, f: Any) -> Moment | None:
        """An element of a cell as the reduction that it is."""
        cell = self.known.get(name_of(f)) if isinstance(f, Indexed) else None
        if cell is None or cell.expr is None or cell.call:
            return None
        number, total = reduction(at(cell, cast("Indexed", f).indices))
        return None if total is None else Moment(f, number, total.body, total.limits)

    def as_one(self, s: Any, k: Any, f: Moment, g: Moment) -> Any:
        """What a term and k f g are together; None where that is no sum of products of deviations."""
        factors = Mul.make_args(self.products(s))
        found = [(m, x) for x in factors for m in [self.moment(x)] if m is not None]
        if len(found) != 1 or not found[0][0].sizes == f.sizes == g.sizes:
            return None
        whole, element = found[0]
        number = Mul(*[x for x in factors if x is not element])
        own = {i: j for (i, _), (j, _) in zip(g.limits, f.limits, strict=True)}
        product = Sigma(f.body * g.body.xreplace(own), *f.limits)
        ratio = k * f.number * g.number * Mul(*f.sizes) / (number * whole.number)
        if sp.cancel(ratio) != -1 or by_shape(product) != by_shape(Sigma(self.products(whole.body), *whole.limits)):
            return None
        one, other = self.deviation(f), self.deviation(g)
        if one is None or other is None:
            return None
        return number * whole.number * Sigma(one * other.xreplace(own), *f.limits)

    def products(self, e: Any) -> Any:
        """An expression with products that are cells of their own written out."""
        local = {
            n: d.expr for n, d in self.known.items() if d.expr is not None and not d.call and not d.expr.has(Sigma)
        }
        known = {n: self.known[n] for n, e in local.items() if isinstance(e, (Mul, sp.Pow))}
        for _ in range(DEPTH):
            before, e = e, substituted(e, known)
            if e == before:
                break
        return e

    def deviation(self, m: Moment) -> Indexed | None:
        """What is summed less its mean, as the element of a cell that may be there already."""
        name, expr = name_of(m.element), m.body - m.mean
        if name not in self.deviations:
            ranges = {
                **dict(zip(cast("Any", m.element).indices, self.known[name].shape, strict=False)),
                **dict(m.limits),
            }
            there = [(c, determined(expr, c.expr, natural(expr))) for c in self.cells if isinstance(c.expr, sp.Add)]
            same = (
                c for c, found in there if found is not None and {*found.values()} == {i for i in c.indices if i != 0}
            )
            cell = next(same, None) or self.made(expr, ranges)
            if cell is None:
                return None
            self.deviations[name] = self.known[cell.name] = cell
        u = self.deviations[name]
        found = determined(cast("Any", u.expr), expr, u.indices)
        return None if found is None else u.element([i.xreplace(found) for i in u.indices])

    def made(self, expr: Any, ranges: dict[Any, Any]) -> Cell | None:
        """A cell for a deviation; None where it has an index that is neither summed nor the mean's."""
        order = natural(expr)
        if not {*order} <= {*ranges}:
            return None
        largest = name_of(max(accesses(expr), key=lambda a: len(natural(a))))
        label = free_name(f"{largest}_centred", self.taken)
        self.taken.add(label)
        copy = {i: fresh() for i in order}
        shape = tuple(ranges[i] for i in order)
        own = cast("Any", tuple(copy.values()))
        return Cell(label, own, shape, expr.xreplace(copy), "float", True, self.known[largest].dtype)


def inside(e: Any, change: Callable[[Any], Any]) -> Any:
    """An expression with every sum of terms in it changed, those outside of reductions."""
    if isinstance(e, (Indexed, Sigma)) or not e.args:
        return e
    e = rebuilt(e, lambda a: inside(a, change))
    return change(e) if isinstance(e, sp.Add) else e


def by_moments(cells: list[Cell]) -> list[Cell]:
    """The cells with every such difference written so."""
    return Moments(cells).written()


__all__ = ["RULE", "by_moments"]
