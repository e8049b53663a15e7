"""Poolings: averages over windows, and gathers at the largest value of each window."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Index, Less, LessEqual, Quo, Rem, Where, instantiate, sigma
from engine.ops.windows import Window, numbers, uneven, window
from engine.sizes import expression
from engine.table import (
    Definition,
    Opaque,
    Operand,
    composite,
    define,
    each_of,
    fresh_of,
    indices_of,
    op,
    own_output,
    product,
)

F = torch.nn.functional


def windows_of(
    x: Operand, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, spatial: int
) -> list[Window]:
    """The windows over the last `spatial` dimensions; the stride is by default the window."""
    extents = numbers(kernel, spatial)
    lists = [numbers(stride, spatial, kernel), numbers(padding, spatial), numbers(dilation, spatial)]
    return [
        window(n, k, s, p, p, d, ceil_mode) for n, k, s, p, d in zip(x.shape[-spatial:], extents, *lists, strict=True)
    ]


def averaged(
    x: Operand, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool, divisor: Any, spatial: int
) -> Definition:
    """The mean over each window; padding counts as 0, or not at all."""
    windows = windows_of(x, kernel, stride, padding, 1, ceil_mode, spatial)
    lead = list(indices_of(x.shape[: x.rank - spatial]))
    value: Any = x.element(*lead, *[w.place for w in windows])
    counted: Any = sp.S.One
    for w in windows:
        value, counted = w.guarded(value), w.guarded(counted)
    limits = [limit for w in windows for limit in w.limits]
    total = sigma(cast("Expr", value), *limits)
    count: Any = product([w.extent for w in windows])
    if divisor is not None:
        count = expression(divisor)
    elif not include and counted != 1:
        count = instantiate(sigma(cast("Expr", counted), *limits), {})
    elif ceil_mode and any(w.after != w.before for w in windows):
        raise TraceError(
            "avg_pool with ceil_mode and a last window that sticks out; pass count_include_pad=False or a divisor"
        )
    shape = (*x.shape[: len(lead)], *[w.size for w in windows])
    return define(shape, (*lead, *[w.out for w in windows]), total / count)


@op("avg_pool1d")
def avg_pool1d(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Definition:
    return averaged(x, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


@op("avg_pool2d")
def avg_pool2d(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Definition:
    return averaged(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)


@op("avg_pool3d")
def avg_pool3d(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Definition:
    return averaged(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3)


def largest(
    x: Operand, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, spatial: int
) -> tuple[Definition, Opaque]:
    """The entry at the place that torch found largest in each window, and that place (among the spatial ones)."""
    windows = windows_of(x, kernel, stride, padding, dilation, ceil_mode, spatial)
    lead = list(indices_of(x.shape[: x.rank - spatial]))
    shape = (*x.shape[: len(lead)], *[w.size for w in windows])
    return picked(x, shape, (*lead, *[w.out for w in windows]), spatial)


def picked(x: Operand, shape: tuple[Expr, ...], at: tuple[Expr, ...], spatial: int) -> tuple[Definition, Opaque]:
    """The entries at flat spatial places that are the op's second output."""
    place = own_output(1, shape).element(*at)
    source: list[Expr] = []
    for d in range(x.rank - spatial, x.rank):
        digit = cast("Expr", Quo(place, product(x.shape[d + 1 :])))
        source.append(digit if d == x.rank - spatial else cast("Expr", Rem(digit, x.shape[d])))
    return define(shape, at, x.element(*at[: x.rank - spatial], *source)), Opaque(shape)


def max_pool(function: Any, full: Any, spatial: int) -> None:
    """Register max pooling: with positions it is a gather at them, without them the same with the positions dropped."""

    @op(targets=(full,))
    def with_positions(
        x: Operand,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = True,
    ) -> tuple[Definition, Opaque]:
        return largest(x, kernel_size, stride, padding, dilation, ceil_mode, spatial)

    @composite(targets=(function,))
    def values(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
        return full(x, kernel_size, **{k: v for k, v in options.items() if v != defaults[k]}, return_indices=True)[0]


max_pool(F.max_pool1d, F.max_pool1d_with_indices, 1)
max_pool(F.max_pool2d, F.max_pool2d_with_indices, 2)
max_pool(F.max_pool3d, F.max_pool3d_with_indices, 3)


def adaptive(x: Operand, output_size: Any, spatial: int) -> Definition:
    """The mean over windows, as even as they get, that cover each dimension."""
    given = each_of(output_size, spatial)
    sources = x.shape[-spatial:]
    sizes = [n if s is None else expression(s) for s, n in zip(given, sources, strict=True)]
    lead = list(indices_of(x.shape[: x.rank - spatial]))
    at: list[Expr] = []
    places: list[Expr] = []
    limits: list[tuple[Index, Expr]] = []
    count: Any = sp.S.One
    conditions: list[Any] = []
    for n, size in zip(sources, sizes, strict=True):
        out, start, end = uneven(n, size)
        even = sp.cancel(n / size)
        extent = even if even.is_integer else n
        j = fresh_of(extent)
        at.append(out)
        if extent != 1:
            limits.append((cast("Index", j), extent))
        if even.is_integer:
            places.append(out * even + j)
            count = count * even
        else:
            places.append(j)
            conditions += [LessEqual(start, j), Less(j, end)]
            count = count * (end - start)
    value: Any = x.element(*lead, *places)
    for condition in conditions:
        value = Where(condition, value, 0)
    return define((*x.shape[: len(lead)], *sizes), (*lead, *at), sigma(cast("Expr", value), *limits) / count)


@op("adaptive_avg_pool1d")
def adaptive_avg_pool1d(x: Operand, output_size: Any) -> Definition:
    return adaptive(x, output_size, 1)


@op("adaptive_avg_pool2d")
def adaptive_avg_pool2d(x: Operand, output_size: Any) -> Definition:
    return adaptive(x, output_size, 2)


@op("adaptive_avg_pool3d")
def adaptive_avg_pool3d(x: Operand, output_size: Any) -> Definition:
    return adaptive(x, output_size, 3)


def adaptive_max_pool(function: Any, full: Any, spatial: int) -> None:
    """Register adaptive max pooling, a gather at the positions that torch gives."""

    @op(targets=(full,))
    def with_positions(x: Operand, output_size: Any, return_indices: bool = True) -> tuple[Definition, Opaque]:
        given = each_of(output_size, spatial)
        sizes = [n if s is None else expression(s) for s, n in zip(given, x.shape[-spatial:], strict=True)]
        shape = (*x.shape[: x.rank - spatial], *sizes)
        return picked(x, shape, indices_of(shape), spatial)

    @composite(targets=(function,))
    def values(x: Any, output_size: Any, return_indices: bool = False) -> Any:
        return full(x, output_size, return_indices=True)[0]


adaptive_max_pool(F.adaptive_max_pool1d, F.adaptive_max_pool1d_with_indices, 1)
adaptive_max_pool(F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices, 2)
adaptive_max_pool(F.adaptive_max_pool3d, F.adaptive_max_pool3d_with_indices, 3)


def power_mean(total: Any, count: int, norm_type: float) -> Any:
    """The root of a sum of powers, from their mean; a negative mean counts with its sign, as in torch."""
    return (total.sign() * total.abs().relu() * count).pow(1 / norm_type)


@composite(targets=(F.lp_pool1d,))
def lp_pool1d(x: Any, norm_type: float, kernel_size: int, stride: Any = None, ceil_mode: bool = False) -> Any:
    return power_mean(F.avg_pool1d(x.pow(norm_type), kernel_size, stride, 0, ceil_mode), kernel_size, norm_type)


@composite(targets=(F.lp_pool2d,))
def lp_pool2d(x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    rows, columns = each_of(kernel_size, 2)
    return power_mean(F.avg_pool2d(x.pow(norm_type), kernel_size, stride, 0, ceil_mode), rows * columns, norm_type)
