"""The kinds of numbers that index notation can be evaluated in: float64, longdouble, complex longdouble, mpmath.

Complex numbers are for derivatives by a complex step: what compares or rounds looks at the real part, and a function
outside of its real domain is nan, as it is in torch. The step is so small that its square vanishes; what was not moved
by it stays real, so that infinities and nans elsewhere do not reach the imaginary parts.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp

from engine.errors import InputError
from engine.frommpmath import FromMpmath, exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Array = Any
"""A numpy array: of floats, of complex numbers, of integers and truth values, or of mpmath's numbers as objects."""

_where = cast("Callable[..., Any]", np.where)

FLOAT_DIGITS = 30
"""Digits at which mpmath stands in for what numpy has not: more than a longdouble holds."""

REMEMBERED = 1 << 16
"""Values of functions in many digits that are kept, some 20 MB of them."""


def is_integral(a: Array) -> bool:
    """Whether an array holds truth values or integers: what counts and indexes rather than measures."""
    return a.dtype.kind in "biu"


class Arithmetic:
    """Numbers of one kind, as numpy arrays of one dtype."""

    def __init__(self, name: str, dtype: Any, digits: int) -> None:
        self.name, self.digits = name, digits
        self.is_complex = np.dtype(dtype).kind == "c"
        self.is_mp = np.dtype(dtype).kind == "O"
        self.dtype = np.dtype(np.longdouble if self.is_complex else dtype)
        self._from_mpmath = FromMpmath(FLOAT_DIGITS)

    # -- in and out --------------------------------------------------------------------------------------------

    def lift(self, a: Any) -> Array:
        """An array of any numbers as an array of this kind; real ones stay real."""
        a = np.asarray(a)
        if not self.is_mp:
            dtype = np.dtype(np.clongdouble) if self.is_complex and a.dtype.kind == "c" else self.dtype
            return a if a.dtype == dtype else a.astype(dtype)
        return a if a.dtype.kind == "O" else _to_mp(a)

    def constant(self, e: sp.Expr) -> Array:
        """A sympy number, correctly rounded."""
        if e in (sp.S.Infinity, sp.S.NegativeInfinity, sp.S.NaN, sp.S.ComplexInfinity):
            special = {sp.S.Infinity: math.inf, sp.S.NegativeInfinity: -math.inf}.get(e, math.nan)
            return self.lift(np.asarray(special))
        if self.dtype == np.float64:
            return np.asarray(float(e))
        if self.is_mp:
            return _object(
                mpmath.mpf(e.p) / e.q if isinstance(e, sp.Rational) else mpmath.mpf(str(e.evalf(self.digits + 5)))
            )
        return np.asarray(np.longdouble(str(e.evalf(FLOAT_DIGITS))))

    def real(self, a: Array) -> Array:
        """The real part, an array of ordered numbers; what is left of the step's square is 0."""
        if a.dtype.kind == "O":
            least = mpmath.mpf(10) ** (-12 * self.digits)

            def ordered(z: Any) -> Any:
                return z.real if isinstance(z, mpmath.mpf) or abs(z.real) >= least else mpmath.mpf(0)

            return _apply(ordered, a)
        return a.real if a.dtype.kind == "c" else a

    def imag(self, a: Array) -> Array:
        """The imaginary part, 0 for real numbers."""
        if a.dtype.kind == "O":
            return _apply(_imaginary, a)
        return a.imag if a.dtype.kind == "c" else np.zeros_like(a)

    def moved(self, real: Array, imag: Array) -> Array:
        """Numbers of a real and an imaginary part; real ones where the latter is zero everywhere."""
        if not np.any(imag != 0):
            return real
        if self.is_mp:
            return _apply(mpmath.mpc, real, imag)
        out = np.empty(np.broadcast_shapes(real.shape, imag.shape), dtype=np.clongdouble)
        out.real, out.imag = real, imag
        return out

    def to_float(self, a: Array) -> Array:
        """The real part rounded to float64; integers and truth values as they are."""
        return a if is_integral(a) else self.real(a).astype(np.float64)

    @property
    def step(self) -> Any:
        """An imaginary step whose square vanishes beside one, at any magnitude that is met."""
        return mpmath.mpc(0, mpmath.mpf(10) ** (-8 * self.digits)) if self.is_mp else np.longdouble("1e-2480") * 1j

    # -- functions ---------------------------------------------------------------------------------------------

    def apply(self, name: str, args: list[Array], fallback: Callable[..., Any]) -> Array:
        """The function that sympy calls `name`. `fallback` computes one element by mpmath."""
        given = [self.lift(a) for a in args]
        if name == "atan2":
            return self._atan2(given[0], given[1])
        if self.is_mp:
            return _apply(_mpmath_of(name, fallback), *given)
        plain = _NUMPY.get(name)
        if plain is not None:
            out = plain(*given)
            if any(a.dtype.kind == "c" for a in given):
                outside = np.isnan(plain(*[a.real for a in given]))
                out = _where(outside, _nan(*given), out)
            return out
        if name in ("erf", "erfc") and self.dtype == np.float64:
            return _apply(getattr(math, name), given[0]).astype(np.float64)
        function = _REAL.get(name, fallback)

        def slope(at: Sequence[Any], k: int) -> Any:
            return _slope(function, tuple(at), k, mpmath.mp.prec)

        return self._from_mpmath(name, _guarded(function, function), slope, given)

    def power(self, x: Array, y: Array) -> Array:
        """`x**y`; a negative base is nan unless the exponent is an integer."""
        if is_integral(x) and is_integral(y) and not np.any(y < 0):
            return np.power(_counted(x), _counted(y))
        if y.ndim == 0 and is_integral(y) and abs(int(y)) <= 64:
            return self._integer_power(self.lift(x), int(y))
        x, y = self.lift(x), self.lift(y)
        if self.is_mp:
            return _apply(_mp_power, x, y)
        if any(a.dtype.kind == "c" for a in (x, y)):
            return _complex_power(x.astype(np.clongdouble), y.astype(np.clongdouble))
        return np.power(x, y)

    def _integer_power(self, x: Array, n: int) -> Array:
        if n < 0:
            return self.reciprocal(self._integer_power(x, -n))
        out, square = self.lift(np.ones(x.shape, dtype=np.int64)), x
        while n:
            out = out * square if n & 1 else out
            n >>= 1
            square = square * square if n else square
        return out

    def times(self, x: Array, y: Array) -> Array:
        """`x*y`; a real factor leaves infinities of a complex one as they are."""
        x, y = np.asarray(x), np.asarray(y)  # numpy hands single objects back without their array
        if x.dtype.kind == "c" and y.dtype.kind != "c":
            x, y = y, x
        if y.dtype.kind != "c" or x.dtype.kind == "c":
            return x * y
        out = np.empty(np.broadcast_shapes(x.shape, y.shape), dtype=y.dtype)
        out.real, out.imag = x * y.real, x * y.imag
        return out

    def over(self, x: Array, y: Array) -> Array:
        """`x/y`, with IEEE's infinities at 0."""
        if self.is_mp:
            return _apply(_mp_quotient, x, y)
        if y.dtype.kind == "c":
            return _where(y == 0, self.times(x, self.reciprocal(y)), x / y)
        if x.dtype.kind != "c":
            return x / y
        out = np.empty(np.broadcast_shapes(x.shape, y.shape), dtype=x.dtype)
        out.real, out.imag = x.real / y, x.imag / y
        return out

    def reciprocal(self, x: Array) -> Array:
        """1/x, infinite at 0."""
        if self.is_mp:
            return _apply(_mp_reciprocal, x)
        return _where(x == 0, np.inf, 1 / x) if x.dtype.kind == "c" else 1 / x

    def sqrt(self, x: Array) -> Array:
        """The square root, nan below 0."""
        return self.apply("sqrt", [x], mpmath.sqrt)

    def _atan2(self, y: Array, x: Array) -> Array:
        if self.is_mp:
            return _apply(_mp_atan2, y, x)
        if all(a.dtype.kind != "c" for a in (x, y)):
            return np.arctan2(y, x)
        near = np.abs(x.real) >= np.abs(y.real)
        quotient = _where(near, y / x, -x / y)
        angle = np.arctan(quotient)
        return angle + (np.arctan2(y.real, x.real) - angle.real)


def arithmetic(number: str | int) -> Arithmetic:
    """The arithmetic of a name: "float64", "longdouble", "complex" (of longdoubles), or a number of decimal digits."""
    if isinstance(number, int):
        return Arithmetic(f"{number} digits", np.object_, number)
    dtypes = {"float64": np.float64, "longdouble": np.longdouble, "complex": np.clongdouble}
    if number not in dtypes:
        raise InputError(f"number={number!r} is none of {', '.join(map(repr, dtypes))}, nor a number of digits")
    return Arithmetic(number, dtypes[number], FLOAT_DIGITS)


# -- numpy ------------------------------------------------------------------------------------------------------

_NUMPY: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
}


def _nan(*args: Array) -> Array:
    """nan, with an imaginary part of nan where an argument was moved."""
    moved = np.zeros((), dtype=bool)
    for a in args:
        moved = moved | (a.imag != 0)
    return _where(moved, np.clongdouble(complex(math.nan, math.nan)), np.clongdouble(math.nan))


def _counted(a: Array) -> Array:
    return a.astype(np.int64) if a.dtype.kind == "b" else a


def _complex_power(x: Array, y: Array) -> Array:
    """Through the logarithm of |x|, so that integer powers of negative numbers stay free of stray imaginary parts."""
    x, y = np.broadcast_arrays(x, y)
    negative = x.real < 0
    magnitude = _where(negative, -x, x)
    out = np.exp(y * np.log(magnitude))
    odd, whole = np.mod(y.real, 2) == 1, np.mod(y.real, 1) == 0
    out = _where(negative, _where(whole & (y.imag == 0), _where(odd, -out, out), _nan(x, y)), out)
    at_zero = _where(y.real == 0, 1, _where(y.real > 0, 0, np.inf))
    return _where(x == 0, at_zero, out)


# -- mpmath -----------------------------------------------------------------------------------------------------

_ANALYTIC: dict[str, Callable[..., Any]] = {
    name: getattr(mpmath, name)
    for name in (
        "exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    )
}  # fmt: skip
"""Functions whose complex form in mpmath keeps every digit of a tiny imaginary part (its asin, atan and erf do not)."""


_REAL: dict[str, Callable[..., Any]] = {name: getattr(mpmath, name) for name in ("erf", "erfc", "asin", "acos", "atan")}


def _loggamma(x: Any) -> Any:
    """Of |gamma(x)|, as torch's lgamma."""
    return mpmath.loggamma(x).real


def _erfcx(x: Any) -> Any:
    return mpmath.exp(x * x) * mpmath.erfc(x)


def _log_ndtr(x: Any) -> Any:
    return mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2)


_REAL.update(loggamma=_loggamma, erfcx=_erfcx, log_ndtr=_log_ndtr)


def _imaginary(z: Any) -> Any:
    return mpmath.mpf(z.imag)


def _mpmath_of(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """The function of mpmath that sympy calls `name`, for real arguments and for those with a tiny imaginary part."""
    analytic = _ANALYTIC.get(name)
    if analytic is not None:
        return _guarded(analytic, analytic)
    plain = _REAL.get(name, fallback)
    return _guarded(plain, lambda *args: _stepped(plain, args))


def _stepped(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """`f(a + ib) = f(a) + ib f'(a)` for tiny b, the slope by mpmath's finite differences at raised precision."""
    at = tuple(a.real for a in args)
    imag = mpmath.mpf(0)
    for k, a in enumerate(args):
        if a.imag:
            imag += a.imag * _slope(function, at, k, mpmath.mp.prec)
    return mpmath.mpc(_on_line(function, at, mpmath.mp.prec), imag)


@lru_cache(maxsize=REMEMBERED)
def _slope(function: Callable[..., Any], at: tuple[Any, ...], k: int, precision: int) -> Any:
    """The derivative of a function in its k-th argument, which is as often asked for as the value."""
    return mpmath.diff(_section(function, at, k), at[k])


def _section(function: Callable[..., Any], at: Sequence[Any], k: int) -> Callable[[Any], Any]:
    """A function of several arguments as one of its k-th."""

    def section(t: Any) -> Any:
        return function(*at[:k], t, *at[k + 1 :])

    return section


def _object(value: Any) -> Array:
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def _apply(function: Callable[..., Any], *args: Array) -> Array:
    """A Python function, element by element."""
    out = cast("Any", np).frompyfunc(function, len(args), 1)(*args)
    return out if hasattr(out, "dtype") else _object(out)


def _exactly(x: Any) -> Any:
    """A float, longdouble or complex as an mpmath number, without rounding."""
    return mpmath.mpc(exactly(x.real), exactly(x.imag)) if cast("Any", np).iscomplexobj(x) else exactly(x)


def _to_mp(a: Array) -> Array:
    if a.dtype.kind in "biuf" and a.dtype.itemsize <= 8:  # a Python number each, which mpmath takes without rounding
        return _apply(_taken, a.astype(object))
    return _apply(_exactly, _elements(a))


def _taken(x: float) -> Any:
    """A Python number as an mpmath number, without rounding, at any working precision of 16 digits or more."""
    return mpmath.mpf(x)


def _elements(a: Array) -> Array:
    """The scalars of an array as objects, keeping the precision of longdoubles."""
    out = np.empty(a.shape, dtype=object)
    for at in np.ndindex(*a.shape):
        out[at] = a[at]
    return out


def _guarded(real: Callable[..., Any], nearby: Callable[..., Any]) -> Callable[..., Any]:
    """`real` at real arguments, `nearby` at complex ones; nan where the real function leaves the real line."""

    def guarded(*args: Any) -> Any:
        at = tuple(a.real for a in args)
        if any(x != x for x in at):  # no nan equals another, so that none would be found again
            return mpmath.mpc(mpmath.nan, mpmath.nan) if any(a.imag for a in args) else mpmath.nan
        try:
            on_line = _on_line(real, at, mpmath.mp.prec)
        except (ValueError, ZeroDivisionError):
            return _pole(real, args)
        if isinstance(on_line, mpmath.mpc):
            return mpmath.mpc(mpmath.nan, mpmath.nan) if any(a.imag for a in args) else mpmath.nan
        return on_line if all(isinstance(a, mpmath.mpf) for a in args) else nearby(*args)

    return guarded


@lru_cache(maxsize=REMEMBERED)
def _on_line(function: Callable[..., Any], at: tuple[Any, ...], precision: int) -> Any:
    """A function at real arguments. Many steps are made from the same values, which a step does not change."""
    return function(*at)


def _pole(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What IEEE arithmetic gives where mpmath raises: log(0) is -inf, everything else is nan."""
    if function is mpmath.log and args[0] == 0:
        return -mpmath.inf
    if function is mpmath.log1p and args[0] == -1:
        return -mpmath.inf
    return mpmath.nan


def _mp_reciprocal(x: Any) -> Any:
    return mpmath.inf if x == 0 else 1 / x


def _mp_quotient(x: Any, y: Any) -> Any:
    return x / y if y != 0 else x * mpmath.inf


def _mp_power(x: Any, y: Any) -> Any:
    if x == 0:
        return mpmath.mpf(1) if y.real == 0 else mpmath.mpf(0) if y.real > 0 else mpmath.inf
    if x.real < 0 and not (y.imag == 0 and mpmath.isint(y.real)):
        return mpmath.mpc(mpmath.nan, mpmath.nan)
    return x ** (int(y.real) if y.imag == 0 and mpmath.isint(y.real) else y)


def _mp_atan2(y: Any, x: Any) -> Any:
    angle = mpmath.atan2(y.real, x.real)
    if isinstance(y, mpmath.mpf) and isinstance(x, mpmath.mpf):
        return angle
    local = _mpmath_of("atan", mpmath.atan)(y / x if abs(x.real) >= abs(y.real) else -x / y)
    return local + (angle - local.real)
