"""The cost model: elements that a region's statements read and write, every different sum once, every kept tensor once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import fact_key
from codegen.closed.definitions.several import terms_of
from codegen.closed.definitions.shares import exponential
from codegen.closed.kernels.cubicgate import gelu_tanh_of
from codegen.closed.kernels.slopes import sigmoid_of, tanh_of
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, accesses, bound, holds, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell

OVERFLOWS = 1e9
"""What it costs to keep what overflows, in elements: more than anything that avoids it."""

KEPT = 0.25
"""What it costs to keep a tensor that is one in the forward in any case, beside one that is not."""


@dataclass(frozen=True)
class Price:
    """What one statement costs by itself, and what it needs that is paid once by all that need it."""

    own: float
    shared: tuple[tuple[Any, float], ...]
    """Sums, and the names of kept tensors, each with its cost."""


NOTHING = Price(0.0, ())


@lru_cache(maxsize=2**12)
def sums_of(e: Expr) -> tuple[Sigma, ...]:
    """The sums of an expression, those inside of others too."""
    if isinstance(e, Sigma):
        return (e, *sums_of(e.body))
    if isinstance(e, Indexed) or not e.args:
        return ()
    return tuple(s for a in e.args for s in sums_of(a))


class Prices:
    """What expressions over the cells of an algebra cost at the sizes of the example."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra = algebra
        self.costs: dict[Expr, float] = {}
        self.reaches: dict[Expr, float] = {}
        self.prices: dict[Expr, Price] = {}
        self.slopes: dict[Expr, tuple[Any, Any] | None] = {}
        self.sizes: dict[tuple[Expr, ...], int] = {}

    def total(self, expressions: Iterable[Expr]) -> float:
        """What statements cost together."""
        prices = [self.price(e) for e in expressions]
        once = {key: cost for p in prices for key, cost in p.shared}
        return sum(p.own for p in prices) + sum(once.values())

    def price(self, e: Expr) -> Price:
        """The price of one statement; that of a mere name is nothing."""
        if e not in self.prices:
            self.prices[e] = NOTHING if isinstance(e, Indexed) else self._price(e)
        return self.prices[e]

    def filled(self, e: Expr, shape: tuple[Expr, ...]) -> Price:
        """The price of a statement of a shape, which is filled where its expression alone is smaller, as with ones at places."""
        price = self.price(e)
        missing = self.size(shape) - self.reach(e) if holds(e, Delta) else 0.0
        return replace(price, own=price.own + missing) if missing > 0 else price

    def _price(self, e: Expr) -> Price:
        e = self.by_kernels(e)
        once: dict[Any, float] = {}
        for x in sums_of(e):
            once.setdefault(fact_key(x)[0], self.expression(x.body) + self.summed(x) + self.masked(x))
        for name in dict.fromkeys(name_of(a) for a in accesses(e)):
            cell = self.algebra.cells.get(name)
            if cell is not None and cell.expr is not None:
                size = self.size(cell.shape) * (KEPT if name in self.algebra.kept else 1.0)
                once[name] = size + (OVERFLOWS if self.sums_exponentials(cell) else 0.0)
        return Price(self.expression(e), tuple(once.items()))

    def by_kernels(self, e: Expr) -> Expr:
        """An expression with x for the slope of gelu by tanh at x, whose kernel reads nothing else."""
        inner = e.atoms(sp.Add)
        for f in inner - self.slopes.keys():
            self.slopes[f] = gelu_tanh_of(f, self.algebra.cells)
        return e.xreplace({f: slope[0] for f in inner for slope in [self.slopes[f]] if slope is not None})

    def summed(self, s: Sigma) -> float:
        """How many elements a sum reads: of another sum, such as a matrix product, all that come of it."""
        sizes = self.ranges(s)
        free = {i for i in s.body.free_symbols if isinstance(i, Index)} - bound(s.body)
        if isinstance(s.body, Sigma) and free <= sizes.keys():
            return float(self.size(tuple(sizes[i] for i in free)))
        return self.reach(s.body)

    def masked(self, s: Sigma) -> float:
        """What it costs beyond that to multiply with brackets in a sum, which is no matrix product: a tensor over all indices."""
        factors = [f for f in sp.Mul.make_args(s.body) if holds(f, Indexed)]
        if not any(isinstance(f, Delta) for f in factors) or len(factors) < 2:
            return 0.0
        sizes = self.ranges(s.body)
        every = {i for i in s.body.free_symbols if isinstance(i, Index)}
        return 3.0 * max(0.0, self.size(tuple(sizes[i] for i in every if i in sizes)) - self.reach(s.body))

    def ranges(self, e: Expr) -> dict[Any, Expr]:
        """The sizes of indices, by the tensors that are read at them."""
        sizes: dict[Any, Expr] = {}
        for a in accesses(e):
            cell = self.algebra.cells.get(name_of(a).removeprefix("d_").removesuffix("_out"))
            if cell is not None:
                sizes.update(zip(a.indices, cell.shape, strict=False))
        return sizes

    def sums_exponentials(self, cell: Cell) -> bool:
        """Whether a cell is a sum of exponentials, which overflows where its logarithm and its shares do not."""
        summed = isinstance(cell.expr, Sigma) and exponential(cell.expr.body, self.algebra.cells)
        return summed or bool(terms_of(cell, self.algebra.cells))

    def expression(self, e: Expr) -> float:
        """Elements that are read and written until an expression is a tensor, one operation on two operands after the other.

        A tensor that is there costs nothing, a sum is priced once for all that read it.
        """
        if e not in self.costs:
            self.costs[e] = self._expression(e)
        return self.costs[e]

    def _expression(self, e: Expr) -> float:
        if isinstance(e, (Sigma, Indexed)) or not holds(e, Indexed):
            return 0.0
        if isinstance(e, sp.Add):
            inverted = sum(2.0 * self.reach(t) for t in e.args if isinstance(t, sp.Pow) and t.exp == -1)
            return sum(self.expression(t) for t in e.args) + inverted + combined([self.reach(t) for t in e.args])
        if isinstance(e, sp.Mul):
            gate = sigmoid_of(e, self.algebra.cells)
            whole = e if gate is None or not gate[0].has(Indexed) else gate[0] * gate[1]  # the kernel reads it once
            factors = [f for f in sp.Mul.make_args(whole) if holds(f, Indexed)]
            inner = sum(self.expression(f) for f in factors if tanh_of(f, self.algebra.cells) is None)
            inner += sum(3 * (len(factors) - 1) * self.reach(f.body) for f in factors if is_scatter(f))
            largest = self.reach(e)
            large = [x for f in factors for x in [self.reach(f)] if x >= largest / 4]
            small = [x for f in factors for x in [self.reach(f)] if x < largest / 4]
            if len(factors) == 1 and abs(cast("Any", whole / factors[0])) != 1:
                return inner + 2 * largest
            return inner + combined(small) + combined([*large, *small[:1]])
        if isinstance(e, sp.Pow) and not isinstance(e, sp.exp):
            below = 0.0 if e.exp == -1 else 2.0 if e.exp.is_Integer else 4.0
            return self.expression(e.base) + below * self.reach(e)
        return sum(self.expression(a) for a in e.args) + 2.0 * self.reach(e)

    def reach(self, e: Expr) -> float:
        """How many elements an expression has: the largest of what it reads."""
        if e not in self.reaches:
            self.reaches[e] = self._reach(e)
        return self.reaches[e]

    def _reach(self, e: Expr) -> float:
        if isinstance(e, Sigma):
            free = {i for i in e.free_symbols if isinstance(i, Index)} - bound(e)
            return (
                float(max((self.size_of_access(a) for a in accesses(e) if set(a.indices) & free), default=1)) ** 0.5
                if free
                else 1.0
            )
        if isinstance(e, Indexed):
            return float(self.size_of_access(e))
        return max((self.reach(a) for a in e.args), default=1.0)

    def size_of_access(self, a: Indexed) -> int:
        """The number of elements of an accessed tensor; an unknown one (a cotangent) is as large as its indices say."""
        cell = self.algebra.cells.get(name_of(a).removeprefix("d_").removesuffix("_out"))
        return self.size(cell.shape) if cell is not None else 1

    def size(self, shape: tuple[Expr, ...]) -> int:
        """The number of elements of a shape at the example's sizes."""
        if shape not in self.sizes:
            values = {k: sp.Integer(v) for k, v in self.algebra.values.items()}
            count = 1
            for s in shape:
                count *= max(1, int(cast("Any", s.xreplace(values))))
            self.sizes[shape] = count
        return self.sizes[shape]


def is_scatter(f: Any) -> bool:
    """Whether a factor is a sum over the places of an index tensor: what it is multiplied with is multiplied at each of them."""
    return isinstance(f, Sigma) and any(isinstance(d, Delta) and d.has(Indexed) for d in sp.Mul.make_args(f.body))


def combined(sizes: list[float]) -> float:
    """What operations on two operands move, that make one tensor of several: every operand and what lies between is read."""
    largest = max(sizes, default=0.0)
    return sum(sizes) + largest * (2 * len(sizes) - 3) if len(sizes) > 1 else 0.0


__all__ = ["NOTHING", "Price", "Prices", "sums_of"]
