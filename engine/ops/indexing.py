"""Gathers: accesses at an integer tensor's value, from which the scatter-add of the backward follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import ShapeError, TraceError
from engine.notation import Delta, Where
from engine.sizes import expression
from engine.table import Definition, Operand, Shape, aligned, axis, broadcast_shape, define, indices_of, op, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor


def sliced(s: slice, size: Expr) -> tuple[Expr, int, Expr]:
    """(start, step, length) of a slice of a dimension, symbolic where its bounds are."""
    step = 1 if s.step is None else int(s.step)
    total = value_of(size)

    def bound(given: Any, default: Expr) -> Expr:
        if given is None:
            return default
        e = expression(given)
        v = value_of(e)
        if v < 0:
            return cast("Expr", size + e) if v + total > 0 else sp.S.Zero
        return e if v < total else size

    start, stop = bound(s.start, sp.S.Zero), bound(s.stop, size)
    if step == 1:
        length = cast("Expr", stop - start)
        return start, step, length if value_of(length) > 0 else sp.S.Zero
    span = cast("Expr", stop - start)
    exact_length = sp.cancel(span / step)
    if exact_length.is_integer:
        return start, step, exact_length
    from engine.notation import Quo

    return start, step, cast("Expr", Quo(sp.expand(span + step - 1), Integer(step)))


@op(targets=(Tensor.__getitem__,), view=True)
def getitem(x: Operand, item: Any) -> Definition:
    items = list(cast("tuple[Any, ...]", item)) if isinstance(item, tuple) else [item]
    for it in items:
        if isinstance(it, Operand) and it.floating:
            raise TraceError("an index must be an integer tensor")
        if isinstance(it, bool):
            raise TraceError("indexing with a Python bool is not supported; use None and a slice")
    used = sum(1 for it in items if it is not None and it is not Ellipsis)
    where = next((k for k, it in enumerate(items) if it is Ellipsis), len(items))
    fill: list[Any] = [slice(None)] * (x.rank - used)
    items = items[:where] + fill + items[where + 1 :]
    if used > x.rank:
        raise ShapeError(f"{used} indices for a tensor of rank {x.rank}")

    gathers = [k for k, it in enumerate(items) if isinstance(it, Operand)]
    advanced = [k for k, it in enumerate(items) if isinstance(it, (Operand, int)) and not isinstance(it, bool)] if gathers else []
    shape_b = broadcast_shape(*[items[k].shape for k in gathers])
    at_b = indices_of(shape_b)
    together = bool(advanced) and advanced == list(range(advanced[0], advanced[-1] + 1))

    shape: list[Expr] = []
    at: list[Expr] = []
    source: list[Expr] = []
    placed = False

    def place() -> None:
        shape.extend(shape_b)
        at.extend(at_b)

    if advanced and not together:
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
        if k in advanced and not placed:
            place()
            placed = True
        if isinstance(it, Operand):
            source.append(aligned(it, at_b))
        elif isinstance(it, slice):
            start, step, length = sliced(it, size)
            (i,) = indices_of((length,))
            shape.append(length)
            at.append(i)
            source.append(cast("Expr", start + step * i))
        else:
            e = expression(it)
            source.append(cast("Expr", size + e) if value_of(e) < 0 else e)
    return define(shape, at, x[tuple(source)] if x.rank else x[()])


@op("index_select")
def index_select(x: Operand, dim: int, index: Operand) -> Definition:
    d = axis(dim, x.rank)
    shape = [index.shape[0] if k == d else s for k, s in enumerate(x.shape)]
    at = indices_of(shape)
    return define(shape, at, x[tuple(index[i] if k == d else i for k, i in enumerate(at))])


@op("gather")
def gather(x: Operand, dim: int, index: Operand, *, sparse_grad: bool = False) -> Definition:
    d = axis(dim, x.rank)
    at = indices_of(index.shape)
    return define(index.shape, at, x[tuple(index[at] if k == d else i for k, i in enumerate(at))] if x.rank else x[()])


@op("take_along_dim")
def take_along_dim(x: Operand, indices: Operand, dim: int) -> Definition:
    d = axis(dim, x.rank)
    return gather(x, d, indices)


@op("embedding")
def embedding(index: Operand, weight: Operand, padding_idx: Any = None, *_: Any, **__: Any) -> Definition:
    shape: Shape = (*index.shape, *weight.shape[1:])
    at = indices_of(shape)
    row = aligned(index, at[: index.rank]) if index.rank else index[()]
    return define(shape, at, weight[tuple([row, *at[index.rank :]])])


@op("one_hot")
def one_hot(index: Operand, num_classes: Any = -1) -> Definition:
    classes = expression(num_classes)
    if classes == -1:
        raise TraceError("one_hot without num_classes reads the data; pass num_classes")
    shape: Shape = (*index.shape, classes)
    at = indices_of(shape)
    return define(shape, at, Where(Delta(index.element(*at[:-1]), at[-1]), 1, 0))


