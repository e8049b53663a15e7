"""Constants that keep their structure: `eye` is a Kronecker delta, `ones / n` is 1/n, `arange` is the index itself."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.notation import Delta, Quo
from engine.ops.layout import flat
from engine.sizes import expression
from engine.table import Definition, Opaque, Operand, composite, define, equal, indices_of, op, value_of


def constant(shape: tuple[Expr, ...], value: Any) -> Definition:
    """The same number everywhere."""
    return define(shape, indices_of(shape), value)


def sized(size: tuple[Any, ...]) -> tuple[Expr, ...]:
    """A shape given as `(2, 3)` or `2, 3`."""
    return tuple(expression(s) for s in flat(size))


def wanted(args: tuple[Any, ...], size: Any) -> tuple[Expr, ...]:
    """A shape given by position or as `size=`."""
    return sized(args if size is None else tuple(size))


@op("ones", kind="factory")
def ones(*args: Any, size: Any = None, **_: Any) -> Definition:
    return constant(wanted(args, size), 1)


@op("zeros", kind="factory")
def zeros(*args: Any, size: Any = None, **_: Any) -> Definition:
    return constant(wanted(args, size), 0)


@op("full", kind="factory")
def full(size: Any, fill_value: Any, *, dtype: Any = None, **_: Any) -> Definition:
    return constant(sized(tuple(size)), scalar(fill_value, dtype))


def scalar(value: Any, dtype: torch.dtype | None) -> Any:
    """A number as a tensor of the dtype holds it, or the element of a tensor that holds one."""
    if isinstance(value, Operand):
        return value.element(*[sp.S.Zero] * value.rank)
    if dtype == torch.bool:
        return expression(int(bool(value)))
    whole = dtype is not None and not dtype.is_floating_point and isinstance(value, float)
    return expression(int(value) if whole else value)


@op("ones_like", kind="like")
def ones_like(x: Operand, **_: Any) -> Definition:
    return constant(x.shape, 1)


@op("zeros_like", kind="like")
def zeros_like(x: Operand, **_: Any) -> Definition:
    return constant(x.shape, 0)


@op("full_like", kind="like")
def full_like(x: Operand, fill_value: Any, *, dtype: Any = None, **_: Any) -> Definition:
    return constant(x.shape, scalar(fill_value, dtype or x.dtype))


@op("fill")
def fill(x: Operand, value: Any) -> Definition:
    return constant(x.shape, scalar(value, x.dtype))


@op("new_ones", kind="like")
def new_ones(x: Operand, *args: Any, size: Any = None, **_: Any) -> Definition:
    return constant(wanted(args, size), 1)


@op("new_zeros", kind="like")
def new_zeros(x: Operand, *args: Any, size: Any = None, **_: Any) -> Definition:
    return constant(wanted(args, size), 0)


@op("new_full", kind="like")
def new_full(x: Operand, size: Any, fill_value: Any, *, dtype: Any = None, **_: Any) -> Definition:
    return constant(sized(tuple(size)), scalar(fill_value, dtype or x.dtype))


@composite("new_tensor")
def new_tensor(x: Any, data: Any, *, dtype: Any = None, **_: Any) -> Any:
    return torch.tensor(data, dtype=dtype or x.dtype)


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
        length = sp.ceiling(length) if length.is_number else sp.Integer(-(-value_of(last - first) // value_of(by)))
    at = indices_of((length,))
    return define((length,), at, first + by * at[0])


def triangle_places(row: Any, col: Any, offset: int, upper: bool) -> Opaque:
    """Two rows of places. How many there are is known of a square up to its diagonal, or next to it; other sizes get fixed."""
    n, m = expression(row), expression(col)
    beyond = offset if upper else -offset
    if n == m and beyond in (0, 1):
        return Opaque((Integer(2), cast("Expr", Quo(n * (n - 2 * beyond + 1), 2))))
    rows, columns = (int(equal(k, Integer(value_of(k)))) for k in (n, m))
    inside = (j - i >= offset if upper else j - i <= offset for i in range(rows) for j in range(columns))
    return Opaque((Integer(2), Integer(sum(inside))))


@op("triu_indices", kind="factory")
def triu_indices(row: Any, col: Any, offset: int = 0, **_: Any) -> Opaque:
    return triangle_places(row, col, offset, upper=True)


@op("tril_indices", kind="factory")
def tril_indices(row: Any, col: Any, offset: int = 0, **_: Any) -> Opaque:
    return triangle_places(row, col, offset, upper=False)


@op("linspace", kind="factory")
def linspace(start: Any, end: Any, steps: Any, **_: Any) -> Definition:
    first, last, count = (expression(v) for v in (start, end, steps))
    at = indices_of((count,))
    return define((count,), at, first if count == 1 else first + (last - first) * at[0] / (count - 1))
