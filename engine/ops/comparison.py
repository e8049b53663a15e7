"""Comparisons and logic: brackets, which are 0 or 1 and have no derivative."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Less, LessEqual, Sign, sigma
from engine.ops.pointwise import REALS
from engine.sizes import exact
from engine.table import (
    Definition,
    Opaque,
    Operand,
    broadcast_shape,
    define,
    elementwise,
    op,
    pointwise,
    product,
    reduced,
)

Tensor = torch.Tensor
RTOL, ATOL = exact(1e-5), exact(1e-8)


@elementwise("gt", "greater", targets=(Tensor.__gt__,), probes=REALS)
def gt(x: Expr, y: Expr) -> Any:
    return Less(y, x)


@elementwise("lt", "less", targets=(Tensor.__lt__,), probes=REALS)
def lt(x: Expr, y: Expr) -> Any:
    return Less(x, y)


@elementwise("ge", "greater_equal", targets=(Tensor.__ge__,), probes=REALS)
def ge(x: Expr, y: Expr) -> Any:
    return LessEqual(y, x)


@elementwise("le", "less_equal", targets=(Tensor.__le__,), probes=REALS)
def le(x: Expr, y: Expr) -> Any:
    return LessEqual(x, y)


@elementwise("eq", targets=(Tensor.__eq__,), probes=REALS)
def eq(x: Expr, y: Expr) -> Any:
    return Equal(x, y)


@elementwise("ne", "not_equal", targets=(Tensor.__ne__,), probes=REALS)
def ne(x: Expr, y: Expr) -> Any:
    return 1 - Equal(x, y)


@elementwise("isnan", probes=REALS)
def isnan(x: Expr) -> Any:
    return 1 - Equal(x, x)


@elementwise("isinf", probes=REALS)
def isinf(x: Expr) -> Any:
    return Equal(x, sp.S.Infinity) + Equal(x, sp.S.NegativeInfinity)


@elementwise("isfinite", probes=REALS)
def isfinite(x: Expr) -> Any:
    return Less(x, sp.S.Infinity) * Less(sp.S.NegativeInfinity, x)


@elementwise("isposinf", probes=REALS)
def isposinf(x: Expr) -> Any:
    return Equal(x, sp.S.Infinity)


@elementwise("isneginf", probes=REALS)
def isneginf(x: Expr) -> Any:
    return Equal(x, sp.S.NegativeInfinity)


@elementwise("isclose", probes=REALS)
def isclose(x: Expr, y: Expr, rtol: Expr = RTOL, atol: Expr = ATOL, equal_nan: bool = False) -> Any:
    """Of finite numbers; equal infinities are close as well."""
    if equal_nan:
        raise TraceError("isclose with equal_nan=True; add isnan(x) & isnan(y)")
    d = x - y
    near = LessEqual(Sign(d) * d, atol + rtol * Sign(y) * y) * Less(Sign(d) * d, sp.S.Infinity)
    return 1 - (1 - near) * (1 - Equal(x, y))


@op("isin", "bucketize")
def placed(x: Operand, *_: Any, **__: Any) -> Opaque:
    return Opaque(x.shape)


@op("searchsorted")
def searchsorted(sequence: Operand, values: Any, **_: Any) -> Opaque:
    return Opaque(values.shape if isinstance(values, Operand) else ())


def truth(x: Any, element: Any) -> Any:
    """Whether an element of `x` counts as true: of truth values the element itself, of numbers all but 0."""
    return element if isinstance(x, Operand) and x.boolean else 1 - Equal(element, 0)


@op("logical_and")
def logical_and(x: Operand, y: Any) -> Definition:
    def both(a: Expr, b: Expr) -> Any:
        return truth(x, a) * truth(y, b)

    return pointwise(both, x, y)


@op("logical_or")
def logical_or(x: Operand, y: Any) -> Definition:
    def either(a: Expr, b: Expr) -> Any:
        return 1 - (1 - truth(x, a)) * (1 - truth(y, b))

    return pointwise(either, x, y)


@op("logical_xor")
def logical_xor(x: Operand, y: Any) -> Definition:
    def one(a: Expr, b: Expr) -> Any:
        return 1 - Equal(truth(x, a), truth(y, b))

    return pointwise(one, x, y)


@op("logical_not")
def logical_not(x: Operand) -> Definition:
    def negation(a: Expr) -> Any:
        return 1 - truth(x, a)

    return pointwise(negation, x)


def bitwise(x: Any, y: Any, logical: Any) -> Definition | Opaque:
    """The logical op on truth values; on integers the bits are torch's affair."""
    operands = [a for a in (x, y) if isinstance(a, Operand)]
    if all(a.boolean for a in operands) and all(isinstance(a, (Operand, bool)) for a in (x, y)):
        return logical(*[int(a) if isinstance(a, bool) else a for a in (x, y)])
    return Opaque(broadcast_shape(*[a.shape for a in operands]))


@op("bitwise_and", targets=(Tensor.__and__, Tensor.__rand__))
def bitwise_and(x: Any, y: Any) -> Definition | Opaque:
    return bitwise(x, y, logical_and)


@op("bitwise_or", targets=(Tensor.__or__, Tensor.__ror__))
def bitwise_or(x: Any, y: Any) -> Definition | Opaque:
    return bitwise(x, y, logical_or)


@op("bitwise_xor", targets=(Tensor.__xor__, Tensor.__rxor__))
def bitwise_xor(x: Any, y: Any) -> Definition | Opaque:
    return bitwise(x, y, logical_xor)


@op("bitwise_not", targets=(Tensor.__invert__,))
def bitwise_not(x: Operand) -> Definition | Opaque:
    return logical_not(x) if x.boolean else Opaque(x.shape)


@op("any")
def some(x: Operand, dim: Any = None, keepdim: bool = False) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, Less(0, sigma(truth(x, x[at]), *limits)))


@op("all")
def every(x: Operand, dim: Any = None, keepdim: bool = False) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, Equal(sigma(truth(x, x[at]), *limits), product([s for _, s in limits])))


@op("count_nonzero")
def count_nonzero(x: Operand, dim: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, False)
    return define(shape, out, sigma(truth(x, x[at]), *limits))
