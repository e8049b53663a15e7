"""Sizes that Python code may read and compute with, while the trace remembers where they came from.

A `Dim` is a real `int` carrying its sympy expression, so `view(n, -1)`, `1 / n` and `torch.arange(n)` work and stay
symbolic. Where Python needs the number itself (a comparison, a loop, `math.floor`), the value is fixed: the trace
keeps a guard, and the emitted code checks it.
"""

from __future__ import annotations

import builtins
import contextlib
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Number
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, cast

import sympy as sp
from sympy import Expr, Symbol
from sympy.core.sympify import converter

from engine.bounds import SLICED, Bound, nonnegative
from engine.errors import ShapeError, TraceError
from engine.notation import Part, Quo, in_wholes, size_symbol
from engine.texts import is_only_said

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

DIGITS, SMALL = 12, 1000
"""A numerator with more digits is no decimal that somebody typed; denominators of quotients that are read as such."""


def exact(value: float) -> Expr:
    """A Python number as the exact rational that its shortest decimal text names: 0.1 is 1/10.

    One with more digits than anybody types is a quotient of small whole numbers where none is nearer to that: 0.1 / 9 is 1/90.
    """
    if isinstance(value, complex):
        raise TraceError(
            f"the complex number {value} is outside of what is derived; keep real and imaginary parts apart"
        )
    if isinstance(value, bool):
        return sp.Integer(int(value))
    if isinstance(value, int):
        return sp.Integer(int(value))
    if math.isinf(value):
        return sp.S.Infinity if value > 0 else sp.S.NegativeInfinity
    if math.isnan(value):
        return sp.S.NaN
    named = Fraction(repr(float(value)))
    if len(str(named.numerator)) > DIGITS:
        near = named.limit_denominator(SMALL)
        named = near if float(near) == value else named
    return sp.Rational(named.numerator, named.denominator)


def evaluate(e: Expr, values: Mapping[Symbol, int]) -> int:
    """An expression in sizes as a number."""
    if e.is_Integer:
        return int(e)
    if e.is_Symbol and e in values:
        return int(values[cast("Symbol", e)])
    if any(isinstance(s, Part) and s not in values for s in e.free_symbols):
        e = in_wholes(e)
    known = {s: sp.Integer(values[s]) for s in e.free_symbols if s in values}
    return int(e.xreplace(known).doit())


def symbols_of(difference: Expr) -> tuple[Symbol, Symbol] | None:
    """Two sizes that are one where a difference is zero: `n + m - 2 n` says m = n. None for any other."""
    terms = [cast("Any", t).as_coeff_Mul() for t in sp.Add.make_args(sp.expand(difference))]
    if len(terms) != 2 or not all(isinstance(s, Symbol) for _, s in terms) or terms[0][0] != -terms[1][0]:
        return None
    return terms[0][1], terms[1][1]


def without_common(difference: Expr, values: Mapping[Symbol, int]) -> Expr:
    """A difference of products of sizes that is zero at the example, without the sizes that all of them have.

    Of its factors these are the ones that are zero there: `a (h - 1) - b (h - 1)` is about a and b.
    """
    factors = sp.Mul.make_args(sp.factor(difference))
    zero = [f for f in factors if f.free_symbols and evaluate(f, values) == 0]
    return sp.expand(sp.Mul(*zero)) if len(zero) == 1 and len(factors) > 1 else difference


@dataclass(frozen=True)
class Guard:
    """A size that the forward fixed: `expr` was read as the number `value` at `where`.

    Where `equal` is given it is about two sizes instead, in symbols like `x.shape[0]`, which must be equal.
    """

    expr: Expr
    value: int
    where: str
    equal: tuple[Expr, Expr] | None = None


class Sizes:
    """The sizes of one trace: their symbols, the values at the example, what was found equal, and what was fixed."""

    def __init__(self) -> None:
        self.values: dict[Symbol, int] = {}
        self.guards: list[Guard] = []
        self.bounds: list[Bound] = []
        self.same_unseen: list[tuple[Expr, Expr, str]] = []
        self._same: dict[Symbol, Expr] = {}
        self._locate: Callable[[], str] = lambda: ""

    def locate_with(self, locate: Callable[[], str]) -> None:
        """Use `locate` to say where in the user's forward a size was fixed."""
        self._locate = locate

    def new(self, name: str, value: int) -> Expr:
        """A fresh size symbol; sizes of one at the example are the number 1 (broadcasting depends on it)."""
        if value == 1:
            return sp.S.One
        symbol = size_symbol(name)
        self.values[symbol] = value
        return symbol

    def resolve(self, e: Expr) -> Expr:
        """An expression with every size replaced by the one it was found equal to."""
        while known := {s: self._same[s] for s in e.free_symbols if s in self._same}:
            e = e.xreplace(known)
        return e

    def value(self, e: Expr) -> int:
        """The number that a size had at the example."""
        return evaluate(e, self.values)

    def fix(self, e: Expr, value: int, where: str = "") -> None:
        """Remember that `e` must be `value` for the trace to hold."""
        e = self.resolve(e)
        if e.is_Integer:
            return
        where = where or self._locate()
        symbols = sorted(e.free_symbols, key=str)
        if len(symbols) == 1:  # shapes that contain the size must know that it is a number now
            (symbol,) = symbols
            e, value = symbol, self.values[symbol]
            left = [g for g in self.guards if symbol in self.resolve(g.expr).free_symbols]
            self._same[symbol] = sp.Integer(value)
            for g in left:  # of two sizes that are equal the other one is this number, too
                if len(self.resolve(g.expr).free_symbols) == 1:
                    self.fix(g.expr, g.value, where)
        self._guard(Guard(e, value, where))

    def _guard(self, guard: Guard) -> None:
        if guard.value == 0:
            guard = replace(guard, expr=without_common(guard.expr, self.values))
        known = {(g.expr, g.value) for g in self.guards}
        if (guard.expr, guard.value) not in known and (-guard.expr, -guard.value) not in known:
            self.guards.append(guard)

    def keep_bound(self, e: Expr, of: str = SLICED) -> None:
        """Remember that `e` must not be negative for the trace to hold."""
        if not nonnegative(self.resolve(e)) and all((b.expr, b.of) != (e, of) for b in self.bounds):
            self.bounds.append(Bound(e, self._locate(), of))

    def within_bounds(self, values: Mapping[Symbol, int]) -> bool:
        """Whether the trace holds for sizes of these values, as far as bounds and guards say."""
        return all(evaluate(self.resolve(b.expr), values) >= 0 for b in self.bounds) and all(
            evaluate(self.resolve(g.expr), values) == g.value for g in self.guards
        )

    def unify(self, a: Expr, b: Expr) -> Expr:
        """The common size of two dimensions that an op needs to be equal. Raises ShapeError where they differ."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return a
        if self.value(a) != self.value(b):
            raise ShapeError(f"sizes {a} = {self.value(a)} and {b} = {self.value(b)} differ at {self._locate()}")
        for one, other in ((a, b), (b, a)):
            if one.is_Integer:
                self.fix(other, int(one))
                return one
        if isinstance(a, Symbol) and isinstance(b, Symbol):
            pair = {a, b}
            keep = next(s for s in self.values if s in pair)  # the older one
            drop = b if keep == a else a
            self._same[drop] = keep
            return keep
        for one, other in ((b, a), (a, b)):
            if isinstance(one, Symbol) and one not in other.free_symbols:
                self._same[one] = other
                return other
        equal = symbols_of(a - b)
        if equal is not None:
            self.same_unseen.append((*equal, self._locate()))
            self.unify(*equal)
            return self.resolve(a)
        self._guard(Guard(a - b, 0, self._locate()))
        return a

    def found_equal(self, a: Expr, b: Expr) -> None:
        """Two sizes that Python compared, and found equal: the trace holds where they are, and no op asks for it."""
        known = len(self.guards) + len(self.same_unseen)
        if self.resolve(a) != self.resolve(b):
            self.unify(a, b)
            if len(self.guards) + len(self.same_unseen) == known:
                self.same_unseen.append((a, b, self._locate()))


class Dim(int):
    """A size read by Python code: an `int` with the expression it stands for."""

    expr: Expr
    sizes: Sizes

    def __new__(cls, value: int, expr: Expr, sizes: Sizes) -> Self:
        self = int.__new__(cls, value)
        self.expr, self.sizes = expr, sizes
        return self

    def plain(self) -> int:
        """The number itself; from now on the trace holds for it only."""
        self.sizes.fix(self.expr, int.__int__(self))
        return int.__int__(self)


class Remainder(Dim):
    """What is left of a size that is divided by another: whether it is zero is asked without fixing either, all else fixes both."""

    divided: Expr
    by: Expr

    def __new__(cls, value: int, divided: Expr, by: Expr, sizes: Sizes) -> Self:
        self = int.__new__(cls, value)
        self.divided, self.by, self.sizes = divided, by, sizes
        return self

    @property
    def expr(self) -> Expr:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number; from now on the trace holds for it only."""
        return sp.Integer(self.plain())

    def plain(self) -> int:
        """The number itself; from now on the trace holds for the sizes of the example only."""
        for symbol in sorted(
            self.sizes.resolve(self.divided).free_symbols | self.sizes.resolve(self.by).free_symbols, key=str
        ):
            self.sizes.fix(symbol, self.sizes.values[symbol])
        return int.__int__(self)

    def __bool__(self) -> bool:
        if int.__int__(self):
            return bool(self.plain())
        self.sizes.found_equal(self.divided, self.by * Quo(self.divided, self.by))
        return False

    def __eq__(self, other: object) -> bool:
        return not self if other == 0 else self.plain() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.plain())


class Real(float):
    """A float computed from sizes, such as `1 / n`: a number with the expression it stands for."""

    value: float
    expr: Expr
    sizes: Sizes

    def __new__(cls, value: float, expr: Expr, sizes: Sizes) -> Self:
        self = float.__new__(cls, value)
        self.value, self.expr, self.sizes = value, expr, sizes
        return self

    def plain(self) -> float:
        """The number itself; from now on the trace holds for the sizes of the example only."""
        for symbol in sorted(self.sizes.resolve(self.expr).free_symbols, key=str):
            self.sizes.fix(symbol, self.sizes.values[symbol])
        return self.value


Sized = (Dim, Real)


def number(x: Any) -> Any:
    """The plain number below a Dim or Real, without fixing anything."""
    if isinstance(x, Dim):
        return int.__int__(x)
    return x.value if isinstance(x, Real) else x


def expression(x: Any) -> Expr:
    """A number, Dim or Real as a sympy expression."""
    return x.expr if isinstance(x, Sized) else exact(x)


def _wrap(value: Any, expr: Expr, sizes: Sizes) -> Any:
    if expr.is_number:
        return value
    return Dim(value, expr, sizes) if isinstance(value, int) else Real(float(value), expr, sizes)


def _fix(*numbers: Any) -> None:
    """Where Python computes with the numbers themselves: from now on the trace holds for these only."""
    for x in numbers:
        if isinstance(x, Sized):
            x.plain()


def _arithmetic(name: str, symbolic: Callable[[Expr, Expr], Expr | None], reflected: bool) -> Callable[[Any, Any], Any]:
    plain = getattr(int, f"__{name}__")

    def method(self: Any, other: Any, modulus: Any = None) -> Any:
        if modulus is not None:
            _fix(self, other, modulus)
            return cast("Any", pow)(number(self), number(other), number(modulus))
        if isinstance(other, bool) or not isinstance(other, (int, float, Real)):
            if isinstance(other, (list, tuple, str)):  # repeated that often
                self.plain()
            return NotImplemented
        a, b = (other, self) if reflected else (self, other)
        x, y = number(a), number(b)
        value = plain(x, y) if isinstance(x, int) and isinstance(y, int) else NotImplemented
        if value is NotImplemented:
            value = getattr(float, f"__{name}__")(float(x), float(y))
        expr = symbolic(expression(a), expression(b))
        if expr is not None:
            return _wrap(value, expr, self.sizes)
        if name == "mod" and isinstance(value, int):
            return Remainder(value, expression(a), expression(b), self.sizes)
        _fix(a, b)
        return value

    return method


def _floordiv(a: Expr, b: Expr) -> Expr | None:
    quotient = sp.cancel(a / b)
    if quotient.is_integer:
        return quotient
    return Quo(a, b) if a.is_integer and b.is_integer and a.is_nonnegative and b.is_positive else None


def _mod(a: Expr, b: Expr) -> Expr | None:
    return sp.S.Zero if sp.cancel(a / b).is_integer else None


_OPERATORS: dict[str, Callable[[Expr, Expr], Expr | None]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
    "floordiv": _floordiv,
    "mod": _mod,
    "pow": lambda a, b: a**b,
}


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float, Real)):
            if isinstance(other, Number):  # a fraction compares with the number itself
                self.plain()
            return NotImplemented
        a, b = expression(self), expression(other)
        x, y = number(self), number(other)
        answer = getattr(float, f"__{name}__")(float(x), float(y))
        if self.sizes.resolve(a) == self.sizes.resolve(b):
            return answer
        if name in ("eq", "ne") and isinstance(other, Sized) and x == y:
            self.sizes.found_equal(a, b)
        elif isinstance(x, int) and isinstance(y, int) and (name not in ("eq", "ne") or x != y):
            below = x < y if name in ("eq", "ne") else answer == (name in ("lt", "le"))
            apart = name in ("eq", "ne") or answer == (name in ("lt", "gt"))
            self.sizes.keep_bound((b - a if below else a - b) - int(apart), "a comparison")
        else:
            _fix(self, other)
        return answer

    return method


def _fixing(name: str) -> Callable[..., Any]:
    """An operator that Python computes from the numbers themselves."""

    def method(self: Any, *others: Any) -> Any:
        _fix(self, *others)
        kind = int if isinstance(self, Dim) else float
        return getattr(kind, f"__{name}__")(number(self), *map(number, others))

    return method


def _plain_method(name: str) -> Callable[[Any], Any]:
    """A method of numbers that Python computes from the number itself."""
    return lambda self: getattr(self.plain(), name)()


def _text_method(name: str) -> Callable[..., str]:
    """A method that makes a text of a number, which is fixed where the forward may compute with it."""

    def method(self: Any, *rest: str) -> str:
        return getattr(number(self) if is_only_said() else self.plain(), name)(*rest)

    return method


_DIVMOD: dict[str, Callable[[Any, Any], Any]] = {
    "divmod": lambda self, other: (self // other, self % other),
    "rdivmod": lambda self, other: (other // self, other % self),
}
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "pos": lambda self: self,
    "neg": lambda self: _wrap(-number(self), -self.expr, self.sizes),
    "hash": lambda self: hash(self.plain()),
    "float": lambda self: float(self.plain()),
    "int": lambda self: int(self.plain()),
    "bool": lambda self: self != 0,
}
_FIXING = ("abs", "round", "floor", "ceil", "trunc")
_BITS = ("lshift", "rshift", "and", "or", "xor")


def _install() -> None:
    for cls in Sized:
        for name, symbolic in _OPERATORS.items():
            setattr(cls, f"__{name}__", _arithmetic(name, symbolic, reflected=False))
            setattr(cls, f"__r{name}__", _arithmetic(name, symbolic, reflected=True))
        for name in ("eq", "ne", "lt", "le", "gt", "ge"):
            setattr(cls, f"__{name}__", _comparison(name))
        for name, method in (*_DIVMOD.items(), *_CONVERSIONS.items()):
            setattr(cls, f"__{name}__", method)
        for name in _FIXING:
            setattr(cls, f"__{name}__", _fixing(name))
        for name in ("__repr__", "__str__", "__format__"):
            setattr(cls, name, _text_method(name))
        for name in ("is_integer", "as_integer_ratio", "conjugate"):
            setattr(cls, name, _plain_method(name))
    for cls, name in ((Dim, "bit_length"), (Real, "hex")):
        setattr(cls, name, _plain_method(name))
    for name in ("invert", *_BITS, *(f"r{name}" for name in _BITS)):
        setattr(Dim, f"__{name}__", _fixing(name))
    for name in ("floor", "ceil", "trunc"):
        setattr(Dim, f"__{name}__", _CONVERSIONS["pos"])
    Dim.__index__ = Dim.plain
    for cls in Sized:  # sympy would compare it with other numbers, which says that sizes are equal
        converter[cls] = expression


_install()


_range, _len = builtins.range, builtins.len


def _sized_len(x: Any, /) -> int:
    """`len`, which is a symbol where the object says so: Python makes a plain number of what `__len__` returns."""
    first: Any = getattr(cast("Any", type(x)), "sized_len", None)
    return _len(x) if first is None else first(x)


class SizedRange:
    """`range` over a size. Used as an index it stays symbolic; looping over it fixes the size.

    It is no sequence: torch looks into the elements of those before it asks the trace.
    """

    def __init__(self, args: tuple[SupportsIndex, ...]) -> None:
        self.args = args

    def plain(self) -> range:
        """The range itself; from now on the trace holds for it only."""
        return _range(*[a.plain() if isinstance(a, Dim) else a for a in self.args])

    def __len__(self) -> int:
        return len(self.plain())

    def __iter__(self) -> Iterator[int]:
        return iter(self.plain())

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.plain())


class _SizedRange(type):
    def __call__(cls, *args: SupportsIndex) -> Any:
        return SizedRange(args) if any(isinstance(a, Dim) for a in args) else _range(*args)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, (_range, SizedRange))


class _Range(metaclass=_SizedRange):
    """Stands in for `range` during a trace: a loop over a size fixes it, which `range` itself would not tell anyone."""


_MATH: dict[str, Callable[[Expr], Expr]] = {
    "sqrt": sp.sqrt,
    "log": sp.log,
    "log2": lambda e: sp.log(e) / sp.log(2),
    "log10": lambda e: sp.log(e) / sp.log(10),
    "exp": sp.exp,
}


@contextlib.contextmanager
def symbolic_python() -> Generator[None]:
    """While a forward runs: a loop over a `range` of a size fixes it; `math.sqrt`, `log`, `log2`, `log10`, `exp` of one stay symbolic, and so does
    the `len` of a tensor.
    """
    saved = {name: getattr(math, name) for name in _MATH}

    def patched(name: str) -> Callable[..., Any]:
        plain, symbolic = saved[name], _MATH[name]

        def function(x: Any, *rest: Any) -> Any:
            if isinstance(x, Sized) and not rest:
                return _wrap(plain(number(x)), symbolic(x.expr), x.sizes)
            return plain(x, *rest)

        return function

    builtins.range = _Range
    builtins.len = _sized_len
    for name in _MATH:
        setattr(math, name, patched(name))
    try:
        yield
    finally:
        builtins.range = _range
        builtins.len = _len
        for name, plain in saved.items():
            setattr(math, name, plain)
