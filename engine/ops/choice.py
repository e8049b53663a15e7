"""Choices between values: absolute value and sign, maximum and minimum, clamping, where."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Fixed, Less, LessEqual, Sign, Where
from engine.ops.pointwise import REALS
from engine.table import Definition, Opaque, Operand, Row, composite, elementwise, op, pointwise, recorded_as

Tensor = torch.Tensor


def magnitude(x: Any) -> Any:
    """|x| with slope 0 at 0."""
    return Sign(x) * x


@elementwise("abs", "absolute", targets=(Tensor.__abs__,), probes=REALS)
def absolute(x: Expr) -> Any:
    return magnitude(x)


@elementwise("sign", "sgn", probes=REALS)
def sign(x: Expr) -> Any:
    return Sign(x)


@op("signbit")
def signbit(x: Operand) -> Opaque:
    return Opaque(x.shape)


@elementwise("copysign", probes=REALS)
def copysign(x: Expr, y: Expr) -> Any:
    negative = Where(Equal(y, 0), Less(1 / y, 0), Less(y, 0))  # 1/-0 is minus infinity
    return Where(negative, -magnitude(x), magnitude(x))


@elementwise("maximum", probes=REALS)
def maximum(x: Expr, y: Expr) -> Any:
    return Where(Less(y, x), x, Where(Less(x, y), y, (x + y) / 2))


@elementwise("minimum", probes=REALS)
def minimum(x: Expr, y: Expr) -> Any:
    return Where(Less(x, y), x, Where(Less(y, x), y, (x + y) / 2))


@elementwise("fmax", probes=REALS)
def fmax(x: Expr, y: Expr) -> Any:
    return Where(Equal(y, y), Where(LessEqual(y, x), x, y), x)


@elementwise("fmin", probes=REALS)
def fmin(x: Expr, y: Expr) -> Any:
    return Where(Equal(y, y), Where(LessEqual(x, y), x, y), x)


@elementwise("clamp", "clip", probes=REALS)
def clamp(x: Expr, min: Expr | None = None, max: Expr | None = None) -> Any:
    """At a bound the slope is 1; where the bounds cross, the result is `max`. Where they meet, torch moves with neither."""
    if max is None:
        return x if min is None else Where(LessEqual(min, x), x, min)
    if min is None:
        return Where(LessEqual(x, max), x, max)
    lower = min if min.is_number else Where(Less(min, max), min, Fixed(min))
    return Where(Less(max, min), max, Where(Less(x, min), lower, Where(Less(max, x), max, x)))


@elementwise("clamp_min", probes=REALS)
def clamp_min(x: Expr, min: Expr) -> Any:
    return clamp(x, min)


@elementwise("clamp_max", probes=REALS)
def clamp_max(x: Expr, max: Expr) -> Any:
    return clamp(x, None, max)


def chosen(condition: Any, x: Any, y: Any) -> Definition:
    """`x` where the condition holds, else `y`."""
    if not (isinstance(condition, Operand) and condition.boolean):
        raise TraceError("where needs a condition of dtype bool; write a comparison")
    return pointwise(Where, condition, x, y)


@op(targets=(torch.where,))
def where(condition: Any, x: Any = None, y: Any = None) -> Definition:
    if x is None or y is None:
        raise TraceError("where(condition) alone gives positions that depend on the data; use where(condition, x, y)")
    return chosen(condition, x, y)


@op(targets=(Tensor.where,))
def where_method(x: Any, condition: Any, y: Any) -> Definition:
    return chosen(condition, x, y)


@op("masked_fill")
def masked_fill(x: Operand, mask: Operand, value: Any) -> Definition:
    return chosen(mask, value, x)


def replaced(x: Expr, nan: Expr | None = None, posinf: Expr = sp.S.Zero, neginf: Expr = sp.S.Zero) -> Any:
    finite = Where(Equal(x, sp.S.Infinity), posinf, Where(Equal(x, sp.S.NegativeInfinity), neginf, x))
    return Where(Equal(x, x), finite, sp.S.Zero if nan is None else nan)


def replaced_by_numbers(x: Operand, **numbers: Any) -> Definition:
    return pointwise(replaced, x, **numbers)


def replaced_by_dtype(x: Operand, *_: Any, **__: Any) -> Opaque:
    return Opaque(x.shape)


BY_NUMBERS = Row("nan_to_num", (), replaced_by_numbers)
BY_DTYPE = Row("nan_to_num", (), replaced_by_dtype)
"""The row of the largest numbers of a dtype, in place of infinities: constants, which depend on the dtype."""


@composite("nan_to_num")
def nan_to_num(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    """What is no number, or infinite, is replaced and has no derivative."""
    if posinf is not None and neginf is not None:
        with recorded_as(BY_NUMBERS):
            return x.nan_to_num(nan=nan, posinf=posinf, neginf=neginf)
    with recorded_as(BY_DTYPE):
        largest = x.detach().nan_to_num(nan, posinf, neginf)
    return torch.where(x.isfinite(), x, largest) if x.is_floating_point() else largest
