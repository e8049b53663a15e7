"""Special functions, element by element: those that sympy can differentiate."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine import normal
from engine.errors import TraceError
from engine.notation import Equal, Less, LessEqual, Where
from engine.ops.choice import magnitude
from engine.ops.pointwise import POSITIVE, REALS
from engine.table import Definition, Operand, composite, elementwise, op, pointwise

SPECIAL: Any = torch.special
INSIDE = (1e-6, 0.25, 0.5, 0.75, 0.999)


@elementwise("erf", probes=REALS)
def erf(x: Expr) -> Any:
    return sp.erf(x)


@elementwise("erfc", probes=REALS)
def erfc(x: Expr) -> Any:
    return sp.erfc(x)


@elementwise("erfinv", probes=(-0.999, -0.5, 0.0, 0.5, 0.999))
def erfinv(x: Expr) -> Any:
    return sp.erfinv(x)


@elementwise("lgamma", "gammaln", probes=(0.5, 1.0, 2.0, 100.0))
def lgamma(x: Expr) -> Any:
    return sp.loggamma(x)


@elementwise("digamma", "psi", probes=(0.5, 1.0, 2.0, 100.0))
def digamma(x: Expr) -> Any:
    return sp.polygamma(0, x)


@op(targets=(torch.polygamma, SPECIAL.polygamma))
def polygamma(n: int, x: Operand) -> Definition:
    def element(e: Expr) -> Any:
        return sp.polygamma(n, e)

    return pointwise(element, x)


@op(targets=(torch.Tensor.polygamma,))
def polygamma_method(x: Operand, n: int) -> Definition:
    return polygamma(n, x)


@composite("mvlgamma", "multigammaln")
def mvlgamma(x: Any, p: int) -> Any:
    """The logarithm of the multivariate gamma function."""
    total = torch.lgamma(x)
    for j in range(1, p):
        total = total + torch.lgamma(x - j / 2)
    return total + p * (p - 1) / 4 * math.log(math.pi)


@elementwise("i0", targets=(SPECIAL.i0,), probes=REALS)
def i0(x: Expr) -> Any:
    return sp.besseli(0, x)


@elementwise(targets=(SPECIAL.i1,), probes=REALS)
def i1(x: Expr) -> Any:
    return sp.besseli(1, x)


@elementwise(targets=(SPECIAL.i0e,), probes=REALS)
def i0e(x: Expr) -> Any:
    return sp.exp(-magnitude(x)) * sp.besseli(0, x)


@elementwise(targets=(SPECIAL.i1e,), probes=REALS)
def i1e(x: Expr) -> Any:
    return sp.exp(-magnitude(x)) * sp.besseli(1, x)


@elementwise("ndtr", probes=REALS)
def ndtr(x: Expr) -> Any:
    return (1 + sp.erf(x / sp.sqrt(2))) / 2


@elementwise("log_ndtr", targets=(SPECIAL.log_ndtr,), probes=REALS)
def log_ndtr(x: Expr) -> Any:
    return normal.log_ndtr(x)


@elementwise("erfcx", targets=(SPECIAL.erfcx,), probes=REALS)
def erfcx(x: Expr) -> Any:
    return normal.erfcx(x)


@elementwise("ndtri", probes=INSIDE)
def ndtri(x: Expr) -> Any:
    return sp.sqrt(2) * sp.erfinv(2 * x - 1)


@elementwise("entr", probes=POSITIVE)
def entr(x: Expr) -> Any:
    return Where(Less(0, x), -x * sp.log(x), Where(Equal(x, 0), 0, -sp.oo))


@elementwise("xlog1py", probes=POSITIVE)
def xlog1py(x: Expr, y: Expr) -> Any:
    return x * sp.log(1 + y)


@elementwise("logit", probes=INSIDE)
def logit(x: Expr, eps: Expr | None = None) -> Any:
    """The inverse of sigmoid; with `eps`, of x clamped to [eps, 1 - eps]."""
    if eps is None:
        return sp.log(x / (1 - x))
    if not 0 <= eps <= sp.Rational(1, 2):
        raise TraceError(f"logit with eps={eps}: pass an eps between 0 and 1/2")
    low, high = sp.log(eps / (1 - eps)), sp.log((1 - eps) / eps)
    return Where(LessEqual(eps, x), Where(LessEqual(x, 1 - eps), sp.log(x / (1 - x)), high), low)
