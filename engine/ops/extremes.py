"""Largest and smallest values. Over several dimensions ties share the derivative; along one, the value is a gather."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.notation import Largest, Smallest
from engine.ops.choice import maximum, minimum
from engine.sizes import expression
from engine.table import (
    Definition,
    Opaque,
    Operand,
    Output,
    Row,
    axes,
    axis,
    composite,
    define,
    indices_of,
    op,
    own_output,
    pointwise,
    recorded_as,
    reduced,
)


def extreme(x: Operand, dim: Any, keepdim: bool, sign: int) -> Definition:
    """What is largest (sign 1) or smallest (-1): ties share the derivative evenly."""
    shape, out, at, limits = reduced(x, dim, keepdim)
    e = x.element(*at)
    if not limits:
        return define(shape, out, e)
    return define(shape, out, (Largest if sign > 0 else Smallest)(e, *[sp.Tuple(i, n) for i, n in limits]))


@op("amax")
def amax(x: Operand, dim: Any = (), keepdim: bool = False) -> Definition:
    return extreme(x, dim, keepdim, 1)


@op("amin")
def amin(x: Operand, dim: Any = (), keepdim: bool = False) -> Definition:
    return extreme(x, dim, keepdim, -1)


@op("aminmax")
def aminmax(x: Operand, *, dim: Any = None, keepdim: bool = False) -> tuple[Definition, Definition]:
    return extreme(x, dim, keepdim, -1), extreme(x, dim, keepdim, 1)


def picked(x: Operand, dim: int, keepdim: bool) -> tuple[Definition, Opaque]:
    """One entry along a dimension, at the position that torch gives, and that position."""
    d = axis(dim, x.rank)
    if not x.rank:
        return define((), (), x.element()), Opaque(())
    shape = [sp.S.One if k == d else s for k, s in enumerate(x.shape)]
    rest = [s for k, s in enumerate(x.shape) if k != d]
    place = own_output(1, shape if keepdim else rest)
    at = indices_of(shape)
    position = place.element(*(at if keepdim else [i for k, i in enumerate(at) if k != d]))
    value = x.element(*[position if k == d else i for k, i in enumerate(at)])
    if keepdim:
        return define(shape, at, value), Opaque(tuple(shape))
    return define(rest, [i for k, i in enumerate(at) if k != d], value), Opaque(tuple(rest))


def selected(x: Operand, dim: Any, keepdim: bool, sign: int) -> Output | tuple[Output, ...]:
    """max and min in their three forms: of a whole tensor, along a dimension, and of two tensors."""
    if isinstance(dim, Operand):
        return pointwise(maximum if sign > 0 else minimum, x, dim)
    return extreme(x, None, keepdim, sign) if dim is None else picked(x, dim, keepdim)


@op("max")
def largest(x: Operand, dim: Any = None, keepdim: bool = False) -> Output | tuple[Output, ...]:
    return selected(x, dim, keepdim, 1)


@op("min")
def smallest(x: Operand, dim: Any = None, keepdim: bool = False) -> Output | tuple[Output, ...]:
    return selected(x, dim, keepdim, -1)


def middle(x: Any, name: str, dim: Any, keepdim: bool) -> Any:
    """Along a dimension an entry of it; of a whole tensor a number, whose derivative those share that are equal to it."""
    if dim is not None:
        with recorded_as(MIDDLE):
            return getattr(torch, name)(x, dim, keepdim)
    with recorded_as(MIDDLE_OF_ALL):
        found = getattr(torch, name)(x.detach())
    if not x.is_floating_point():
        return found
    alike = (x == found) | (x.isnan() & found.isnan())
    return torch.where(alike, x, 0).sum() / alike.sum()


def _of_all(x: Operand) -> Opaque:
    return Opaque(())


MIDDLE = Row("median", (), picked)
MIDDLE_OF_ALL = Row("median", (), _of_all)
"""The row of the median itself, which is compared with and not differentiated."""


@composite("median")
def median(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return middle(x, "median", dim, keepdim)


@composite("nanmedian")
def nanmedian(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return middle(x, "nanmedian", dim, keepdim)


@composite("msort")
def msort(x: Any) -> Any:
    return x.sort(0).values


@op("mode")
def mode(x: Operand, dim: int = -1, keepdim: bool = False) -> Output | tuple[Output, ...]:
    return picked(x, dim, keepdim)


@op("kthvalue")
def kthvalue(x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> Output | tuple[Output, ...]:
    return picked(x, dim, keepdim)


def rearranged(x: Operand, dim: int, length: Expr) -> tuple[Definition, Opaque]:
    """`length` entries along a dimension, at the positions that torch gives, and those positions."""
    if not x.rank:
        return define((), (), x.element()), Opaque(())
    d = axis(dim, x.rank)
    shape = tuple(length if k == d else s for k, s in enumerate(x.shape))
    place = own_output(1, shape)
    at = indices_of(shape)
    value = x.element(*[place.element(*at) if k == d else i for k, i in enumerate(at)])
    return define(shape, at, value), Opaque(shape)


@op("sort")
def sort(x: Operand, dim: int = -1, descending: bool = False, *, stable: bool = False) -> tuple[Definition, Opaque]:
    return rearranged(x, dim, x.shape[axis(dim, x.rank)] if x.rank else sp.S.One)


@op("topk")
def topk(x: Operand, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Definition, Opaque]:
    return rearranged(x, dim, expression(k))


@op("cummax", "cummin")
def cummax(x: Operand, dim: int) -> tuple[Definition, Opaque]:
    return rearranged(x, dim, x.shape[axis(dim, x.rank)] if x.rank else sp.S.One)


@op("argmax", "argmin")
def argmax(x: Operand, dim: int | None = None, keepdim: bool = False) -> Opaque:
    dims = axes(dim, x.rank)
    if keepdim:
        return Opaque(tuple(sp.S.One if d in dims else s for d, s in enumerate(x.shape)))
    return Opaque(tuple(s for d, s in enumerate(x.shape) if d not in dims))


@op("argsort")
def argsort(x: Operand, dim: int = -1, descending: bool = False, stable: bool = False) -> Opaque:
    return Opaque(x.shape)
