"""The ops of the scalar engine: value and local derivatives of each, as functions of floats, from the op table's rows.

A row is applied to tensors without dimensions, whose elements become sympy symbols; sympy differentiates what the row
returns, and both become Python functions. No derivative is typed here either.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from engine.errors import InputError
from engine.table import TABLE, Operand, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sympy import Expr, Symbol

    from engine.table import Definition


def _less(a: float, b: float) -> float:
    return float(a < b)


def _less_equal(a: float, b: float) -> float:
    return float(a <= b)


def _where(condition: float, a: float, b: float) -> float:
    return a if condition else b


_HEADS: dict[str, Callable[..., float]] = {"Less": _less, "LessEqual": _less_equal, "Where": _where}


class Formula:
    """Expressions in some symbols as one function of floats, with torch's inf and nan where Python would raise."""

    def __init__(self, symbols: Sequence[Symbol], outputs: Sequence[Expr]) -> None:
        self.symbols, self.outputs = list(symbols), list(outputs)
        self._plain = sp.lambdify(self.symbols, self.outputs, [_HEADS, "math"])

    @cached_property
    def _ieee(self) -> Callable[..., list[Any]]:
        return sp.lambdify(self.symbols, self.outputs, [_HEADS, "numpy"])

    def __call__(self, *at: float) -> tuple[float, ...]:
        try:
            return tuple([float(v) for v in self._plain(*at)])
        except (ArithmeticError, ValueError, TypeError):  # a pole, an overflow, or a root of a negative number
            with np.errstate(all="ignore"):
                found = self._ieee(*[np.float64(v) for v in at])
            return tuple([math.nan if isinstance(v, complex) else float(v) for v in found])


@dataclass(frozen=True, eq=False)
class Rule:
    """One op: how it is written, its formulas, and the same op on tensors."""

    sign: str
    value: Formula
    partials: Formula
    tensor: Callable[..., Any]


def _rule(sign: str, target: Any, arity: int, tensor: Callable[..., Any], *constants: float) -> Rule:
    """The op whose row is that of the torch callable `target`, applied to `arity` values and then to the constants."""
    operands = [Operand(k, (), torch.float64) for k in range(arity)]
    (definition,) = TABLE[target](Scope({}), [*operands, *constants], {})
    symbols = [sp.Symbol(f"x{k}", real=True) for k in range(arity)]
    elements = {o.element(): s for o, s in zip(operands, symbols, strict=True)}
    expr = cast("Definition", definition).expr.xreplace(elements)
    return Rule(sign, Formula(symbols, [expr]), Formula(symbols, [sp.diff(expr, s) for s in symbols]), tensor)


def _quotient(a: Any, b: Any) -> Any:
    return a / b


_OPS: dict[str, tuple[Any, int, Callable[..., Any]]] = {
    "+": (Tensor.add, 2, operator.add),
    "-": (Tensor.sub, 2, operator.sub),
    "*": (Tensor.mul, 2, operator.mul),
    "/": (Tensor.div, 2, _quotient),
    "neg": (Tensor.neg, 1, operator.neg),
    "ReLU": (Tensor.relu, 1, Tensor.relu),
    "tanh": (Tensor.tanh, 1, Tensor.tanh),
    "exp": (Tensor.exp, 1, Tensor.exp),
    "log": (Tensor.log, 1, Tensor.log),
}


@cache
def rule(sign: str) -> Rule:
    """The op written `sign`: one of + - * / neg ReLU tanh exp log."""
    return _rule(sign, *_OPS[sign])


def power(exponent: float) -> Rule:
    """x ** exponent, for a fixed exponent. Raises InputError for one that is infinite or nan."""
    return _power(_constant(exponent, "an exponent"))


def exponential(base: float) -> Rule:
    """base ** x, for a fixed base. Raises InputError for one that is not positive and finite."""
    if base <= 0:
        raise InputError(f"{base} ** Value has no real derivative: the base must be positive")
    return _exponential(_constant(base, "a base"))


def _constant(number: float, what: str) -> float:
    """An int where that is the same number, so that x**2 and x**2.0 are one op and print alike."""
    if not math.isfinite(number):
        raise InputError(f"{what} of a power must be a finite number, got {number}")
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else float(number)


@lru_cache(maxsize=4096)
def _power(exponent: float) -> Rule:
    def tensor(x: Any) -> Any:
        return x**exponent

    return _rule(f"**{exponent}", Tensor.pow, 1, tensor, exponent)


@lru_cache(maxsize=4096)
def _exponential(base: float) -> Rule:
    def tensor(x: Any) -> Any:
        return base**x

    return _rule(f"{base}**", Tensor.__rpow__, 1, tensor, base)
