# pyright: basic
"""A gradient that sums to zero, centred once more before somebody sums it against a tensor with a large common offset.

What a normalisation passes back sums to zero over the rows. In floating point the mean that the forward subtracted is rounded,
so the sum is only nearly zero, and in `xᵀ dh` an offset of x is multiplied by what is left. autograd has no such error: its
chain ends with the gradient of `h - mean(h)`, which subtracts the mean of what has been computed. Where the algebra proves
that `Sum_i g = 0` for g = k (u + c), with k and c constant along i, g is `k (u - mean_i(u))` exactly: c need not be known.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.plan.backward import Statement
from codegen.closed.plan.planner import share
from engine.indexed import Indexed
from engine.notation import Index, Sigma, base, element, fresh

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.plan.planner import Planned
    from codegen.closed.regions.region import Region

RULE = "it sums to zero, so that its mean is subtracted once more and rounding leaves no sum"
PART = "uncentred_"
"""What the name of a gradient before that begins with."""


def recentred(
    region: Region, plan: Planned, algebra: Algebra, everywhere: bool = False
) -> tuple[Region, Planned] | None:
    """The plan with every gradient centred that sums to zero over axes its readers sum; None where there is none.

    The region that comes with it says of those gradients alone that they are summed: nothing can be done for the others.
    With `everywhere` it is over any axes: what the rounded mean leaves is an error of the gradient itself, too.
    """
    summed = dict(region.summed)
    if everywhere:
        summed = {s.cell: (tuple(range(len(s.indices))),) for s in plan.unshared if s.cell in region.wanted}
    out: list[Statement] = []
    found: list[tuple[str, tuple[tuple[int, ...], ...]]] = []
    for s in plan.unshared:
        groups = summed.get(s.cell, ())
        new = centred_twice(s, groups, algebra)
        out.extend(new)
        if len(new) > 1:
            found.append((s.cell, groups))
    if not found:
        return None
    return replace(region, summed=tuple(found)), replace(plan, statements=tuple(share(out, algebra)))


def centred_twice(s: Statement, groups: Iterable[tuple[int, ...]], algebra: Algebra) -> list[Statement]:
    """The statement alone, or what is left of it without its mean followed by itself with the mean subtracted."""
    for axes in dict.fromkeys(part for group in groups for part in subsets(group)):
        summed = [cast("Index", s.indices[k]) for k in axes if s.indices[k] != 0]
        factor, moving, fixed = parted(s.expr, {*summed})
        if not summed or fixed == 0 or isinstance(moving, Indexed) or not sums_to_zero(s, summed, algebra):
            continue
        name = f"{PART}{s.cell}"
        own = {i: fresh() for i in s.indices if i != 0}
        there = tuple(own.get(i, i) for i in s.indices)
        here = element(base(name), s.indices)
        sizes = dict(zip(s.indices, s.shape, strict=True))
        bound = {i: fresh() for i in summed}
        limits = [sp.Tuple(j, sizes[i]) for i, j in bound.items()]
        mean = cast("Expr", Sigma(here.xreplace(bound), *limits)) / Mul(*[sizes[i] for i in summed])
        part = Statement(name, there, s.shape, moving.xreplace(own), "", moving.xreplace(own), (RULE,))
        return [part, replace(s, expr=cast("Expr", factor * (here - mean)), rules=(*s.rules, RULE))]
    return [s]


def subsets(axes: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    """All sets of some of the axes, small ones first."""
    return (part for size in range(1, len(axes) + 1) for part in combinations(axes, size))


def sums_to_zero(s: Statement, summed: list[Index], algebra: Algebra) -> bool:
    """Whether the facts prove that a statement's sum over indices is zero."""
    ranges: dict[Any, Expr] = {i: n for i, n in zip(s.indices, s.shape, strict=True) if i != 0}
    total = Sigma(s.expr, *[sp.Tuple(i, ranges[i]) for i in summed])
    return bool(algebra.normal(cast("Expr", total), {i: n for i, n in ranges.items() if i not in summed}) == 0)


def parted(e: Expr, summed: set[Index]) -> tuple[Expr, Expr, Expr]:
    """(k, u, c) of `k (u + c)`, where k and c are constant along the summed indices."""
    factors = Mul.make_args(e)
    sums = [f for f in factors if isinstance(f, sp.Add)]
    outer = Mul(*[f for f in factors if f not in sums])
    if len(sums) != 1 or outer.free_symbols & summed:
        outer, sums = sp.S.One, [e]
    fixed, moving = sums[0].as_independent(*summed, as_Add=True)
    return cast("Expr", outer), moving, fixed


__all__ = ["PART", "RULE", "recentred"]
