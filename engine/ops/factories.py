"""Constants that keep their structure: `eye` is a Kronecker delta, `ones / n` is 1/n, `arange` is the index itself."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Expr

from engine.notation import Delta
from engine.ops.layout import flat
from engine.sizes import expression
from engine.table import Definition, Operand, define, indices_of, op, value_of


def constant(shape: tuple[Expr, ...], value: Any) -> Definition:
    return define(shape, indices_of(shape), value)


def sized(size: tuple[Any, ...]) -> tuple[Expr, ...]:
    return tuple(expression(s) for s in flat(size))


@op("ones", kind="factory")
def ones(*size: Any, **_: Any) -> Definition:
    return constant(sized(size), 1)


@op("zeros", kind="factory")
def zeros(*size: Any, **_: Any) -> Definition:
    return constant(sized(size), 0)


@op("full", kind="factory")
def full(size: Any, fill_value: Any, **_: Any) -> Definition:
    return constant(sized(tuple(size)), expression(fill_value))


@op("ones_like", "new_ones")
def ones_like(x: Operand, *size: Any, **_: Any) -> Definition:
    return constant(sized(size) if size else x.shape, 1)


@op("zeros_like", "new_zeros")
def zeros_like(x: Operand, *size: Any, **_: Any) -> Definition:
    return constant(sized(size) if size else x.shape, 0)


@op("full_like")
def full_like(x: Operand, fill_value: Any, **_: Any) -> Definition:
    return constant(x.shape, expression(fill_value))


@op("eye", kind="factory")
def eye(n: Any, m: Any = None, **_: Any) -> Definition:
    shape = sized((n, n if m is None else m))
    at = indices_of(shape)
    return define(shape, at, Delta(*at))


@op("arange", kind="factory")
def arange(start: Any, end: Any = None, step: Any = 1, **_: Any) -> Definition:
    first, last = (sp.S.Zero, expression(start)) if end is None else (expression(start), expression(end))
    by = expression(step)
    length = sp.cancel((last - first) / by)
    if not length.is_integer:
        length = sp.Integer(-(-value_of(last - first) // value_of(by)))
    at = indices_of((length,))
    return define((length,), at, first + by * at[0])
