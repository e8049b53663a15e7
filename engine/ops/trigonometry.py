"""Trigonometric and hyperbolic functions and their inverses, element by element."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Expr

from engine.notation import Equal, Fixed, Where
from engine.ops.pointwise import REALS
from engine.table import elementwise

UNIT = (-0.999, -0.5, 0.0, 0.5, 0.999)
ABOVE_ONE = (1.001, 1.5, 2.0, 100.0)


@elementwise("sin", probes=REALS)
def sin(x: Expr) -> Any:
    return sp.sin(x)


@elementwise("cos", probes=REALS)
def cos(x: Expr) -> Any:
    return sp.cos(x)


@elementwise("tan", probes=REALS)
def tan(x: Expr) -> Any:
    return sp.tan(x)


@elementwise("asin", "arcsin", probes=UNIT)
def asin(x: Expr) -> Any:
    return sp.asin(x)


@elementwise("acos", "arccos", probes=UNIT)
def acos(x: Expr) -> Any:
    return sp.acos(x)


@elementwise("atan", "arctan", probes=REALS)
def atan(x: Expr) -> Any:
    return sp.atan(x)


@elementwise("atan2", "arctan2", probes=REALS)
def atan2(y: Expr, x: Expr) -> Any:
    """At the origin torch takes both slopes as 0."""
    angle = sp.atan2(y, x)
    return Where(Equal(x, 0) * Equal(y, 0), Fixed(angle), angle)


@elementwise("sinh", probes=REALS)
def sinh(x: Expr) -> Any:
    return sp.sinh(x)


@elementwise("cosh", probes=REALS)
def cosh(x: Expr) -> Any:
    return sp.cosh(x)


@elementwise("asinh", "arcsinh", probes=REALS)
def asinh(x: Expr) -> Any:
    return sp.asinh(x)


@elementwise("acosh", "arccosh", probes=ABOVE_ONE)
def acosh(x: Expr) -> Any:
    return sp.acosh(x)


@elementwise("atanh", "arctanh", probes=UNIT)
def atanh(x: Expr) -> Any:
    return sp.atanh(x)


@elementwise("sinc", probes=REALS)
def sinc(x: Expr) -> Any:
    return Where(Equal(x, 0), 1, sp.sin(sp.pi * x) / (sp.pi * x))


@elementwise("deg2rad", probes=REALS)
def deg2rad(x: Expr) -> Any:
    return x * sp.pi / 180


@elementwise("rad2deg", probes=REALS)
def rad2deg(x: Expr) -> Any:
    return x * 180 / sp.pi
