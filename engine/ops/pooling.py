"""Poolings: averages over windows, and gathers at the largest value of each window."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import TraceError
from engine.notation import Index, Less, LessEqual, Quo, Rem, Where, instantiate, sigma
from engine.ops.windows import Window, numbers, uneven, window
from engine.sizes import expression
from engine.table import Definition, Opaque, Operand, composite, define, fresh_of, indices_of, op, own_output, product

F = torch.nn.functional


def windows_of(x: Operand, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, spatial: int) -> list[Window]:
    """The windows over the last `spatial` dimensions; the stride is by default the window."""
    extents = numbers(kernel, spatial)
    lists = [numbers(stride, spatial, kernel), numbers(padding, spatial), numbers(dilation, spatial)]
    return [window(n, k, s, p, p, d, ceil_mode) for n, k, s, p, d in zip(x.shape[-spatial:], extents, *lists, strict=True)]


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
        raise TraceError("avg_pool with ceil_mode and a last window that sticks out; pass count_include_pad=False or a divisor")
    shape = (*x.shape[: len(lead)], *[w.size for w in windows])
    return define(shape, (*lead, *[w.out for w in windows]), total / count)


@op("avg_pool1d")
def avg_pool1d(
    x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
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


def largest(x: Operand, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, spatial: int) -> tuple[Definition, Opaque]:
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


@op(targets=(F.max_pool1d_with_indices, torch.max_pool1d_with_indices))
def max_pool1d_with_indices(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Definition, Opaque]:
    return largest(x, kernel_size, stride, padding, dilation, ceil_mode, 1)


@op(targets=(F.max_pool2d_with_indices, torch._C._nn.max_pool2d_with_indices))
def max_pool2d_with_indices(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Definition, Opaque]:
    return largest(x, kernel_size, stride, padding, dilation, ceil_mode, 2)
