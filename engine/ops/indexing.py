"""Gathers: accesses at an integer tensor's value, from which the scatter-add of the backward follows."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import ShapeError, TraceError
from engine.notation import Delta, Fixed, Quo, Rem, Where
from engine.ops.layout import steps
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    Row,
    Shape,
    aligned,
    at_least,
    axis,
    broadcast_shape,
    composite,
    define,
    indices_of,
    op,
    product,
    recorded_as,
    value_of,
)
from engine.wholes import from_start, wrapped

Tensor = torch.Tensor


def sliced(s: slice, size: Expr) -> tuple[Expr, int, Expr]:
    """(start, step, length) of a slice of a dimension, symbolic where its bounds are."""
    step = 1 if s.step is None else int(s.step)
    if value_of(size) == 0:
        return sp.S.Zero, step, sp.S.Zero

    def bound(given: Any, default: Expr) -> Expr:
        if given is None:
            return default
        e = expression(given)
        if value_of(e) < 0:
            return sp.S.Zero if at_least(-e, size) else size + e
        return size if at_least(e, size) else e

    start, stop = bound(s.start, sp.S.Zero), bound(s.stop, size)
    span = stop - start
    if at_least(start, stop):
        return start, step, sp.S.Zero
    return start, step, span if step == 1 else steps(span - 1, step)


def selects(index: Tensor) -> bool:
    """Whether an index is an integer without dimensions, which torch takes for an int."""
    return index.dim() == 0 and not (index.is_floating_point() or index.dtype in (torch.bool, torch.uint8))


@op(targets=(Tensor.__getitem__,), view=True)
def getitem(x: Operand, item: Any) -> Definition:
    items = list(cast("tuple[Any, ...]", item)) if isinstance(item, tuple) else [item]
    for it in items:
        if isinstance(it, Operand) and (it.floating or it.boolean):
            raise TraceError("an index must be an integer tensor; choose by a mask with torch.where or a product")
        if isinstance(it, bool):
            raise TraceError("indexing with a Python bool is not supported; use None and a slice")
    used = sum(1 for it in items if it is not None and it is not Ellipsis)
    where = next((k for k, it in enumerate(items) if it is Ellipsis), len(items))
    fill: list[Any] = [slice(None)] * (x.rank - used)
    items = items[:where] + fill + items[where + 1 :]
    if used > x.rank:
        raise ShapeError(f"{used} indices for a tensor of rank {x.rank}")

    gathers = [k for k, it in enumerate(items) if isinstance(it, Operand) and it.rank]
    rest = [  # torch selects before it gathers, and an integer without dimensions selects
        k for k, it in enumerate(items) if not isinstance(it, int) and not (isinstance(it, Operand) and not it.rank)
    ]
    places = [rest.index(k) for k in gathers]
    shape_b = broadcast_shape(*[items[k].shape for k in gathers])
    at_b = indices_of(shape_b)
    together = bool(places) and places == list(range(places[0], places[-1] + 1))

    shape: list[Expr] = []
    at: list[Expr] = []
    source: list[Expr] = []
    placed = False

    def place() -> None:
        shape.extend(shape_b)
        at.extend(at_b)

    if gathers and not together:
        place()
        placed = True
    d = 0
    for k, it in enumerate(items):
        if it is None:
            shape.append(Integer(1))
            at.append(sp.S.Zero)
            continue
        size = x.shape[d]
        d += 1
        if k in gathers and not placed:
            place()
            placed = True
        if isinstance(it, Operand):
            source.append(from_start(it, aligned(it, at_b if it.rank else ()), size))
        elif isinstance(it, slice):
            start, step, length = sliced(cast("Any", it), size)
            (i,) = indices_of((length,))
            shape.append(length)
            at.append(i)
            source.append(start + step * i)
        else:
            e = expression(it)
            source.append((size + e) if value_of(e) < 0 else e)
    return define(shape, at, x[tuple(source)] if x.rank else x[()])


@op("index_select")
def index_select(x: Operand, dim: int, index: Operand) -> Definition:
    d = axis(dim, x.rank)
    count = index.shape[0] if index.rank else sp.S.One
    shape = [count if k == d else s for k, s in enumerate(x.shape)]
    at = indices_of(shape)
    place = index.element(*([at[d]] if index.rank and x.rank else [sp.S.Zero] * index.rank))
    return define(shape, at, x.element(*[place if k == d else i for k, i in enumerate(at)]))


@op("gather")
def gather(x: Operand, dim: int, index: Operand, *, sparse_grad: bool = False) -> Definition:
    if index.dtype == torch.uint8:
        raise TraceError("gather at bytes: they are a mask to brackets; pass index.long()")
    d = axis(dim, x.rank)
    at = indices_of(index.shape)
    return define(index.shape, at, x[tuple(index[at] if k == d else i for k, i in enumerate(at))] if x.rank else x[()])


def along_dimension(x: Operand, indices: Operand, dim: int) -> Definition:
    """A gather whose other dimensions broadcast."""
    d = axis(dim, x.rank)
    alike = broadcast_shape(*[tuple(sp.S.One if k == d else s for k, s in enumerate(t.shape)) for t in (x, indices)])
    shape = [indices.shape[d] if k == d else s for k, s in enumerate(alike)]
    at = indices_of(shape)
    given = indices.element(*at)
    place = wrapped(given, x.shape[d])
    return define(shape, at, x.element(*[place if k == d else i for k, i in enumerate(at)]))


TAKEN = Row("take_along_dim", (), along_dimension)


@composite("take_along_dim")
def take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    """Entries along a dimension, or of the flattened tensor without one."""
    if dim is None:
        return x.reshape(-1).gather(0, indices.reshape(-1))
    with recorded_as(TAKEN):
        return torch.take_along_dim(x, indices, dim)


@op("take")
def take(x: Operand, index: Operand) -> Definition:
    """Elements by their places in the order of all elements."""
    at = indices_of(index.shape)
    source = list[Expr]()
    place = wrapped(index.element(*at), product(x.shape))
    for d in range(x.rank):
        stride = product(x.shape[d + 1 :])
        digit = cast("Expr", Quo(place, stride))
        source.append(digit if d == 0 else cast("Expr", Rem(digit, x.shape[d])))
    return define(index.shape, at, x.element(*source))


@op(targets=(torch.nn.functional.embedding,))
def embedding(
    index: Operand,
    weight: Operand,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Definition:
    """The row of `padding_idx` is read but gets no derivative."""
    if max_norm is not None or scale_grad_by_freq:
        raise TraceError("embedding with max_norm or scale_grad_by_freq is not a function of its inputs; do it outside")
    shape: Shape = (*index.shape, *weight.shape[1:])
    at = indices_of(shape)
    row = index.element(*at[: index.rank])
    value = weight.element(row, *at[index.rank :])
    if padding_idx is not None:
        padding = expression(padding_idx)
        place = (weight.shape[0] + padding) if value_of(padding) < 0 else padding
        value = cast("Expr", Where(Delta(row, place), Fixed(value), value))
    return define(shape, at, value)


@composite(targets=(torch.nn.functional.embedding_bag,))
def embedding_bag(
    index: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: Any = None,
) -> Any:
    """Rows of an embedding, reduced over each bag: a row of a matrix of indices, or from one offset to the next."""
    rows = torch.nn.functional.embedding(index, weight, None, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if offsets is None and padding_idx is None:
        return rows.max(1).values if mode == "max" else getattr(rows, mode)(1)
    if mode not in ("mean", "sum"):
        raise TraceError(
            f"embedding_bag with mode={mode!r} and offsets or padding_idx is not in the table; use a matrix"
        )
    counted = torch.ones_like(index) if padding_idx is None else index != padding_idx % weight.shape[0]
    counted = counted.to(rows.dtype).unsqueeze(-1)
    if offsets is None:
        total, count = (rows * counted).sum(1), counted.sum(1)
    else:
        bags = int(offsets.shape[0]) - int(include_last_offset)
        bag = torch.bucketize(torch.arange(index.shape[0]), offsets, right=True) - 1
        total = rows.new_zeros(bags, weight.shape[1]).index_add(0, bag, rows * counted)
        count = rows.new_zeros(bags, 1).index_add(0, bag, counted)
    return total if mode == "sum" else total / count.clamp(min=1)


@op("one_hot")
def one_hot(index: Operand, num_classes: Any = -1) -> Definition:
    classes = expression(num_classes)
    if classes == -1:
        raise TraceError("one_hot without num_classes reads the data; pass num_classes")
    shape: Shape = (*index.shape, classes)
    at = indices_of(shape)
    return define(shape, at, Delta(index.element(*at[:-1]), at[-1]))
