"""Rounding and remainders. What is rounded is constant between the steps, and torch takes its derivative as 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.notation import Floor, Sign
from engine.ops.choice import magnitude
from engine.ops.pointwise import REALS
from engine.table import Opaque, Operand, broadcast_shape, elementwise, op

if TYPE_CHECKING:
    from sympy import Expr

Tensor = torch.Tensor


def whole(x: Expr) -> Any:
    """x without its fraction, towards 0."""
    return Sign(x) * Floor(magnitude(x))


@elementwise("floor", probes=REALS)
def floor(x: Expr) -> Any:
    return Floor(x)


@elementwise("ceil", probes=REALS)
def ceil(x: Expr) -> Any:
    return -Floor(-x)


@elementwise("trunc", "fix", probes=REALS)
def trunc(x: Expr) -> Any:
    return whole(x)


@elementwise("frac", probes=REALS)
def frac(x: Expr) -> Any:
    return x - whole(x)


@op("round")
def rounded(x: Operand, *, decimals: int = 0) -> Opaque:
    """Halves go to the even neighbour."""
    return Opaque(x.shape)


@op("heaviside")
def heaviside(x: Any, values: Any) -> Opaque:
    """torch has no derivative of it."""
    return Opaque(broadcast_shape(*[a.shape for a in (x, values) if isinstance(a, Operand)]))


@op("floor_divide", targets=(Tensor.__floordiv__, Tensor.__rfloordiv__))
def floor_divide(x: Any, y: Any) -> Opaque:
    return Opaque(broadcast_shape(*[a.shape for a in (x, y) if isinstance(a, Operand)]))


@elementwise("remainder", targets=(Tensor.__mod__,), probes=REALS)
def remainder(x: Expr, y: Expr) -> Any:
    """The remainder that has the sign of the divisor."""
    return x - y * Floor(x / y)


@elementwise(targets=(Tensor.__rmod__,), probes=REALS)
def rmod(x: Expr, y: Expr) -> Any:
    return remainder(y, x)


@elementwise("fmod", probes=REALS)
def fmod(x: Expr, y: Expr) -> Any:
    """The remainder that has the sign of the dividend."""
    return x - y * whole(x / y)
