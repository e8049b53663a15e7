"""Functions that numpy has not, through mpmath in longdoubles: values, and slopes for complex steps, each computed once.

A step leaves real parts as they are, so that the next one from the same values asks for the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

Array = Any


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a function at an array of arguments: its values, and slopes in each argument where they were asked for."""

    values: Array
    slopes: tuple[Array, ...]
    sloped: tuple[Array, ...]


class FromMpmath:
    """Functions of arrays of longdoubles or of complex ones, with `digits` digits inside."""

    def __init__(self, digits: int) -> None:
        self.digits = digits
        self._known: dict[Hashable, _Known] = {}

    def __call__(
        self, name: str, function: Callable[..., Any], slope: Callable[[Sequence[Any], int], Any], args: Sequence[Array]
    ) -> Array:
        """`function` of real parts, and `slope(arguments, k)` times what is imaginary in the k-th; nan stays nan.

        `name` tells functions apart. The result has the arguments' common dtype.
        """
        dtype = np.result_type(*args)
        args = cast("list[Array]", np.broadcast_arrays(*args))
        reals = [a.real for a in args]
        known = self._at(name, function, reals)
        if dtype.kind != "c":
            return known.values.astype(dtype)
        imaginary = np.zeros(known.values.shape, dtype=np.longdouble)
        for k, a in enumerate(args):
            moved = a.imag != 0
            new = moved & ~known.sloped[k] & ~np.isnan(known.values)
            with mpmath.workdps(self.digits):
                for at in zip(*np.nonzero(new), strict=True) if new.ndim else [()] * int(new):
                    known.slopes[k][at] = _rounded(slope([exactly(r[at]) for r in reals], k))
            known.sloped[k][new] = True
            part = np.where(moved, known.slopes[k] * a.imag, 0)
            imaginary = imaginary + np.where(moved & np.isnan(known.values), np.nan, part)
        out = np.empty(known.values.shape, dtype=dtype)
        out.real, out.imag = known.values, imaginary
        return out

    def _at(self, name: str, function: Callable[..., Any], reals: Sequence[Array]) -> _Known:
        key = (name, reals[0].shape, *(_bytes(r) for r in reals))
        if key not in self._known:
            values = np.empty(reals[0].shape, dtype=np.longdouble)
            with mpmath.workdps(self.digits):
                for at in np.ndindex(*values.shape):
                    values[at] = _rounded(function(*[exactly(r[at]) for r in reals]))
            slopes = tuple(np.full(values.shape, np.nan, dtype=np.longdouble) for _ in reals)
            self._known[key] = _Known(values, slopes, tuple(np.zeros(values.shape, dtype=bool) for _ in reals))
        return self._known[key]


def _bytes(a: Array) -> bytes:
    """The numbers of an array as bytes; a longdouble's own have padding."""
    mantissa, exponent = np.frexp(a)
    high = mantissa.astype(np.float64)
    with np.errstate(invalid="ignore"):
        low = (mantissa - high).astype(np.float64)
    return bytes(high.tobytes() + low.tobytes() + exponent.tobytes())


def exactly(x: Any) -> Any:
    """A float or longdouble as an mpmath number, without rounding."""
    if not np.isfinite(x):
        return mpmath.mpf(float(x))
    mantissa, exponent = np.frexp(x)
    high = float(mantissa)
    return mpmath.ldexp(mpmath.mpf(high) + mpmath.mpf(float(mantissa - high)), int(exponent))


def _rounded(x: Any) -> Any:
    """An mpmath number as a longdouble."""
    if not mpmath.isfinite(x):
        return np.longdouble(float(x))
    mantissa, exponent = mpmath.frexp(x)
    high = float(mantissa)
    return np.ldexp(np.longdouble(high) + np.longdouble(float(mantissa - high)), int(exponent))
