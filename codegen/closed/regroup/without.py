# pyright: basic
"""What the cells after a product are without it: whether that can be, what they are then, what it costs, and that it is equal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, is_contraction
from codegen.closed.regroup.accuracy import passes_gates
from codegen.closed.regroup.factored import as_one, open_indices
from codegen.closed.regroup.order import Order
from codegen.closed.regroup.parts import Parts
from codegen.closed.regroup.products import Product, is_bracket, terms
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regroup.among import Among

GAIN = 0.8
"""What is left of the cost where another order is taken, at most."""


class Without:
    """The cells without one of them, which is a product, and without what is computed from it element by element."""

    def __init__(self, product: Cell, among: Among, apart: bool = False) -> None:
        """Several products that differ in one factor stay `apart`, or are one."""
        self.product, self.among, self.apart = product, among, apart
        self.joined = False
        """Whether several products became one."""
        self.affected: list[Cell] = []
        """What is computed from the product, up to the next sums, in order."""
        self.gone: dict[str, tuple[Product, ...]] = {product.name: terms(cast("Expr", product.expr)) or ()}
        """What is not made, as products."""
        self.sums = {product.name: int(bool(self.gone[product.name]) and bool(self.gone[product.name][0].limits))}
        """How many sums of products are multiplied with one another in each of these."""
        self.parts = Parts(among, self.gone)
        self.read: dict[str, Product] = {}
        """What was a sum over it, as one product."""
        self.added: dict[str, list[Cell]] = {product.name: []}
        """What there is in the place of each affected cell."""

    @property
    def new(self) -> list[Cell]:
        """The cells that are new, or defined anew, in order."""
        return [c for cells in self.added.values() for c in cells]

    def possible(self) -> bool:
        """Whether all that is computed from it, up to the next sums, are sums of products."""
        stack, reached, ends = [self.product.name], dict[str, Cell](), False
        while stack:
            name = stack.pop()
            for c in self.among.readers.get(name, []):
                plain = c.expr is not None and c.name not in self.among.fixed and c.dtype == self.product.dtype
                if not plain or name not in c.reads or c.after or not multiplies(c, name):
                    return False
                passes = self.passes(c)
                if passes and c.name in self.among.outputs:
                    return False
                if passes and c.name not in reached:
                    stack.append(c.name)
                ends = ends or not passes
                reached[c.name] = c
        self.affected = sorted(reached.values(), key=lambda c: self.among.place[c.name])
        return ends and bool(self.gone[self.product.name])

    def passes(self, c: Cell) -> bool:
        """Whether a cell is no sum over what it reads, a running one, or one that is read to be summed again alone."""
        if not cast("Expr", c.expr).has(Sigma) or is_running(cast("Expr", c.expr)):
            return True
        mine = self.among.readers.get(c.name, [])
        if len(mine) != 1 or c.name in self.among.outputs or mine[0].expr is None or not mine[0].expr.has(Sigma):
            return False
        products = terms(mine[0].expr)
        return products is not None and len(products) == 1 and len(products[0].factors) == 1

    def made(self) -> bool:
        """Make what there is instead; False where something that is computed from it is no sum of products any more."""
        for c in self.affected:
            before = len(self.parts.made)
            found = self.expanded(cast("Any", terms(cast("Expr", c.expr))))
            if found is None:
                return False
            products, self.sums[c.name] = found
            products = products if self.apart else self.gathered(products, c)
            last: list[Cell] = []
            if self.passes(c):
                self.gone[c.name] = products
            else:
                expr = self.written(products, c)
                if expr is None or (self.sums[c.name] > 1 and not is_square(expr)):
                    return False
                if len(products) == 1:
                    self.read[c.name] = products[0]
                last = [replace(c, expr=expr, call=False, text=None)]
            self.added[c.name] = [*list(self.parts.made.values())[before:], *last]
        return True

    def expanded(self, products: tuple[Product, ...]) -> tuple[tuple[Product, ...], int] | None:
        """Products with those of what is gone in the place of every access to it; sums of several in one place at most.

        With them comes how many sums of products are multiplied in one of them.
        """
        done: list[Product] = []
        most = 0
        stack = [(p, 0) for p in reversed(products)]
        while stack:
            p, count = stack.pop()
            if any(name_of(a) in self.gone for f in p.factors if not isinstance(f, Indexed) for a in accesses(f)):
                return None
            if any(self.parts.cell(name_of(a)).kind != "float" for f in p.factors for a in accesses(f)):
                return None
            at = p.reads(self.gone)
            if sum(len(self.gone[name_of(cast("Any", p.factors[k]))]) > 1 for k in at) > 1:
                return None
            if at:
                count += self.sums[name_of(cast("Any", p.factors[at[0]]))]
                stack.extend((p.put(at[0], q), count) for q in reversed(self.inside(p.factors[at[0]], self.gone)))
            else:
                done.append(p)
                most = max(most, count)
        return tuple(done), most

    def inside(self, access: Any, of: Mapping[str, Any]) -> list[Product]:
        """The products that an access to a tensor is."""
        cell = self.among.known[name_of(access)]
        where = {i: j for i, j in zip(cell.indices, access.indices, strict=True) if i != 0}
        products = of[cell.name]
        return [p.renamed(where) for p in (products if isinstance(products, tuple) else (products,))]

    def gathered(self, products: tuple[Product, ...], c: Cell) -> tuple[Product, ...]:
        """Several products that differ in one factor as one, with their sum in its place: `x w - m w` is `(x - m) w`."""
        if len(products) < 2:
            return products
        whole: list[Product] = []
        for p in products:
            at = p.reads(self.read)
            whole.extend([p] if len(at) != 1 else [p.put(at[0], q) for q in self.inside(p.factors[at[0]], self.read)])
        found = as_one(tuple(whole))
        if found is None:
            return products
        one, place, rest = found
        self.parts.belong(c, (one, *rest))
        terms_of: list[Expr] = []
        for p in rest:
            group = Order(p, open_indices(p), self.among.size).cheapest(self.parts.ranges)
            if group is None:
                return products
            terms_of.append(self.parts.value(p.number, group))
        self.joined = True
        own = one.factors[place]
        put = self.parts.part(cast("Expr", sp.Add(own, *terms_of)), indices_of(own), "add")
        return (replace(one, factors=(*one.factors[:place], put, *one.factors[place + 1 :])),)

    def written(self, products: tuple[Product, ...], c: Cell) -> Expr | None:
        """A definition in the cheapest order, with what it sums first as parts."""
        out: list[Expr] = []
        self.parts.belong(c, products)
        for p in products:
            group = Order(p, frozenset(c.ranges), self.among.size).cheapest(self.parts.ranges)
            if group is None:
                return None
            met = frozenset[Any]().union(*map(indices_of, p.factors))
            number = p.number * Mul(*[n for i, n in p.limits if i not in met])
            write = self.parts.definition if len(products) == 1 else self.parts.value
            out.append(write(number, group))
        return cast("Expr", sp.Add(*out))

    def cheaper(self) -> bool:
        """Whether the cells that are left cost less than those that were there, and none of the new ones is as large.

        What is only written out inside of its readers is none of this rule: a region does that by itself.
        """
        if not is_contraction(cast("Expr", self.product.expr)) and not self.parts.made and not self.parts.shared:
            return False
        living = self.living()
        large = self.among.size(self.product.shape)
        if any(c.name in self.parts.made and self.among.size(c.shape) >= large for c in living):
            return False
        before = self.cost(self.product) + sum(map(self.cost, self.affected))
        return sum(map(self.cost, living)) < GAIN * before

    def living(self) -> list[Cell]:
        """The new cells that are read by others, or in the end."""
        own = {self.product.name, *(c.name for c in self.affected)}
        needed = {*self.among.outputs}
        out: list[Cell] = []
        for c in reversed(self.new):
            if c.name in needed or any(r.name not in own for r in self.among.readers.get(c.name, [])):
                out.append(c)
                needed.update(c.reads)
        return out

    def cost(self, c: Cell) -> float:
        """Elements that a cell moves, with what it computes in elements' time."""
        products = terms(cast("Expr", c.expr)) or ()
        total = 0.0 if len(products) == 1 else float(self.among.size(c.shape))
        for p in products:
            ranges = {**c.ranges, **dict(p.limits)}
            group = Order(p, frozenset(c.ranges), self.among.size).cheapest(ranges)
            if group is None:
                return float("inf")
            alone = len(p.factors) == 1 and len(products) > 1
            total += group.cost + (self.among.size(tuple(ranges[i] for i in group.indices)) if alone else 0.0)
        return total

    def passes_gates(self) -> bool:
        """Whether both orders give one value at a random point in 50-digit arithmetic, and round about as well."""
        return passes_gates(*self.both(), self.among)

    def both(self) -> tuple[list[Cell], list[Cell]]:
        """The cells of the old order and of the new one, each in order."""
        shared = list(self.parts.shared.values())
        old = [*shared, self.product, *self.affected]
        one, other = (sorted(cells, key=lambda c: self.among.place[c.name]) for cells in (old, shared))
        return one, [*other, *self.new]


def is_square(e: Expr) -> bool:
    """Whether an expression is a sum of squares.

    `Sum (x xᵀ)²` is `Sum (xᵀ x)²`, but `Sum (x w)²` is not computed as `Sum (xᵀ x) (w wᵀ)`: where x w is small, its digits cancel.
    """
    (rest,) = [f for f in Mul.make_args(e) if not f.is_number and accesses(f)][:1] or [e]
    body: Any = rest.body if isinstance(rest, Sigma) else rest
    return bool(body.is_Pow and body.exp == 2)


def is_running(e: Expr) -> bool:
    """Whether an expression is a sum up to each place, as a cumulative sum is."""
    products = terms(e)
    return products is not None and len(products) == 1 and any(map(is_bracket, products[0].factors))


def multiplies(c: Cell, name: str) -> bool:
    """Whether a cell is a sum of products in which another is a factor wherever it is read."""
    products = terms(cast("Expr", c.expr))
    others = [f for p in products or () for f in p.factors if not isinstance(f, Indexed)]
    return products is not None and not any(name_of(a) == name for f in others for a in accesses(f))


__all__ = ["GAIN", "Without"]
