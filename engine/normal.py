"""The normal distribution where its density and its integral vanish: erfcx and the logarithm of the integral, which are finite there.

torch has both, `torch.special.erfcx` and `torch.special.log_ndtr`; sympy has neither. Their derivatives are those of their
definitions, with `erfc(x)` as `exp(-x^2) erfcx(x)`, so that no exponential is left over another one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp
from sympy import Expr

from engine.notation import Head


class Normal(Head):
    """A function with a definition by erfc, which it is differentiated by."""

    @staticmethod
    def inner(x: Any) -> Any:
        """What the definition takes erfc of."""
        raise NotImplementedError

    @staticmethod
    def defined(u: Any) -> Any:
        """What it is, in sympy's own functions."""
        raise NotImplementedError

    def fdiff(self, argindex: int = 1) -> Expr:
        variable, slope = slope_of(type(self))
        return slope.xreplace({variable: self.args[0]})


class erfcx(Normal):  # noqa: N801 - functions are printed by the names of their classes, as sympy's are
    """`exp(x^2) erfc(x)`, positive, about `1 / (x sqrt(pi))` for a large x."""

    @staticmethod
    def inner(x: Any) -> Any:
        return x

    @staticmethod
    def defined(u: Any) -> Any:
        return sp.exp(u**2) * sp.erfc(u)

    def _eval_is_positive(self) -> bool:
        return True


class log_ndtr(Normal):  # noqa: N801
    """The logarithm of the standard normal distribution's integral up to x, about `-x^2 / 2` far below zero."""

    @staticmethod
    def inner(x: Any) -> Any:
        return -x / sp.sqrt(2)

    @staticmethod
    def defined(u: Any) -> Any:
        return sp.log(sp.erfc(u) / 2)

    def _eval_is_negative(self) -> bool:
        return True

    def _math(self, printer: Any) -> str:
        return rf"\log\Phi\left({printer._print(self.args[0])}\right)"


@cache
def slope_of(function: type[Normal]) -> tuple[sp.Dummy, Expr]:
    """A variable, and the derivative of a function at it."""
    x, u = sp.Dummy("x", real=True), sp.Dummy("u", real=True)
    outer: Any = function.defined(u).diff(u)
    outer = sp.expand(outer.xreplace({sp.erfc(u): erfcx(u) * sp.exp(-(u**2))}))
    return x, outer.xreplace({u: function.inner(x)}) * function.inner(x).diff(x)


__all__ = ["erfcx", "log_ndtr"]
