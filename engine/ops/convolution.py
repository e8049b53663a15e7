"""Convolutions: sums over channels and windows."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import TraceError
from engine.notation import Delta, Index, Quo, Rem, sigma
from engine.ops.windows import numbers, window
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    Row,
    composite,
    define,
    divided,
    equal,
    fresh_of,
    indices_of,
    op,
    quotient,
    recorded_as,
    value_of,
)


def convolved(
    x: Operand, weight: Operand, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, spatial: int
) -> Definition:
    """out[n, o, i] = Sum over c and p of x[n, c, i*stride + p*dilation - padding] w[o, c, p], c in o's group."""
    if x.rank not in (spatial + 1, spatial + 2):
        raise TraceError(f"a convolution over {spatial} dimensions of a tensor of rank {x.rank}")
    batch = list(indices_of(x.shape[: x.rank - spatial - 1]))
    sources, extents = x.shape[-spatial:], fixed(weight.shape[2:])
    strides, dilations = numbers(stride, spatial), numbers(dilation, spatial)
    pads = _paddings(padding, extents, dilations, spatial)
    windows = [
        window(n, k, s, before, after, d)
        for n, k, s, (before, after), d in zip(sources, extents, strides, pads, dilations, strict=True)
    ]
    o, c = fresh_of(weight.shape[0]), fresh_of(weight.shape[1])
    channel = c
    count = expression(groups)
    equal(x.shape[-spatial - 1], weight.shape[1] * count)
    if count != 1:
        each = sp.cancel(weight.shape[0] / count)
        channel = Quo(o, each) * weight.shape[1] + c
    value: Any = x.element(*batch, channel, *[w.place for w in windows])
    for w in windows:
        value = w.guarded(value)
    body = value * weight.element(o, c, *[w.within for w in windows])
    limits = [(cast("Index", c), weight.shape[1])] if weight.shape[1] != 1 else []
    out = sigma(cast("Expr", body), *limits, *[limit for w in windows for limit in w.limits])
    if bias is not None:
        out = cast("Expr", out + bias.element(o))
    shape = (*x.shape[: len(batch)], weight.shape[0], *[w.size for w in windows])
    return define(shape, (*batch, o, *[w.out for w in windows]), out)


def fixed(extents: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """A kernel's own sizes as the numbers that they are: what it slides over keeps readable sizes."""
    return tuple(equal(k, sp.Integer(value_of(k))) for k in extents)


def _paddings(padding: Any, extents: Any, dilations: list[Expr], spatial: int) -> list[tuple[Expr, Expr]]:
    """(before, after) for each dimension; "same" puts the larger half after."""
    if padding == "valid":
        return [(sp.S.Zero, sp.S.Zero)] * spatial
    if padding == "same":
        total = [value_of(cast("Expr", d * (k - 1))) for d, k in zip(dilations, extents, strict=True)]
        return [(sp.Integer(t // 2), sp.Integer(t - t // 2)) for t in total]
    return [(p, p) for p in numbers(padding, spatial)]


@op("conv1d", kind="product")
def conv1d(
    x: Operand, weight: Operand, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
) -> Definition:
    return convolved(x, weight, bias, stride, padding, dilation, groups, 1)


@op("conv2d", kind="product")
def conv2d(
    x: Operand, weight: Operand, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
) -> Definition:
    return convolved(x, weight, bias, stride, padding, dilation, groups, 2)


@op("conv3d", kind="product")
def conv3d(
    x: Operand, weight: Operand, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
) -> Definition:
    return convolved(x, weight, bias, stride, padding, dilation, groups, 3)


def spread(
    x: Operand,
    weight: Operand,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    spatial: int,
) -> Definition:
    """The transpose of a convolution: x[n, c, i] * w[c, o, p] is added at place i*stride + p*dilation - padding."""
    batch = list(indices_of(x.shape[: x.rank - spatial - 1]))
    strides, pads, more, dilations = (numbers(v, spatial) for v in (stride, padding, output_padding, dilation))
    c, o = fresh_of(weight.shape[0]), fresh_of(weight.shape[1])
    equal(x.shape[-spatial - 1], weight.shape[0])
    sizes, at, taken, within, meets = list[Expr](), list[Expr](), list[Expr](), list[Expr](), sp.S.One
    limits: list[tuple[Index, Expr]] = [(cast("Index", c), weight.shape[0])] if weight.shape[0] != 1 else []
    for n, k, s, p, m, d in zip(
        x.shape[-spatial:], fixed(weight.shape[2:]), strides, pads, more, dilations, strict=True
    ):
        size = sp.expand((n - 1) * s - 2 * p + d * (k - 1) + m + 1)
        place, i, j = fresh_of(size), fresh_of(n), fresh_of(k)
        sizes.append(size)
        at.append(place)
        taken.append(i)
        within.append(j)
        limits += [(cast("Index", v), e) for v, e in ((i, n), (j, k)) if e != 1]
        meets = meets * Delta(sp.expand(i * s + j * d - p), place)
    body = meets * x.element(*batch, c, *taken) * weight.element(c, o, *within)
    out = sigma(body, *limits)
    if bias is not None:
        out = cast("Expr", out + bias.element(o))
    return define((*x.shape[: len(batch)], weight.shape[1], *sizes), (*batch, o, *at), out)


def transposed(function: Any, spatial: int) -> None:
    """Register a transposed convolution; with groups it is one of each group, side by side."""

    def whole(
        x: Operand,
        weight: Operand,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: Any = 1,
        dilation: Any = 1,
    ) -> Definition:
        return spread(x, weight, bias, stride, padding, output_padding, dilation, spatial)

    row = Row(function.__name__, (), whole)

    @composite(targets=(function,))
    def grouped(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        options = {k: v for k, v in options.items() if v != (1 if k in ("stride", "dilation") else 0)}
        if groups == 1:
            with recorded_as(row):
                return function(x, weight, bias, **options)
        channels = x.dim() - spatial - 1
        pairs = zip(x.chunk(groups, channels), weight.chunk(groups), strict=True)
        out = torch.cat([function(a, w, **options) for a, w in pairs], channels)
        return out if bias is None else out + bias.reshape(-1, *[1] * spatial)


transposed(torch.conv_transpose1d, 1)
transposed(torch.conv_transpose2d, 2)
transposed(torch.conv_transpose3d, 3)


@op(targets=(torch.nn.functional.unfold,))
def unfold(x: Operand, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Definition:
    """Every window of an image as a column: (n, c, h, w) to (n, c*kh*kw, windows)."""
    extents, dilations, pads, strides = (numbers(v, 2) for v in (kernel_size, dilation, padding, stride))
    windows = [
        window(n, k, s, p, p, d) for n, k, s, p, d in zip(x.shape[-2:], extents, strides, pads, dilations, strict=True)
    ]
    lead, channels = x.shape[: x.rank - 3], x.shape[-3]
    area = extents[0] * extents[1]
    shape = (*lead, channels * area, windows[0].size * windows[1].size)
    at = indices_of(shape)
    row, column = at[-2], at[-1]
    where: dict[Any, Any] = {
        windows[0].within: Rem(Quo(row, extents[1]), extents[0]),
        windows[1].within: Rem(row, extents[1]),
        windows[0].out: Quo(column, windows[1].size),
        windows[1].out: Rem(column, windows[1].size),
    }
    where = {k: v for k, v in where.items() if isinstance(k, Index)}
    value: Any = x.element(*at[:-2], cast("Expr", Quo(row, area)), *[w.place for w in windows])
    for w in windows:
        value = w.guarded(value)
    return define(shape, at, value.xreplace(where))


@op(targets=(torch.nn.functional.fold,))
def fold(
    x: Operand, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Definition:
    """Every column added where `unfold` reads it: (n, c*kh*kw, windows) to (n, c, h, w)."""
    sizes, extents, dilations, pads, strides = (
        numbers(v, 2) for v in (output_size, kernel_size, dilation, padding, stride)
    )
    windows = [window(n, k, s, p, p, d) for n, k, s, p, d in zip(sizes, extents, strides, pads, dilations, strict=True)]
    area = extents[0] * extents[1]
    channels = quotient(x.shape[-2], area)
    if not channels.is_integer:
        channels = divided(channels) or Integer(value_of(x.shape[-2]) // value_of(area))
        equal(x.shape[-2], channels * area)
    equal(x.shape[-1], windows[0].size * windows[1].size)
    shape = (*x.shape[:-2], channels, *sizes)
    at = indices_of(shape)
    row = (at[-3] * extents[0] + windows[0].within) * extents[1] + windows[1].within
    column = windows[0].out * windows[1].size + windows[1].out
    meets: Any = sp.S.One
    for w, place in zip(windows, at[-2:], strict=True):
        meets = meets * Delta(w.place, place)
    within = [w.limits for w in windows]
    across = [[(cast("Index", w.out), w.size)] if w.size != 1 else [] for w in windows]
    limits = [pair for pairs in (*within, *across) for pair in pairs]
    return define(shape, at, sigma(meets * x.element(*at[:-3], sp.expand(row), sp.expand(column)), *limits))
