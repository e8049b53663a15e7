"""Elementwise ops: the scalar function, and nothing else."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Less, LessEqual, Sign, Where
from engine.table import elementwise

REALS = (-300.0, -100.0, -1.0, -0.5, 0.0, 0.5, 1.0, 100.0, 300.0)
POSITIVE = (1e-30, 0.5, 1.0, 2.0, 100.0, 1e30)
HALF, ONE, TWO = sp.Rational(1, 2), sp.S.One, sp.Integer(2)
Tensor = torch.Tensor


@elementwise("add", targets=(Tensor.__add__, Tensor.__radd__), probes=REALS)
def add(x: Expr, y: Expr, *, alpha: Expr = ONE) -> Expr:
    return x + alpha * y


@elementwise("sub", "subtract", targets=(Tensor.__sub__,), probes=REALS)
def sub(x: Expr, y: Expr, *, alpha: Expr = ONE) -> Expr:
    return x - alpha * y


@elementwise("rsub", targets=(Tensor.__rsub__,), probes=REALS)
def rsub(x: Expr, y: Expr, *, alpha: Expr = ONE) -> Expr:
    return y - alpha * x


@elementwise("mul", "multiply", targets=(Tensor.__mul__, Tensor.__rmul__), probes=REALS)
def mul(x: Expr, y: Expr) -> Expr:
    return x * y


@elementwise("div", "divide", "true_divide", targets=(Tensor.__truediv__,), probes=REALS)
def div(x: Expr, y: Expr, *, rounding_mode: str | None = None) -> Expr:
    if rounding_mode is not None:
        raise TraceError(f"div with rounding_mode={rounding_mode!r} is not differentiated; use a plain division")
    return x / y


@elementwise(targets=(Tensor.__rtruediv__, Tensor.__rdiv__), probes=REALS)
def rdiv(x: Expr, y: Expr) -> Expr:
    return y / x


@elementwise("pow", targets=(Tensor.__pow__,), probes=POSITIVE)
def power(x: Expr, y: Expr) -> Expr:
    return x**y


@elementwise(targets=(Tensor.__rpow__,), probes=REALS)
def rpow(x: Expr, y: Expr) -> Expr:
    return y**x


@elementwise("neg", "negative", targets=(Tensor.__neg__,), probes=REALS)
def neg(x: Expr) -> Expr:
    return -x


@elementwise("square", probes=REALS)
def square(x: Expr) -> Expr:
    return x**2


@elementwise("sqrt", probes=POSITIVE)
def sqrt(x: Expr) -> Expr:
    return sp.sqrt(x)


@elementwise("rsqrt", probes=POSITIVE)
def rsqrt(x: Expr) -> Expr:
    return x**-HALF


@elementwise("reciprocal", probes=POSITIVE)
def reciprocal(x: Expr) -> Expr:
    return 1 / x


@elementwise("exp", probes=REALS)
def exp(x: Expr) -> Any:
    return sp.exp(x)


@elementwise("log", probes=POSITIVE)
def log(x: Expr) -> Any:
    return sp.log(x)


@elementwise("log2", probes=POSITIVE)
def log2(x: Expr) -> Any:
    return sp.log(x) / sp.log(2)


@elementwise("log10", probes=POSITIVE)
def log10(x: Expr) -> Any:
    return sp.log(x) / sp.log(10)


@elementwise("log1p", probes=POSITIVE)
def log1p(x: Expr) -> Any:
    return sp.log(1 + x)


@elementwise("expm1", probes=REALS)
def expm1(x: Expr) -> Any:
    return sp.exp(x) - 1


@elementwise("exp2", probes=REALS)
def exp2(x: Expr) -> Any:
    return TWO**x


@elementwise("sin", probes=REALS)
def sin(x: Expr) -> Any:
    return sp.sin(x)


@elementwise("cos", probes=REALS)
def cos(x: Expr) -> Any:
    return sp.cos(x)


@elementwise("tanh", probes=REALS)
def tanh(x: Expr) -> Any:
    return sp.tanh(x)


@elementwise("sigmoid", "expit", probes=REALS)
def sigmoid(x: Expr) -> Any:
    return 1 / (1 + sp.exp(-x))


@elementwise("logsigmoid", probes=REALS)
def logsigmoid(x: Expr) -> Any:
    return -sp.log(1 + sp.exp(-x))


@elementwise("relu", probes=REALS)
def relu(x: Expr, inplace: bool = False) -> Any:
    return Where(Less(0, x), x, 0)


@elementwise("silu", probes=REALS)
def silu(x: Expr, inplace: bool = False) -> Any:
    return x / (1 + sp.exp(-x))


@elementwise("erf", probes=REALS)
def erf(x: Expr) -> Any:
    return sp.erf(x)


@elementwise("gelu", probes=REALS)
def gelu(x: Expr, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return x * (1 + sp.tanh(sp.sqrt(2 / sp.pi) * (x + sp.Rational(44715, 1000000) * x**3))) / 2
    return x * (1 + sp.erf(x / sp.sqrt(2))) / 2


@elementwise("abs", "absolute", targets=(Tensor.__abs__,), probes=REALS)
def absolute(x: Expr) -> Any:
    return Sign(x) * x


@elementwise("sign", "sgn", probes=REALS)
def sign(x: Expr) -> Any:
    return Sign(x)


@elementwise("maximum", probes=REALS)
def maximum(x: Expr, y: Expr) -> Any:
    return Where(Less(y, x), x, Where(Less(x, y), y, (x + y) / 2))


@elementwise("minimum", probes=REALS)
def minimum(x: Expr, y: Expr) -> Any:
    return Where(Less(x, y), x, Where(Less(y, x), y, (x + y) / 2))


@elementwise("clamp", "clip", probes=REALS)
def clamp(x: Expr, min: Expr | None = None, max: Expr | None = None) -> Any:
    out = x
    if min is not None:
        out = Where(LessEqual(min, x), out, min)
    if max is not None:
        out = Where(LessEqual(x, max), out, max)
    return out


@elementwise("where")
def where(condition: Expr, x: Expr, y: Expr) -> Any:
    return Where(condition, x, y)


@elementwise("masked_fill")
def masked_fill(x: Expr, mask: Expr, value: Expr) -> Any:
    return Where(mask, value, x)


@elementwise("gt", "greater", targets=(Tensor.__gt__,))
def gt(x: Expr, y: Expr) -> Any:
    return Less(y, x)


@elementwise("lt", "less", targets=(Tensor.__lt__,))
def lt(x: Expr, y: Expr) -> Any:
    return Less(x, y)


@elementwise("ge", "greater_equal", targets=(Tensor.__ge__,))
def ge(x: Expr, y: Expr) -> Any:
    return LessEqual(y, x)


@elementwise("le", "less_equal", targets=(Tensor.__le__,))
def le(x: Expr, y: Expr) -> Any:
    return LessEqual(x, y)


@elementwise("eq", targets=(Tensor.__eq__,))
def eq(x: Expr, y: Expr) -> Any:
    return Equal(x, y)


@elementwise("ne", "not_equal", targets=(Tensor.__ne__,))
def ne(x: Expr, y: Expr) -> Any:
    return 1 - Equal(x, y)


@elementwise("to", "float", "double", "type_as", "contiguous", "clone", "alias", "type")
def cast(x: Expr, *_: Any, **__: Any) -> Expr:
    return x
