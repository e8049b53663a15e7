# pyright: basic
"""Facts about sums, found by summing definitions: `Sum_j p = 1`, `Sum_i (x - m) = 0`, `Sum_i xhat^2 = n v r^2`.

So is `Sum_i w (x - m) = 0` for a mean m of x by weights w, and that the means of rows have the mean of all as theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.mirrored import turned
from codegen.closed.algebra.terms import powers
from engine.indexed import Indexed
from engine.notation import Index, Sigma, accesses, instantiate, name_of

ZERO = sp.S.Zero

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell


class Facts:
    """What sums are, for all values of their free indices, and why."""

    def __init__(self) -> None:
        self.known: dict[Any, tuple[tuple[Index, ...], Expr, str]] = {}
        self.products: list[Expr] = []
        """The sums of products that are known: what may be a weight is a factor there."""
        self.pairs: Mapping[str, int] = {}
        """The symmetric and antisymmetric tensors of pairs, of which the sums over the first say those over the second."""
        self.usable: frozenset[str] | None = None
        """The facts that may be used, by what they follow from; None for all of them."""

    def add(self, total: Sigma, value: Expr, why: str) -> None:
        """`total` equals `value`, unless something is known of it already."""
        sign, own = turned(total, self.pairs)
        key, free = fact_key(own)
        self.known.setdefault(key, (free, sign * value, why))
        if isinstance(total.body, Mul):
            self.products.append(total)

    def of(self, total: Sigma) -> tuple[Expr, str] | None:
        """What a sum is, and why."""
        sign, total = turned(total, self.pairs)
        key, free = fact_key(total)
        known = self.known.get(key)
        if known is None or (self.usable is not None and known[2] not in self.usable):
            return None
        own, value, why = known
        return sign * instantiate(value, dict(zip(own, free, strict=True))), why

    def told(self, total: Sigma) -> tuple[Any, str] | None:
        """A sum by what is known of it, or of the factors that one of several summed indices is in; None for nothing."""
        found = self.of(total)
        if found is not None or len(total.limits) == 1:
            return found
        for j, n in total.limits:
            mine = [f for f in Mul.make_args(total.body) if j in f.free_symbols]
            inner = self.of(Sigma(Mul(*mine), sp.Tuple(j, n)))
            if inner is not None:
                value, why = inner
                rest = Mul(*[f for f in Mul.make_args(total.body) if f not in mine])
                return Sigma(rest * value, *[sp.Tuple(i, m) for i, m in total.limits if i != j]), why
        return None


def learn_sum(algebra: Algebra, cell: Cell, coefficient: Expr, total: Sigma) -> None:
    """`z = c * Sum body` says `Sum body = z / c`, where the sum has all indices that z has (`z_i = a_i Sum_k b_k` says too little).

    Not where c may be zero: then z says nothing of the sum.
    """
    whole = algebra.normal(total, {**cell.ranges, **dict(total.limits)})
    one = single_sum(whole)
    if one is None or not {*cell.ranges} <= one.free_symbols:
        return
    value = cell.element(cell.indices) / coefficient / (whole / one)
    if divisors(value, algebra) <= divisors(cast("Expr", cell.expr), algebra):
        algebra.add_fact(one, value, f"definition of {cell.name}")


def learn_means(algebra: Algebra, cell: Cell, coefficient: Expr, total: Sigma) -> bool:
    """`z = c Sum_ij a` says what `y_i = b Sum_j a` sums to, where that is known, and so for each of its indices; whether any is."""
    any_known = False
    for k in range(len(total.limits)) if len(total.limits) > 1 else ():
        inner = algebra.facts.of(cast("Sigma", Sigma(total.body, total.limits[k])))
        if inner is None:
            continue
        (value, _), any_known = inner, True
        rest = [x for m, x in enumerate(total.limits) if m != k]
        whole = algebra.normal(cast("Expr", Sigma(value, *rest)), {**cell.ranges, **dict(rest)})
        one = single_sum(whole)
        if one is not None and not (whole / one).has(Indexed):
            told = cell.element(cell.indices) / coefficient / (whole / one)
            algebra.add_fact(one, told, f"definition of {cell.name}")
    return any_known


def learn_weighted(algebra: Algebra, cell: Cell) -> None:
    """The deviations from a weighted mean sum to zero with these weights: tensors whose sums over an axis are known are tried."""
    ranges = cell.ranges
    definition = algebra.normal(cast("Expr", cell.expr), ranges)
    own = algebra.normal(cell.element(cell.indices), ranges)
    for k, i in enumerate(cell.indices):
        for weight in weights_at(algebra, cell, k) if i != 0 else ():
            limits = sp.Tuple(i, cell.shape[k])
            target = single_sum(algebra.normal(cast("Expr", Sigma(weight * own, limits)), ranges))
            if target is not None and algebra.normal(cast("Expr", Sigma(weight * definition, limits)), ranges) == 0:
                algebra.add_fact(target, ZERO, f"{cell.name} summed with its weights {name_of(weight)}")


def weights_at(algebra: Algebra, cell: Cell, axis: int) -> list[Indexed]:
    """The tensors over one axis of a cell, or over all of its axes, whose sums over it are known."""
    i, n = cell.indices[axis], cell.shape[axis]
    inside = {name_of(a) for s in algebra.facts.products for a in accesses(s)}
    found: list[Indexed] = []
    for c in algebra.cells.values():
        if c.name not in inside or c.kind != "float" or c.name == cell.name:
            continue
        at = [i] if c.shape == (n,) else list(cell.indices) if c.shape == cell.shape else None
        weight = None if at is None else c.element(at)
        if weight is not None and algebra.facts.of(cast("Sigma", Sigma(weight, sp.Tuple(i, n)))) is not None:
            found.append(weight)
    return found


def learn_axes(algebra: Algebra, cell: Cell, together: list[tuple[int, ...]]) -> None:
    """A cell summed over each of its axes, and over those that the region sums at once, where that is simpler than a sum."""
    free = tuple(k for k, i in enumerate(cell.indices) if i != 0)
    sets = [at for at in together if set(at) <= set(free)] if len(free) > 1 else []
    for axes in [*((k,) for k in free), *sets]:
        learn_axis(algebra, cell, [sp.Tuple(cell.indices[k], cell.shape[k]) for k in axes])


def learn_axis(algebra: Algebra, cell: Cell, limits: list[Any]) -> None:
    """A cell summed over some of its axes, where what comes out is no sum."""
    ranges = cell.ranges
    definition = algebra.normal(cast("Expr", cell.expr), ranges)
    own = algebra.normal(cell.element(cell.indices), ranges)
    total = algebra.normal(cast("Expr", Sigma(definition, *limits)), ranges)
    if total.has(Sigma):
        return
    target = algebra.normal(cast("Expr", Sigma(own, *limits)), ranges)
    one = single_sum(target)
    value = ZERO if one is None else total / (target / one)
    if one is not None and divisors(value, algebra) <= divisors(definition, algebra):
        algebra.add_fact(one, value, f"{cell.name} summed over its definition")


def divisors(e: Expr, algebra: Algebra) -> set[Expr]:
    """What a product divides by and what may be zero, in generators."""
    parts = [f for f in Mul.make_args(e) if isinstance(f, sp.Pow) and f.exp.is_negative]
    low = (item for f in parts for item in powers(algebra.lowered(f)).items())
    return {b for b, x in low if x < 0 and not b.is_positive}


def single_sum(e: Expr) -> Sigma | None:
    """The sum in a product that has one."""
    sums = [f for f in Mul.make_args(e) if isinstance(f, Sigma)]
    return sums[0] if len(sums) == 1 else None


def summed_together(cells: Iterable[Cell]) -> list[tuple[int, ...]]:
    """The sets of two or more axes over which some definition sums a tensor at once."""
    found: dict[tuple[int, ...], None] = {}
    for cell in cells:
        for total in [] if cell.expr is None else sorted(cell.expr.atoms(Sigma), key=str):
            summed = {i for i, _ in total.limits}
            for a in accesses(total.body):
                at = tuple(k for k, i in enumerate(a.indices) if i in summed)
                if len(at) == len(summed) > 1:
                    found[at] = None
    return list(found)


__all__ = [
    "Facts",
    "divisors",
    "learn_axes",
    "learn_means",
    "learn_sum",
    "learn_weighted",
    "single_sum",
    "summed_together",
    "weights_at",
]
