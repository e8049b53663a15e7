# pyright: basic
"""Products of products in another order: a large product that is read by further sums alone is not made.

`(q kᵀ) v` is `q (kᵀ v)`, `Sum (x xᵀ)²` is `Sum (xᵀ x)²`, and a kernel matrix that is centred is a product of centred
features. A product is left out where everything that is computed from it is again a sum of products, up to tensors that are
smaller, and where the cost model says that it pays at the sizes of the example.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp
from sympy import Expr, Mul, Tuple

from codegen.closed.called import addition_name
from codegen.closed.cells import Cell, is_contraction, is_positive, natural, signature
from codegen.closed.factored import as_one
from codegen.closed.gates.points import DIGITS, boxed, rewritten
from codegen.closed.gates.sizes import shape_at, size_symbols
from codegen.closed.grouping import Group, Order
from codegen.closed.products import Product, indices_of, product_terms, terms
from engine.arithmetic import arithmetic
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, accesses, fresh, instantiate, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

RULE = "products and sums in the order that moves least, (q kᵀ) v = q (kᵀ v)"
LONGEST = 28
"""Letters of what a part is called after several tensors, at most."""
GAIN = 0.8
"""What is left of the cost where another order is taken, at most."""


def regrouped(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells without the products that cost more than they save. `fixed` cells keep the forward's own arithmetic."""
    kept = {*outputs, *fixed}
    done: set[str] = set()
    found = True
    while found:
        found, known, readers = False, {c.name: c for c in cells}, readers_of(cells)
        for c in cells:
            if c.name in done or c.name in kept or not (is_product(c) or is_scaled(c, known)):
                continue
            done.add(c.name)
            trial = Without(c, cells, readers, outputs, fixed, example)
            if trial.possible() and trial.made() and trial.cheaper() and trial.proven():
                cells, done, found = trial.after, set(), True
                break
    return cells


def multiplies(c: Cell, name: str) -> bool:
    """Whether a cell is a sum of products in which another is a factor wherever it is read."""
    products = terms(cast("Expr", c.expr))
    others = [f for p in products or () for f in p.factors if not isinstance(f, Indexed)]
    return products is not None and not any(name_of(a) == name for f in others for a in accesses(f))


def readers_of(cells: list[Cell]) -> dict[str, list[Cell]]:
    """The cells that read each cell, by a definition or as operands of a call."""
    found: dict[str, list[Cell]] = {}
    for c in cells:
        for r in dict.fromkeys((*c.reads, *called_with(c), *c.after)):
            found.setdefault(r, []).append(c)
    return found


def called_with(c: Cell) -> tuple[str, ...]:
    """The operands of a cell that is a call."""
    return c.node.operands if c.node is not None and (c.call or c.expr is None) else ()


def is_product(c: Cell) -> bool:
    """Whether a cell is a sum over products of tensors that do not share all indices."""
    return c.expr is not None and is_contraction(c.expr)


def is_scaled(c: Cell, known: Mapping[str, Cell]) -> bool:
    """Whether a cell is a product, entry by entry, of tensors over other indices: not of exponentials, which have to be shares."""
    products = terms(c.expr) if isinstance(c.expr, Mul) and len(c.indices) > 1 else None
    if products is None or len(products) != 1 or not all(isinstance(f, Indexed) for f in products[0].factors):
        return False
    over = {indices_of(f) for f in products[0].factors}
    exponentials = any(isinstance(known[name_of(a)].expr, sp.exp) for a in accesses(cast("Expr", c.expr)))
    return len(over) > 1 and not exponentials


class Without:
    """The cells without one of them, which is a product, and without what is computed from it element by element."""

    def __init__(
        self,
        product: Cell,
        cells: list[Cell],
        readers: Mapping[str, list[Cell]],
        outputs: Collection[str],
        fixed: Collection[str],
        example: Mapping[Any, int],
    ) -> None:
        self.product, self.cells, self.readers = product, cells, readers
        self.outputs, self.fixed, self.example = outputs, fixed, example
        self.known = {c.name: c for c in cells}
        self.gone: dict[str, tuple[Product, ...]] = {}
        """What is not made, as products."""
        self.read: dict[str, Product] = {}
        """What was a sum over it, as one product."""
        self.changed: list[Cell] = []
        self.new: list[Cell] = []
        self.same: dict[Any, tuple[Cell, tuple[Any, ...]]] = {}
        self.shared: dict[str, Cell] = {}
        """What is read for a part that would be equal."""
        self.after: list[Cell] = []

    def possible(self) -> bool:
        """Whether all that is computed from it, up to the next sums, are sums of products."""
        own = terms(cast("Expr", self.product.expr))
        stack, reached, ends = [self.product.name], {self.product.name}, False
        while stack:
            name = stack.pop()
            for c in self.readers.get(name, []):
                if c.name in reached:
                    continue
                plain = c.expr is not None and c.name not in self.fixed and c.dtype == self.product.dtype
                if not plain or name not in c.reads or c.after or not multiplies(c, name):
                    return False
                if not self.passes(c):
                    ends = True
                    continue
                if c.name in self.outputs:
                    return False
                reached.add(c.name)
                stack.append(c.name)
        return ends and own is not None and len(own) == 1

    def passes(self, c: Cell) -> bool:
        """Whether a cell is no sum over what it reads, or one that is read to be summed again alone."""
        if not cast("Expr", c.expr).has(Sigma):
            return True
        mine = self.readers.get(c.name, [])
        if len(mine) != 1 or c.name in self.outputs or mine[0].expr is None or not mine[0].expr.has(Sigma):
            return False
        products = terms(mine[0].expr)
        return products is not None and len(products) == 1 and len(products[0].factors) == 1

    def made(self) -> bool:
        """The cells after it, in order; False where something that is computed from it is no sum of products any more."""
        for c in self.cells:
            if c is self.product:
                self.gone[c.name] = cast("Any", terms(cast("Expr", c.expr)))
                continue
            if not any(r in self.gone for r in c.reads):
                self.keep(c)
                continue
            products = self.expanded(cast("Any", terms(cast("Expr", c.expr))))
            if products is None:
                return False
            products = self.gathered(products, c)
            self.changed.append(c)
            if self.passes(c):
                self.gone[c.name] = products
                continue
            expr = self.written(products, c)
            if expr is None:
                return False
            if len(products) == 1:
                self.read[c.name] = products[0]
            self.new.append(replace(c, expr=expr, call=False, text=None))
            self.keep(self.new[-1])
        return True

    def keep(self, c: Cell) -> None:
        """The next of the cells."""
        self.after.append(c)
        if c.expr is not None and c.kind == "float":
            self.same.setdefault(*signed(c))

    def expanded(self, products: tuple[Product, ...]) -> tuple[Product, ...] | None:
        """Products with those of what is gone in the place of every access to it; sums of several in one place at most."""
        done: list[Product] = []
        stack = list(reversed(products))
        while stack:
            p = stack.pop()
            if any(name_of(a) in self.gone for f in p.factors if not isinstance(f, Indexed) for a in accesses(f)):
                return None
            if any(self.cell(name_of(a)).kind != "float" for f in p.factors for a in accesses(f)):
                return None
            at = p.reads(self.gone)
            if sum(len(self.gone[name_of(cast("Any", p.factors[k]))]) > 1 for k in at) > 1:
                return None
            if at:
                stack.extend(reversed([p.put(at[0], q) for q in self.inside(p.factors[at[0]], self.gone)]))
            else:
                done.append(p)
        return tuple(done)

    def inside(self, access: Any, of: Mapping[str, Any]) -> list[Product]:
        """The products that an access to a tensor is."""
        cell = self.known[name_of(access)]
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
        ranges = {**c.ranges, **{i: n for p in (one, *rest) for i, n in p.limits}}
        own = one.factors[place]
        parts = [self.sum_of(p, indices_of(p_free(p)), ranges, c) for p in rest]
        put = self.part(cast("Expr", sp.Add(own, *parts)), indices_of(own), ranges, c, "add")
        return (replace(one, factors=(*one.factors[:place], put, *one.factors[place + 1 :])),)

    def sum_of(self, p: Product, left: frozenset[Index], ranges: Mapping[Any, Expr], c: Cell) -> Expr:
        """A product with its sums as parts."""
        group = Order(p, left, self.size).cheapest(dict(ranges))
        assert group is not None
        return self.value(p.number, group, ranges, c)

    def written(self, products: tuple[Product, ...], c: Cell) -> Expr | None:
        """A definition in the cheapest order, with what it sums first as parts."""
        out: list[Expr] = []
        for p in products:
            ranges = {**c.ranges, **dict(p.limits)}
            group = Order(p, frozenset(c.ranges), self.size).cheapest(ranges)
            if group is None:
                return None
            missing = Mul(*[n for i, n in p.limits if not any(i in indices_of(f) for f in p.factors)])
            last = len(products) == 1
            out.append(
                self.top(p.number * missing, group, ranges, c)
                if last
                else self.value(p.number * missing, group, ranges, c)
            )
        return cast("Expr", sp.Add(*out))

    def top(self, number: Expr, group: Group, ranges: Mapping[Any, Expr], c: Cell) -> Expr:
        """A group as the definition of a cell."""
        if group.parts is None:
            return number * summed(cast("Expr", group.factor), group.summed, ranges)
        number, one = self.access(number, group.parts[0], ranges, c)
        number, two = self.access(number, group.parts[1], ranges, c)
        return number * summed(one * two, group.summed, ranges)

    def value(self, number: Expr, group: Group, ranges: Mapping[Any, Expr], c: Cell) -> Expr:
        """A group as a factor or a part."""
        number, one = self.access(number, group, ranges, c)
        return number * one

    def access(self, number: Expr, group: Group, ranges: Mapping[Any, Expr], c: Cell) -> tuple[Expr, Expr]:
        """What is left of the number, and a group as a factor of a product: a mean takes its count."""
        if group.parts is None and not group.summed:
            return number, cast("Expr", group.factor)
        if group.parts is None:
            count = Mul(*[ranges[i] for i in group.summed])
            mean = sp.cancel(number * count)
            takes = mean.count_ops() < number.count_ops() or mean in (1, -1)
            body = summed(cast("Expr", group.factor), group.summed, ranges)
            if takes:
                return mean, self.part(body / count, group.indices, ranges, c, "mean")
            return number, self.part(body, group.indices, ranges, c, "sum")
        return number, self.part(
            self.top(sp.S.One, group, ranges, c), group.indices, ranges, c, "matmul" if group.summed else "mul"
        )

    def part(self, e: Expr, indices: frozenset[Index], ranges: Mapping[Any, Expr], c: Cell, label: str) -> Expr:
        """A tensor of its own, shared with an equal one; returns the access to it."""
        pair = in_rows(e)
        natural_order = natural(e) if pair is None else [i for a in pair for i in cast("Any", a.indices)]
        free = [cast("Index", i) for i in dict.fromkeys(natural_order) if i in indices]
        copy = {i: fresh() for i in free}
        expr = instantiate(e, copy)
        taken = {*self.known, *(d.name for d in self.after), *map(str, self.example)}
        cell = Cell(
            free_name(self.called(expr, label, c, pair), taken),
            tuple(copy[i] for i in free),
            tuple(ranges[i] for i in free),
            expr,
            "float",
            any(self.cell(name_of(a)).differentiable for a in accesses(expr)),
            c.dtype,
            positive=is_positive(expr),
        )
        key, (_, order) = signed(cell)
        if key not in self.same:
            self.new.append(cell)
            self.keep(cell)
        found, own = self.same[key]
        self.shared[found.name] = found
        back = {j: i for i, j in copy.items()}
        mapping = dict(zip(own, (back[i] for i in order), strict=True))
        return found.element([mapping.get(i, i) for i in found.indices])

    def called(self, e: Expr, label: str, c: Cell, pair: tuple[Indexed, Indexed] | None) -> str:
        """What a part is called: `x_mean`, `x_centred`, `x_gram` for xᵀ x, `k_v` for kᵀ v, else after its owner."""
        owner = c.node.name if c.node is not None else c.name
        tensors = list(dict.fromkeys(name_of(a) for a in (pair or accesses(e))))
        name = f"{owner}_{label}"
        if label == "add":
            name = addition_name(e, owner, {**self.known, **{d.name: d for d in self.after}})
        elif label in ("mean", "sum"):
            name = f"{tensors[0]}_{label}" if len(tensors) == 1 else name
        elif len(tensors) < 3:
            name = "_".join(tensors) if len(tensors) == 2 else f"{tensors[0]}_{'gram' if label == 'matmul' else label}"
        return name if len(name) <= LONGEST else f"{owner}_{label}"

    def cell(self, name: str) -> Cell:
        """A cell by name, old or new."""
        return self.known.get(name) or next(d for d in self.after if d.name == name)

    def size(self, shape: Any) -> int:
        """The size of a dimension, or the elements of a shape, at the example."""
        whole = Mul(*shape) if isinstance(shape, tuple) else shape
        return evaluate(cast("Expr", whole), self.example) if isinstance(whole, Expr) else int(whole)

    def cheaper(self) -> bool:
        """Whether the cells that are left cost less than those that were there; what nobody reads any more is left out.

        What is only written out inside of its readers is none of this rule: a region does that by itself.
        """
        parts = [c for c in self.new if c.name not in self.known]
        if not is_product(self.product) and not parts and not self.shared:
            return False
        self.after = alive(self.after, self.outputs)
        old, new = {c.name: c for c in self.cells}, {c.name: c for c in self.after}
        before = sum(self.cost(c) for n, c in old.items() if new.get(n) is not c)
        return sum(self.cost(c) for n, c in new.items() if old.get(n) is not c) < GAIN * before

    def cost(self, c: Cell) -> float:
        """Elements that a cell moves, with what it computes in elements' time."""
        if c.expr is None:
            return 0.0
        products = terms(c.expr) or ()
        total = 0.0 if len(products) == 1 else float(self.size(c.shape))
        for p in products:
            ranges = {**c.ranges, **dict(p.limits)}
            group = Order(p, frozenset(c.ranges), self.size).cheapest(ranges)
            alone = len(p.factors) == 1 and len(products) > 1
            total += (
                float("inf") if group is None else group.cost + alone * Order.count(self.sized(ranges), group.indices)
            )
        return total

    def sized(self, ranges: Mapping[Any, Expr]) -> Any:
        """An order that knows sizes alone."""
        out = Order(Product(sp.S.One, (), ()), frozenset(), self.size)
        out.sizes = {i: self.size(n) for i, n in ranges.items()}
        return out

    def proven(self) -> bool:
        """Whether both orders give one value, at a random point in 50-digit arithmetic."""
        made = {c.name for c in self.new}
        shared = [c for c in self.cells if c.name in self.shared and c.name not in made]
        old, new = [*shared, self.product, *self.changed], self.new
        inside = {c.name for c in (*old, *new)}
        every = {**{c.name: c for c in self.cells}, **{c.name: c for c in self.after}}
        given = dict.fromkeys(r for c in (*old, *new) for r in c.reads if r not in inside)
        sizes: dict[Any, int] = {s: 3 + k for k, s in enumerate(size_symbols([*old, *new, *[every[r] for r in given]]))}
        numbers, rng = arithmetic(DIGITS), np.random.default_rng(0)
        with mpmath.workdps(DIGITS):
            tensors = {
                r: boxed(numbers.lift(rng.uniform(0.1, 0.9, size=shape_at(every[r].shape, sizes)))) for r in given
            }
            rewritten(old, tensors, sizes)
            return not rewritten(new, tensors, sizes)


@lru_cache(maxsize=2**12)
def signed(c: Cell) -> tuple[Any, tuple[Cell, tuple[Any, ...]]]:
    """What is equal for cells of equal values, and a cell with its indices in the order that this speaks of."""
    key, order = signature(c)
    return key, (c, order)


def in_rows(e: Expr) -> tuple[Indexed, Indexed] | None:
    """The two tensors of a product in the order in which it is written without a transpose; None where that needs one."""
    products = product_terms(e)
    if products is None or len(products) != 1 or len(products[0].limits) != 1 or len(products[0].factors) != 2:
        return None
    ((s, _),) = products[0].limits
    for one, other in (products[0].factors, products[0].factors[::-1]):
        if not isinstance(one, Indexed) or not isinstance(other, Indexed):
            return None
        if one.indices[-1] == s and other.indices[0] == s:
            return one, other
    return None


def p_free(p: Product) -> Expr:
    """What has the indices that are left of a product."""
    summed_over = p.summed
    return Mul(*[i for f in p.factors for i in indices_of(f) if i not in summed_over])


def summed(body: Expr, over: Iterable[Index], ranges: Mapping[Any, Expr]) -> Expr:
    """A sum over indices, in their order; the body itself where there are none."""
    limits = [Tuple(i, ranges[i]) for i in sorted(over, key=str)]
    return cast("Expr", Sigma(body, *limits)) if limits else body


def alive(cells: list[Cell], outputs: Collection[str]) -> list[Cell]:
    """The cells that the outputs depend on, and inputs."""
    needed = {*outputs}
    out: list[Cell] = []
    for c in reversed(cells):
        if c.name in needed or (c.node is not None and c.node.is_input):
            out.append(c)
            needed.update((*c.reads, *called_with(c), *c.after))
    return out[::-1]


__all__ = ["GAIN", "RULE", "regrouped"]
