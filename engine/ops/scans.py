"""Cumulative sums and products along a dimension, and differences of neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
import torch
from sympy import Expr

from engine.notation import Index, LessEqual, Product, Where, fresh, sigma
from engine.table import Definition, Operand, axis, composite, define, each_of, indices_of, op, recorded_as, row_of

if TYPE_CHECKING:
    from collections.abc import Callable


def up_to(x: Operand, dim: int, term: Callable[[Expr, Any], Any]) -> tuple[tuple[Expr, ...], Expr]:
    """Indices, and the sum over a dimension of `term(entry, whether it is up to the position)`."""
    at = indices_of(x.shape)
    if not x.rank or x.shape[axis(dim, x.rank)] == 1:
        return at, term(x.element(*at), sp.S.One)
    d = axis(dim, x.rank)
    j: Index = fresh()
    e = x.element(*[j if k == d else i for k, i in enumerate(at)])
    return at, sigma(term(e, LessEqual(j, at[d])), (j, x.shape[d]))


@op("cumsum")
def cumsum(x: Operand, dim: int, *, dtype: Any = None) -> Definition:
    at, total = up_to(x, dim, lambda e, before: e * before)
    return define(x.shape, at, total)


@op("logcumsumexp")
def logcumsumexp(x: Operand, dim: int) -> Definition:
    at, total = up_to(x, dim, lambda e, before: sp.exp(Where(before, e, sp.S.NegativeInfinity)))
    return define(x.shape, at, sp.log(total))


@op(targets=(torch.cumprod,))
def running_product(x: Operand, dim: int) -> Definition:
    at = indices_of(x.shape)
    if not x.rank or x.shape[axis(dim, x.rank)] == 1:
        return define(x.shape, at, x.element(*at))
    d = axis(dim, x.rank)
    j: Index = fresh()
    factor = Where(LessEqual(j, at[d]), x.element(*[j if k == d else i for k, i in enumerate(at)]), sp.S.One)
    return define(x.shape, at, Product(factor, sp.Tuple(j, x.shape[d])))


_running_product = row_of(torch.cumprod)


@composite("cumprod")
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """Integers are multiplied as int64."""
    made = dtype or (x.dtype if x.dtype.is_floating_point else torch.int64)
    x = x if x.dtype == made else x.to(made)
    with recorded_as(_running_product):
        return x.cumprod(dim)


@composite("trapezoid", "trapz")
def trapezoid(y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    """The area under the points, by trapezoids."""
    size = y.shape[dim]
    pairs = y.narrow(dim, 1, size - 1) + y.narrow(dim, 0, size - 1)
    if x is None:
        return pairs.sum(dim) * (dx / 2)
    steps = x.diff() if x.dim() == 1 else x.diff(dim=dim)
    if x.dim() == 1:
        steps = steps.reshape([-1 if d == dim % y.dim() else 1 for d in range(y.dim())])
    return (pairs * steps).sum(dim) / 2


@composite("cumulative_trapezoid")
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    """The area under the points up to each, by trapezoids."""
    size = y.shape[dim]
    pairs = y.narrow(dim, 1, size - 1) + y.narrow(dim, 0, size - 1)
    if x is None:
        return pairs.cumsum(dim) * (dx / 2)
    steps = x.diff() if x.dim() == 1 else x.diff(dim=dim)
    if x.dim() == 1:
        steps = steps.reshape([-1 if d == dim % y.dim() else 1 for d in range(y.dim())])
    return (pairs * steps).cumsum(dim) / 2


@composite("diff")
def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along a dimension, `n` times; torch ignores what is put before and after where n is 0."""
    if n == 0:
        return x
    x = (
        torch.cat([part for part in (prepend, x, append) if part is not None], dim)
        if prepend is not None or append is not None
        else x
    )
    for _ in range(n):
        size = x.shape[dim]
        x = x.narrow(dim, 1, size - 1) - x.narrow(dim, 0, size - 1)
    return x


@composite("gradient")
def gradient(x: Any, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> Any:
    """Central differences along each dimension, and one-sided ones of `edge_order` at both ends.

    `spacing` is a distance or the places themselves, the same for all dimensions or one of each.
    """
    dims = list(range(x.dim())) if dim is None else each_of(dim, 1)
    given = each_of(1 if spacing is None else spacing, len(dims))
    return tuple(slope(x, d, h, edge_order) for d, h in zip(dims, given, strict=True))


def slope(x: Any, dim: int, spacing: Any, edge_order: int) -> Any:
    """The slope at each entry along a dimension: of the parabola through it and its neighbours, or at an end of a line."""
    n = x.shape[dim]
    rises = x.narrow(dim, 1, n - 1) - x.narrow(dim, 0, n - 1)
    steps: Any = spacing
    if isinstance(spacing, torch.Tensor) and spacing.dim():
        steps = spacing.diff().reshape([-1 if d == dim % x.dim() else 1 for d in range(x.dim())])

    def step(first: Any, count: Any) -> Any:
        return steps.narrow(dim, first, count) if steps is not spacing else steps

    slopes = rises / steps
    one, two = slopes.narrow(dim, 0, n - 2), slopes.narrow(dim, 1, n - 2)
    left, right = step(0, n - 2), step(1, n - 2)
    inner = (right * one + left * two) / (left + right)
    first, last = slopes.narrow(dim, 0, 1), slopes.narrow(dim, n - 2, 1)
    if edge_order == 2:
        first = first + (first - slopes.narrow(dim, 1, 1)) * (step(0, 1) / (step(0, 1) + step(1, 1)))
        last = last + (last - slopes.narrow(dim, n - 3, 1)) * (step(n - 2, 1) / (step(n - 2, 1) + step(n - 3, 1)))
    return torch.cat([first, inner, last], dim)
