"""Activations of torch.nn, element by element, with torch's slopes at their kinks."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Less, LessEqual, Where
from engine.ops.choice import magnitude
from engine.ops.pointwise import ONE, REALS
from engine.sizes import exact
from engine.table import Definition, Operand, define, elementwise, halves, indices_of, op

F = torch.nn.functional
HALF, SIX, TWENTY, THIRD = sp.Rational(1, 2), sp.Integer(6), sp.Integer(20), sp.Rational(1, 3)
SLOPE, LOWER = exact(0.01), exact(0.125)
SELU_SCALE = exact(1.0507009873554804934193349852946)
SELU_SLOPE = exact(1.0507009873554804934193349852946 * 1.6732632423543772848170429916717)
KINKS = (-20.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 20.0, 300.0)


@elementwise(targets=(torch.threshold, F.threshold), probes=KINKS)
def threshold(x: Expr, threshold: Expr, value: Expr) -> Any:
    return Where(Less(threshold, x), x, value)


@elementwise(targets=(F.hardtanh,), probes=KINKS)
def hardtanh(x: Expr, min_val: Expr = -ONE, max_val: Expr = ONE, **_: Any) -> Any:
    """At a bound the slope is 0 (and 1 in `clamp`)."""
    return Where(LessEqual(x, min_val), min_val, Where(LessEqual(max_val, x), max_val, x))


@elementwise(targets=(F.relu6,), probes=KINKS)
def relu6(x: Expr) -> Any:
    return hardtanh(x, sp.S.Zero, SIX)


@elementwise(targets=(F.leaky_relu,), probes=KINKS)
def leaky_relu(x: Expr, negative_slope: Expr = SLOPE) -> Any:
    return Where(Less(0, x), x, negative_slope * x)


@elementwise(targets=(F.elu,), probes=KINKS)
def elu(x: Expr, alpha: Expr = ONE) -> Any:
    return Where(LessEqual(x, 0), alpha * (sp.exp(x) - 1), x)


@elementwise("selu", probes=KINKS)
def selu(x: Expr) -> Any:
    return Where(LessEqual(x, 0), SELU_SLOPE * (sp.exp(x) - 1), SELU_SCALE * x)


@elementwise("celu", probes=KINKS)
def celu(x: Expr, alpha: Expr = ONE) -> Any:
    return Where(LessEqual(x, 0), alpha * (sp.exp(x / alpha) - 1), x)


@elementwise(targets=(F.softplus,), probes=KINKS)
def softplus(x: Expr, beta: Expr = ONE, threshold: Expr = TWENTY) -> Any:
    """Linear where beta*x exceeds the threshold."""
    return Where(Less(threshold, beta * x), x, sp.log(1 + sp.exp(beta * x)) / beta)


@elementwise(targets=(F.softsign,), probes=KINKS)
def softsign(x: Expr) -> Any:
    return x / (1 + magnitude(x))


@elementwise(targets=(F.tanhshrink,), probes=KINKS)
def tanhshrink(x: Expr) -> Any:
    return x - sp.tanh(x)


@elementwise(targets=(torch.hardshrink, torch.Tensor.hardshrink, F.hardshrink), probes=KINKS)
def hardshrink(x: Expr, lambd: Expr = HALF) -> Any:
    return Where(LessEqual(-lambd, x) * LessEqual(x, lambd), 0, x)


@elementwise(targets=(F.softshrink,), probes=KINKS)
def softshrink(x: Expr, lambd: Expr = HALF) -> Any:
    return Where(Less(lambd, x), x - lambd, Where(Less(x, -lambd), x + lambd, 0))


@elementwise(targets=(F.hardsigmoid,), probes=KINKS)
def hardsigmoid(x: Expr) -> Any:
    return Where(LessEqual(x, -3), 0, Where(LessEqual(3, x), 1, x / 6 + HALF))


@elementwise(targets=(F.hardswish,), probes=KINKS)
def hardswish(x: Expr) -> Any:
    return Where(LessEqual(x, -3), 0, Where(LessEqual(3, x), x, x * (x + 3) / 6))


@elementwise(targets=(F.logsigmoid,), probes=REALS)
def logsigmoid(x: Expr) -> Any:
    return -sp.log(1 + sp.exp(-x))


@elementwise(targets=(F.silu,), probes=REALS)
def silu(x: Expr) -> Any:
    return x / (1 + sp.exp(-x))


@elementwise(targets=(F.mish,), probes=KINKS)
def mish(x: Expr) -> Any:
    return x * sp.tanh(sp.log(1 + sp.exp(x)))


@elementwise(targets=(F.gelu,), probes=REALS)
def gelu(x: Expr, approximate: str = "none") -> Any:
    return gelu_of(x, approximate)


def gelu_of(x: Expr, approximate: str) -> Any:
    """The definition: x times the normal distribution's share below it, or the approximation of that by a tanh."""
    if approximate == "tanh":
        return x * (1 + sp.tanh(sp.sqrt(2 / sp.pi) * (x + exact(0.044715) * x**3))) / 2
    return x * (1 + sp.erf(x / sp.sqrt(2))) / 2


@elementwise(targets=(torch.ops.aten.gelu_backward, torch.ops.aten.gelu_backward.default), probes=REALS)
def gelu_backward(grad_output: Expr, x: Expr, *, approximate: str = "none") -> Any:
    """What emitted code calls, so that it can be traced in its turn."""
    at = sp.Dummy(real=True)
    return grad_output * sp.diff(gelu_of(at, approximate), at).xreplace({at: x})


@op(targets=(F.glu,))
def glu(x: Operand, dim: int = -1) -> Definition:
    """The first half of a dimension times the sigmoid of the second."""
    shape, at, first, second = halves(x, dim)
    return define(shape, at, first / (1 + sp.exp(-second)))


@op("prelu")
def prelu(x: Operand, weight: Operand) -> Definition:
    """One slope for all, or one per channel (dimension 1)."""
    at = indices_of(x.shape)
    channel = weight.rank == 1 and weight.shape[0] != 1
    slope = weight.element(at[1 if x.rank > 1 else 0]) if channel else weight.element(*[sp.S.Zero] * weight.rank)
    return define(x.shape, at, Where(Less(0, x.element(*at)), x.element(*at), slope * x.element(*at)))


@elementwise(targets=(F.rrelu,), probes=KINKS)
def rrelu(x: Expr, lower: Expr = LOWER, upper: Expr = THIRD, training: bool = False) -> Any:
    if training:
        raise TraceError("rrelu in training draws its slopes; use leaky_relu, or model.eval()")
    return leaky_relu(x, (lower + upper) / 2)
