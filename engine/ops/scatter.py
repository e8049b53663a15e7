"""Values put or added at the places that an integer tensor names: deltas of an index and a tensor's value."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Delta, Index, Less, Where, sigma
from engine.sizes import expression
from engine.table import (
    Definition,
    Opaque,
    Operand,
    Row,
    axis,
    composite,
    define,
    fresh_of,
    indices_of,
    op,
    recorded_as,
)
from engine.wholes import from_start


def along(x: Operand, d: int, index: Operand) -> tuple[tuple[Expr, ...], list[Expr], list[tuple[Index, Expr]], Any]:
    """For `index_add` and its like: output indices, those of the source, what is summed, and where they meet."""
    at = indices_of(x.shape)
    count = index.shape[0] if index.rank else sp.S.One
    j = fresh_of(count)
    place = index.element(j) if index.rank else index.element()
    place = from_start(index, place, x.shape[d]) if x.rank else place  # only index_fill takes any below zero
    source = [j if k == d else i for k, i in enumerate(at)]
    limits = [(cast("Index", j), count)] if count != 1 else []
    return at, source, limits, Delta(place, at[d]) if x.rank else sp.S.One


@op("index_add")
def index_add(x: Operand, dim: int, index: Operand, source: Operand, *, alpha: Any = 1) -> Definition:
    at, from_, limits, here = along(x, axis(dim, x.rank), index)
    value = source.element(*(from_ if source.rank else []))
    return define(x.shape, at, x.element(*at) + expression(alpha) * sigma(here * value, *limits))


@op("index_fill")
def index_fill(x: Operand, dim: int, index: Operand, value: Any) -> Definition:
    at, _, limits, here = along(x, axis(dim, x.rank), index)
    filled = value.element() if isinstance(value, Operand) else expression(value)
    return define(x.shape, at, Where(Less(0, sigma(here, *limits)), filled, x.element(*at)))


@op("index_copy")
def index_copy(x: Operand, dim: int, index: Operand, source: Operand) -> Definition:
    """Each place is to be named at most once, as torch asks."""
    at, from_, limits, here = along(x, axis(dim, x.rank), index)
    value = source.element(*(from_ if source.rank else []))
    return define(x.shape, at, Where(Less(0, sigma(here, *limits)), sigma(here * value, *limits), x.element(*at)))


def spread(
    x: Operand, dim: int, index: Operand
) -> tuple[tuple[Expr, ...], tuple[Expr, ...], list[tuple[Index, Expr]], Any]:
    """For `scatter_add` and its like: output indices, those of `index`, what is summed, and where they meet."""
    d = axis(dim, x.rank)
    at = indices_of(x.shape)
    if not x.rank:
        return at, indices_of(index.shape), [], sp.S.One
    own: list[Expr] = []
    limits: list[tuple[Index, Expr]] = []
    here: Any = sp.S.One
    for k, (i, n, m) in enumerate(zip(at, x.shape, index.shape, strict=True)):
        if k != d and n == m:
            own.append(i)
            continue
        j = fresh_of(m)
        own.append(j)
        if m != 1:
            limits.append((cast("Index", j), m))
        if k != d:
            here = here * Delta(j, i)
    return at, tuple(own), limits, here * Delta(index.element(*own), at[d])


@op("scatter_add")
def scatter_add(x: Operand, dim: int, index: Operand, src: Operand) -> Definition:
    at, own, limits, here = spread(x, dim, index)
    return define(x.shape, at, x.element(*at) + sigma(here * src.element(*own), *limits))


@composite("scatter_reduce")
def scatter_reduce(x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """A sum, a mean, or an extreme value, whose derivative those share that are equal to it."""
    if reduce == "prod":
        raise TraceError("scatter_reduce with reduce='prod' is not in the table; add logarithms with reduce='sum'")
    if reduce == "sum" and include_self:
        return x.scatter_add(dim, index, src)
    nothing = torch.zeros_like(x)
    count = nothing.scatter_add(dim, index, torch.ones_like(src))
    if reduce in ("sum", "mean"):
        total = (x if include_self else nothing).scatter_add(dim, index, src)
        if reduce == "mean":
            total = total / (count + 1 if include_self else count.clamp(min=1))
        return total if include_self else torch.where(count > 0, total, x)
    with recorded_as(REDUCED):
        found = x.detach().scatter_reduce(dim, index, src.detach(), reduce, include_self=include_self)
    own, other = x == found, src == found.gather(dim, index)
    alike = own + nothing.scatter_add(dim, index, other.to(x.dtype))
    if not include_self:  # torch counts the entry itself all the same, and gives its part to nobody
        x = torch.where(count > 0, x.detach(), x)
    return (torch.where(own, x, 0) + nothing.scatter_add(dim, index, torch.where(other, src, 0))) / alike


def _reduced(x: Operand, *_: Any, **__: Any) -> Opaque:
    return Opaque(x.shape)


REDUCED = Row("scatter_reduce", (), _reduced)
"""The row of the values themselves, which are compared with and not differentiated."""


@composite("index_reduce")
def index_reduce(x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Any:
    """`scatter_reduce` of whole slices."""
    places = index.reshape([-1 if d == dim % x.dim() else 1 for d in range(x.dim())]).expand(source.shape)
    return x.scatter_reduce(dim, places, source, reduce, include_self=include_self)


@composite("bincount")
def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each integer below `minlength` is there, or what those with it weigh. A larger one is an error, in each run."""
    if not minlength:
        raise TraceError("bincount without minlength has as many entries as values say; pass minlength")
    if weights is None:
        return torch.zeros(minlength, dtype=torch.int64).scatter_add(0, x, torch.ones_like(x, dtype=torch.int64))
    return weights.new_zeros(minlength).index_add(0, x, weights)


@composite("put")
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """At places in the order of all elements; each is to be named at most once unless values are added up."""
    flat, places, values = x.reshape(-1), index.reshape(-1), source.reshape(-1)
    out = flat.index_put((places,), values, accumulate)
    return out.reshape(x.shape)


@op("scatter")
def scatter(
    x: Operand, dim: int, index: Operand, src: Any = None, *, value: Any = None, reduce: Any = None
) -> Definition:
    """Each place is to be named at most once, as torch asks, unless all get the same number."""
    if reduce is not None:
        raise TraceError(f"scatter with reduce={reduce!r} is not in the table; use scatter_add")
    at, own, limits, here = spread(x, dim, index)
    given = value if src is None else src
    put = sigma(here * given.element(*own), *limits) if isinstance(given, Operand) else expression(given)
    return define(x.shape, at, Where(Less(0, sigma(here, *limits)), put, x.element(*at)))
