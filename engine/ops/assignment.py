"""Writing into parts of a tensor, as a new tensor that differs from the old one there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Delta, Equal, Index, Less, LessEqual, Quo, Rem, Where, sigma
from engine.ops.indexing import selects, sliced
from engine.shapes import broadcast_shapes
from engine.sizes import expression, number
from engine.table import (
    Definition,
    Operand,
    aligned,
    axis,
    broadcast_shape,
    composite,
    define,
    indices_of,
    op,
    value_of,
)
from engine.wholes import from_start

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor


@op("slice_scatter")
def slice_scatter(
    x: Operand, src: Operand, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Definition:
    """`x` with a slice of one dimension replaced."""
    d = axis(dim, x.rank)
    first, by, length = sliced(slice(start, end, step), x.shape[d])
    at = indices_of(x.shape)
    if length == 0:
        return define(x.shape, at, x.element(*at))
    steps = at[d] - first
    place = steps if by == 1 else cast("Expr", Quo(steps, by))
    new: Any = src.element(*[place if k == d else i for k, i in enumerate(at)])
    old = x.element(*at)
    if by != 1:
        new = Where(Equal(Rem(steps, by), 0), new, old)
    if value_of(first + by * length) < value_of(x.shape[d]):
        new = Where(Less(at[d], first + by * length), new, old)
    return define(x.shape, at, new if value_of(first) == 0 else Where(LessEqual(first, at[d]), new, old))


@op("select_scatter")
def select_scatter(x: Operand, src: Operand, dim: int, index: Any) -> Definition:
    """`x` with one entry of a dimension replaced."""
    d, k = axis(dim, x.rank), expression(index)
    at = indices_of(x.shape)
    place = (x.shape[d] + k) if value_of(k) < 0 else k
    new = src.element(*[i for e, i in enumerate(at) if e != d])
    return define(x.shape, at, Where(Delta(at[d], place), new, x.element(*at)))


@op("diagonal_scatter")
def diagonal_scatter(x: Operand, src: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Definition:
    """`x` with a diagonal replaced."""
    a, b = axis(dim1, x.rank), axis(dim2, x.rank)
    at = indices_of(x.shape)
    down, right = max(-offset, 0), max(offset, 0)
    new = src.element(*[i for d, i in enumerate(at) if d not in (a, b)], at[a] - down)
    return define(x.shape, at, Where(Delta(at[a] - down, at[b] - right), new, x.element(*at)))


@op("index_put")
def index_put(x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False) -> Definition:
    """Values added at the places that integer tensors name, or put there (then each place is to be named once)."""
    if any(t is not None and (t.boolean or t.floating) for t in indices):
        raise TraceError("index_put at a mask; use torch.where")
    shape = broadcast_shape(*[t.shape for t in indices if t is not None])
    where = indices_of(shape)
    at = indices_of(x.shape)
    here: Any = sp.S.One
    for place, size, t in zip(at, x.shape, indices, strict=False):
        if t is not None:
            here = here * Delta(from_start(t, aligned(t, where), size), place)
    rest = [i for k, i in enumerate(at) if k >= len(indices) or indices[k] is None]
    named = [k for k, t in enumerate(indices) if t is not None]
    lead = named[0] if named == list(range(named[0], named[-1] + 1)) else 0
    value = aligned(values, [*rest[:lead], *where, *rest[lead:]])
    limits = [(i, s) for i, s in zip(where, shape, strict=True) if isinstance(i, Index)]
    old = x.element(*at)
    if accumulate:
        return define(x.shape, at, old + sigma(here * value, *limits))
    return define(x.shape, at, Where(Less(0, sigma(here, *limits)), sigma(here * value, *limits), old))


@composite(targets=(Tensor.copy_,))
def copied(x: Any, src: Any, non_blocking: bool = False) -> Any:
    """`x` overwritten: `src` in its dtype and shape."""
    return fitted(src, x)


def fitted(value: Any, x: Any) -> Any:
    """A new tensor like `x` with the values of `value`, which is broadcast and takes the dtype of `x`."""
    if value.dtype != x.dtype:
        value = value.to(x.dtype)
    return value.expand(x.shape).clone()


@composite(targets=(Tensor.zero_,))
def zeroed(x: Any) -> Any:
    return torch.zeros_like(x)


@composite(targets=(Tensor.fill_diagonal_,))
def filled_diagonal(x: Any, fill_value: Any, wrap: bool = False) -> Any:
    """A number where all indices are the same."""
    if wrap:
        raise TraceError("fill_diagonal_ with wrap=True; fill a slice of every column")
    first, *others = (torch.arange(n).reshape([-1, *[1] * (x.dim() - d - 1)]) for d, n in enumerate(x.shape))
    here = first == others[0]
    for at in others[1:]:
        here = here & (first == at)
    return torch.where(here, fill_value, x)


@composite(targets=(Tensor.__setitem__,))
def setitem(x: Any, item: Any, value: Any) -> Any:
    """`x[item] = value` as a new tensor: dimension by dimension for ints and slices, by `where` for a mask."""
    items = list(cast("tuple[Any, ...]", item)) if isinstance(item, tuple) else [item]
    if any(i is None or isinstance(i, bool) for i in items):
        raise TraceError("an assignment to x[None] or x[True]; use an index without new dimensions")
    where = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
    fill = [slice(None)] * (x.dim() - sum(dimensions(i) for i in items if i is not Ellipsis))
    items = items[:where] + fill + items[where + 1 :]
    value = value if isinstance(value, torch.Tensor) else x.new_full((), value)
    gathers = [isinstance(i, torch.Tensor) and not selects(i) for i in items]
    if not any(gathers):
        return written(x, items, 0, value)
    part = x  # what ints and slices leave of it, in which torch then looks for the places
    outer: list[Any] = [
        slice(None) if at else i for i, at in zip(items, gathers, strict=True) for _ in range(dimensions(i))
    ]
    inner: list[Any] = [
        i if at else slice(None) for i, at in zip(items, gathers, strict=True) if at or isinstance(i, slice)
    ]
    if any(i != slice(None) for i in outer):
        part = x[tuple(outer)]
    masks = [k for k, i in enumerate(inner) if isinstance(i, torch.Tensor) and i.dtype == torch.bool]
    new = masked(part, inner, masks, value) if masks else put(part, inner, value)
    return new if part is x else written(x, outer, 0, new)


def dimensions(i: Any) -> int:
    """How many dimensions an index is for."""
    return i.dim() if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1


def masked(x: Any, items: list[Any], masks: list[int], value: Any) -> Any:
    """`x` with a value where a mask of some dimensions holds; the value may differ along the dimensions behind those."""
    (k, *others) = masks
    mask, behind = items[k], items[k + 1 :]
    if others or any(i != slice(None) for i in (*items[:k], *behind)):
        raise TraceError(
            "an assignment at a mask beside another tensor; write the mask for all dimensions, and torch.where"
        )
    if value.dim() == len(behind) + 1 and number(value.shape[0]) == 1:
        value = value.squeeze(0)
    if value.dim() == len(behind) + 1:  # one after the other where the mask holds
        place = (mask.flatten().cumsum(0) - 1).clamp(min=0)
        value = value.index_select(0, place).reshape([*mask.shape, *value.shape[1:]])
    elif value.dim() > len(behind):
        raise TraceError(
            "x[mask] = values with more dimensions than x has behind the mask; use torch.where with tensors of one shape"
        )
    return torch.where(mask.reshape([*mask.shape, *[1] * len(behind)]), value, x)


def put(x: Any, items: list[Any], value: Any) -> Any:
    """`x` with values at the places that integer tensors name in some of its dimensions, which come first for that."""
    named = [k for k, i in enumerate(items) if isinstance(i, torch.Tensor)]
    places = tuple(items[k] for k in named)
    front = list(range(len(named)))
    if named == front:
        return x.index_put(places, value)
    shape = broadcast_shapes(*[i.shape for i in places])
    if named == list(range(named[0], named[-1] + 1)) and value.dim() > x.dim() - named[-1] - 1:
        ahead, behind = [x.shape[k] for k in range(named[0])], [x.shape[k] for k in range(named[-1] + 1, x.dim())]
        new = list(range(len(ahead), len(ahead) + len(shape)))
        value = value.expand([*ahead, *shape, *behind]).movedim(new, list(range(len(shape))))
    there, back = (named[0], 0) if len(named) == 1 else (named, front)
    return x.movedim(there, back).index_put(places, value).movedim(back, there)


def written(x: Any, items: list[Any], dim: int, value: Any) -> Any:
    """`x` with the part that `items` name, of the dimensions from `dim` on, replaced."""
    while items and isinstance(items[0], slice) and items[0] == slice(None):
        items, dim = items[1:], dim + 1
    if not items:
        return fitted(value, x)
    rest = items[1:]
    if isinstance(items[0], slice):
        cut = cast("Any", items[0])
        part = x[tuple([slice(None)] * dim + [cut])]
        new = written(part, rest, dim + 1, value)
        return torch.slice_scatter(x, new, dim, cut.start, cut.stop, cut.step or 1)
    if isinstance(items[0], torch.Tensor):
        part = written(x[tuple([slice(None)] * dim + [items[0]])], rest, dim, value)
        at = torch.arange(x.shape[dim]) == items[0] % x.shape[dim]
        return torch.where(at.reshape([-1, *[1] * (x.dim() - dim - 1)]), part.unsqueeze(dim), x)
    return torch.select_scatter(x, written(x.select(dim, items[0]), rest, dim, value), dim, items[0])
