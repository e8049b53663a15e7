"""Arithmetic, powers, exponentials and logarithms, element by element: the scalar function, and nothing else."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.indexed import Indexed
from engine.notation import Equal, Less, LessEqual, Where
from engine.table import Definition, Opaque, Operand, broadcast_shape, elementwise, op, pointwise

REALS = (-300.0, -100.0, -1.0, -0.5, 0.0, 0.5, 1.0, 100.0, 300.0)
NONZERO = (-300.0, -100.0, -1.0, -0.5, 0.5, 1.0, 100.0, 300.0)
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


@op("div", "divide", "true_divide", targets=(Tensor.__truediv__,), probes=REALS, kind="elementwise")
def div(x: Any, y: Any, *, rounding_mode: str | None = None) -> Definition | Opaque:
    """Where the quotient is rounded, torch takes its derivative as 0."""
    if rounding_mode is not None:
        return Opaque(broadcast_shape(*[a.shape for a in (x, y) if isinstance(a, Operand)]))
    return pointwise(quotient, x, y)


def quotient(x: Expr, y: Expr) -> Expr:
    """x / y."""
    return x / y


@elementwise(targets=(Tensor.__rtruediv__, Tensor.__rdiv__), probes=NONZERO)
def rdiv(x: Expr, y: Expr) -> Expr:
    return y / x


def varies(e: Any) -> bool:
    """Whether an argument is a tensor's element rather than a number or a size."""
    return sp.sympify(e).has(Indexed)


@elementwise("pow", "float_power", targets=(Tensor.__pow__,), probes=POSITIVE)
def power(x: Expr, y: Expr) -> Any:
    """At 0 to the power of a tensor, torch takes the slope in the exponent as 0 where the value is finite."""
    if not varies(y):
        return x**y
    if not varies(x):
        return rpow(y, x)
    at_zero = Where(Equal(y, 0), 1, Where(Equal(y, 1), x, Where(Less(y, 1), sp.sqrt(x), 0)))
    return Where(Equal(x, 0) * LessEqual(0, y), at_zero, x**y)


@elementwise(targets=(Tensor.__rpow__,), probes=REALS)
def rpow(x: Expr, y: Expr) -> Any:
    if varies(y):
        return power(y, x)
    if y.is_nonpositive:
        raise TraceError(f"the power of the base {y} has no real derivative; use a positive base")
    return y**x


@elementwise("neg", "negative", targets=(Tensor.__neg__,), probes=REALS)
def neg(x: Expr) -> Expr:
    return -x


@elementwise("positive", targets=(Tensor.__pos__,), probes=REALS, view=True)
def positive(x: Expr) -> Expr:
    return x


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


@elementwise("exp2", probes=REALS)
def exp2(x: Expr) -> Any:
    return TWO**x


@elementwise("expm1", probes=REALS)
def expm1(x: Expr) -> Any:
    return sp.exp(x) - 1


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


@elementwise("logaddexp", probes=REALS)
def logaddexp(x: Expr, y: Expr) -> Any:
    return sp.log(sp.exp(x) + sp.exp(y))


@elementwise("logaddexp2", probes=REALS)
def logaddexp2(x: Expr, y: Expr) -> Any:
    return sp.log(sp.exp(x * sp.log(2)) + sp.exp(y * sp.log(2))) / sp.log(2)


@elementwise("xlogy", probes=POSITIVE)
def xlogy(x: Expr, y: Expr) -> Any:
    return Where(Equal(x, 0) * LessEqual(y, 0), 0, x * sp.log(y))


@elementwise("ldexp", probes=REALS)
def ldexp(x: Expr, y: Expr) -> Any:
    return x * TWO**y


@elementwise("hypot", probes=REALS)
def hypot(x: Expr, y: Expr) -> Any:
    return sp.sqrt(x**2 + y**2)


@elementwise("lerp", probes=REALS)
def lerp(x: Expr, end: Expr, weight: Expr) -> Expr:
    return x + weight * (end - x)


@elementwise("addcmul", probes=REALS)
def addcmul(x: Expr, tensor1: Expr, tensor2: Expr, *, value: Expr = ONE) -> Expr:
    return x + value * tensor1 * tensor2


@elementwise("addcdiv", probes=REALS)
def addcdiv(x: Expr, tensor1: Expr, tensor2: Expr, *, value: Expr = ONE) -> Expr:
    return x + value * tensor1 / tensor2


@elementwise("tanh", probes=REALS)
def tanh(x: Expr) -> Any:
    return sp.tanh(x)


@elementwise(targets=(torch.ops.aten.tanh_backward, torch.ops.aten.tanh_backward.default), probes=REALS)
def tanh_backward(grad_output: Expr, output: Expr) -> Any:
    """What emitted code calls, so that it can be traced in its turn."""
    return grad_output * (1 - output**2)


@elementwise("sigmoid", "expit", probes=REALS)
def sigmoid(x: Expr) -> Any:
    return 1 / (1 + sp.exp(-x))


@elementwise(targets=(torch.ops.aten.sigmoid_backward, torch.ops.aten.sigmoid_backward.default), probes=REALS)
def sigmoid_backward(grad_output: Expr, output: Expr) -> Any:
    """What emitted code calls, so that it can be traced in its turn."""
    return grad_output * output * (1 - output)


@elementwise("relu", probes=REALS)
def relu(x: Expr) -> Any:
    return Where(LessEqual(x, 0), 0, x)
