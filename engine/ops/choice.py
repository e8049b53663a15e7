"""Choices between values: absolute value and sign, maximum and minimum, clamping, where."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Fixed, Less, LessEqual, Sign, Where
from engine.ops.pointwise import REALS
from engine.table import Definition, Operand, elementwise, op, pointwise

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


@elementwise("nan_to_num", probes=REALS)
def nan_to_num(x: Expr, nan: Expr | None = None, posinf: Expr | None = None, neginf: Expr | None = None) -> Any:
    """Infinities must be given their replacements: torch's depend on the dtype."""
    if posinf is None or neginf is None:
        raise TraceError("nan_to_num replaces infinities by numbers of the dtype; pass posinf and neginf")
    finite = Where(Equal(x, sp.S.Infinity), posinf, Where(Equal(x, sp.S.NegativeInfinity), neginf, x))
    return Where(Equal(x, x), finite, sp.S.Zero if nan is None else nan)
