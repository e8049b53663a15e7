"""Index notation evaluated by numpy: one array axis per index, sums of products contracted without an outer product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp
from sympy import Expr, Integer, Symbol

from engine.arithmetic import is_integral
from engine.errors import InputError
from engine.fixedpoint import Contractions
from engine.indexed import Indexed
from engine.notation import (
    BINDERS,
    Amax,
    Delta,
    Equal,
    Floor,
    Head,
    Index,
    Largest,
    Less,
    LessEqual,
    Parity,
    Product,
    Quo,
    Rem,
    Sigma,
    Sign,
    Smallest,
    Where,
    name_of,
)
from engine.sizes import evaluate as size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.arithmetic import Arithmetic, Array

BRACKETS = (Less, LessEqual, Equal, Delta)


@dataclass(frozen=True, eq=False)
class Field:
    """An array whose axes are named by the indices it depends on."""

    array: Array
    at: tuple[Index, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray):  # numpy hands back a bare number for an array of rank 0
            object.__setattr__(self, "array", np.asarray(self.array))


def align(fields: Sequence[Field]) -> tuple[list[Array], tuple[Index, ...]]:
    """Arrays that broadcast against each other, and the indices of the axes they then have."""
    at = tuple(dict.fromkeys(i for f in fields for i in f.at))
    return [_spread(f, at) for f in fields], at


def _spread(f: Field, at: tuple[Index, ...]) -> Array:
    """The field's array with its axes in the order of `at`, and axes of length one for what it does not depend on."""
    if not f.at:
        return f.array
    kept = [i for i in at if i in f.at]
    array = f.array.transpose([f.at.index(i) for i in kept])
    return array.reshape([array.shape[kept.index(i)] if i in kept else 1 for i in at])


class Interpreter:
    """Evaluates expressions over the arrays of `tensors`, with sizes as in `sizes`.

    `contractions` are those of an earlier evaluation of the same expressions, whose real parts were the same.
    """

    def __init__(
        self,
        numbers: Arithmetic,
        tensors: Mapping[str, Array],
        sizes: Mapping[Symbol, int],
        contractions: Contractions | None = None,
    ) -> None:
        self.numbers, self.tensors, self.sizes = numbers, tensors, sizes
        self._contractions = contractions or Contractions()
        self._extent: dict[Index, int] = {}
        self._guarded = 0

    def tensor(self, indices: Sequence[Expr], shape: Sequence[int], e: Expr) -> Array:
        """The tensor of `shape` whose element at `indices` (0 for a dimension of size one) is `e`."""
        names = [i for i in indices if isinstance(i, Index)]
        self._extent.update({i: n for i, n in zip(indices, shape, strict=True) if isinstance(i, Index)})
        field = self.field(e)
        array = field.array.transpose([field.at.index(i) for i in names if i in field.at])
        spread = array.reshape([self._extent[cast("Index", i)] if i in field.at else 1 for i in indices])
        return np.broadcast_to(spread, tuple(shape)).copy()

    def field(self, e: Expr) -> Field:
        """An expression as an array over the indices it depends on."""
        for kind, method in _METHODS:
            if isinstance(e, kind):
                return method(self, e)
        if e.is_number:
            return Field(self.numbers.constant(e))
        if isinstance(e, sp.Function):
            return self._function(e)
        raise InputError(f"{type(e).__name__} in {e} has no numerical meaning")

    def _map(self, function: Callable[..., Array], *args: Expr) -> Field:
        arrays, at = align([self.field(a) for a in args])
        return Field(np.asarray(function(*arrays)), at)

    def size(self, e: Expr) -> int:
        """A size as a number."""
        return size_of(e, self.sizes)

    # -- leaves ------------------------------------------------------------------------------------------------

    def of_index(self, e: Index) -> Field:
        return Field(np.arange(self._extent[e]), (e,))

    def of_symbol(self, e: Symbol) -> Field:
        return Field(np.asarray(self.sizes[e]))

    def of_integer(self, e: Integer) -> Field:
        return Field(np.asarray(int(e))) if abs(int(e)) < 2**63 else Field(self.numbers.constant(e))

    def of_access(self, e: Indexed) -> Field:
        array = self.tensors[name_of(e)]
        places = (e.indices)[: array.ndim]  # rank 0 is read at 0
        if self._is_slice(places, array):
            cut = [slice(0, self._extent[i]) if isinstance(i, Index) else int(cast("Any", i)) for i in places]
            return Field(np.asarray(array[tuple(cut)]), tuple(i for i in places if isinstance(i, Index)))
        positions, at = align([self.field(p) for p in places])
        if not positions:
            return Field(array)
        if self._guarded and not array.size:
            return Field(np.zeros(np.broadcast_shapes(*[p.shape for p in positions]), dtype=array.dtype), at)
        return Field(array[tuple(self._inside(p, n, e) for p, n in zip(positions, array.shape, strict=True))], at)

    def _is_slice(self, places: tuple[Expr, ...], array: Array) -> bool:
        names = [i for i in places if isinstance(i, Index)]
        whole = all(
            isinstance(i, Index) or (i.is_Integer and 0 <= int(cast("Any", i)) < n)
            for i, n in zip(places, array.shape, strict=True)
        )
        return whole and len(set(names)) == len(names) and all(
            self._extent[i] <= n for i, n in zip(places, array.shape, strict=True) if isinstance(i, Index)
        )  # fmt: skip

    def _inside(self, position: Array, size: int, e: Indexed) -> Array:
        """Positions as torch takes them: negative ones count from the end.

        Out of range is an error, except in a branch that a condition may switch off.
        """
        if not is_integral(position):
            rounded = np.rint(self.numbers.to_float(position)).astype(np.int64)
            if np.any(self.numbers.to_float(position) != rounded):
                raise InputError(f"a position in {e} is not an integer")
            position = rounded
        signed = position.astype(np.int64)
        position = np.add(signed, size, out=signed, where=signed < 0)
        if self._guarded:
            return np.clip(position, 0, size - 1)
        if np.any((position < 0) | (position >= size)):
            raise InputError(f"{e} reads position {position.max()} of a dimension of size {size}")
        return position

    # -- arithmetic --------------------------------------------------------------------------------------------

    def _lifted(self, fields: Sequence[Field]) -> tuple[list[Array], tuple[Index, ...]]:
        """Aligned arrays of one kind: integers where all are, else numbers."""
        arrays, at = align(fields)
        if all(is_integral(a) for a in arrays):
            return [a.astype(np.int64) for a in arrays], at
        return [self.numbers.lift(a) for a in arrays], at

    def of_add(self, e: sp.Add) -> Field:
        grown = self._expm1(e)
        if grown is not None:
            return grown
        arrays, at = self._lifted([self.field(a) for a in e.args])
        total = arrays[0]
        for a in arrays[1:]:
            total = total + a
        return Field(np.asarray(total), at)

    def _expm1(self, e: sp.Add) -> Field | None:
        """`c*exp(a) - c` without cancellation, None for any other sum."""
        if len(e.args) != 2 or not e.args[0].is_number:
            return None
        constant, rest = e.args
        grown = sp.cancel(-rest / constant)
        if not isinstance(grown, sp.exp):
            return None
        inner = self.field(grown.args[0])
        value = self.numbers.apply("expm1", [inner.array], mpmath.expm1)
        return Field(np.asarray(value * -self.numbers.constant(constant)), inner.at)

    def of_mul(self, e: sp.Mul) -> Field:
        switched = any(isinstance(a, BRACKETS) for a in e.args)
        self._guarded += switched
        over: list[Field] = []
        under: list[Field] = []
        for a in e.args:
            base, exponent = a.as_base_exp()
            divides = exponent == -1 and not base.is_number
            (under if divides else over).append(self.field(base if divides else a))
        self._guarded -= switched
        top = self._product(over)
        return self._quotient(top, self._product(under)) if under else top

    def _product(self, fields: list[Field]) -> Field:
        arrays, at = self._lifted(fields) if fields else ([np.asarray(1)], ())
        total = arrays[0]
        for a in arrays[1:]:
            total = self.numbers.times(total, a)
        return Field(np.asarray(total), at)

    def _quotient(self, a: Field, b: Field) -> Field:
        (x, y), at = align([a, b])
        return Field(np.asarray(self.numbers.over(self.numbers.lift(x), self.numbers.lift(y))), at)

    def of_pow(self, e: sp.Pow) -> Field:
        base, exponent = cast("tuple[Expr, Expr]", e.args)
        if exponent == sp.S.Half:
            return self._map(self.numbers.sqrt, base)
        if exponent == -sp.S.Half:
            root = self._map(self.numbers.sqrt, base)
            return Field(np.asarray(self.numbers.reciprocal(root.array)), root.at)
        return self._map(self.numbers.power, base, exponent)

    def _function(self, e: sp.Function) -> Field:
        name = type(e).__name__
        if name == "log":
            argument = e.args[0]
            if isinstance(argument, sp.Add) and argument.args[0] == 1:
                rest = self.field(sp.Add(*argument.args[1:]))
                return Field(self.numbers.apply("log1p", [rest.array], mpmath.log1p), rest.at)
        dummies = [sp.Dummy() for _ in e.args]
        plain = sp.lambdify(dummies, e.func(*dummies), "mpmath")
        fields, at = align([self.field(a) for a in e.args])
        return Field(np.asarray(self.numbers.apply(name, fields, plain)), at)

    # -- sums --------------------------------------------------------------------------------------------------

    def _bind(self, e: Any) -> list[Index]:
        limits = cast("tuple[tuple[Index, Expr], ...]", e.limits)
        self._extent.update({i: self.size(n) for i, n in limits})
        return [i for i, _ in limits]

    def of_sigma(self, e: Sigma) -> Field:
        """A product is contracted factor by factor, anything else summed over its axes."""
        summed = self._bind(e)
        factors = sp.Mul.make_args(e.body)
        switched = any(isinstance(a, BRACKETS) for a in factors)
        self._guarded += switched
        fields = [self.field(f) for f in factors]
        self._guarded -= switched
        at = tuple(dict.fromkeys(i for f in fields for i in f.at))
        repeats = math.prod(self._extent[i] for i in summed if i not in at)
        kept = tuple(i for i in at if i not in summed)
        total = (
            _sum(fields[0].array, tuple(k for k, i in enumerate(at) if i in summed))
            if len(fields) == 1
            else self._contract(e, fields, at, kept)
        )
        return Field(np.asarray(total * repeats) if repeats != 1 else np.asarray(total), kept)

    def _contract(self, e: Expr, fields: list[Field], at: tuple[Index, ...], kept: tuple[Index, ...]) -> Array:
        """Products summed. All share an axis of size one, as numpy takes a bare object for an array without a shape."""
        integral = all(is_integral(f.array) for f in fields)
        shared = len(at)
        operands: list[Any] = []
        for f in fields:
            operands += [
                (f.array.astype(np.int64) if integral else self.numbers.lift(f.array))[None],
                [shared, *(at.index(i) for i in f.at)],
            ]
        out = [shared, *(at.index(i) for i in kept)]
        if self.numbers.is_mp and not integral and len(fields) == 2:
            a, at_a, b, at_b = operands
            found = self._contractions((e, *(self._extent[i] for i in at)), a, at_a, b, at_b, out)
            if found is not None:
                return found[0]
        return np.asarray(np.einsum(*operands, out, optimize="greedy")[0])

    def of_amax(self, e: Amax) -> Field:
        """The largest real part, or the smallest; of a limit of size zero it is minus infinity, or infinity."""
        bound = self._bind(e)
        f = self.field(e.body)  # type: ignore[arg-type]
        real = f.array if is_integral(f.array) else self.numbers.real(f.array)
        axes = tuple(k for k, i in enumerate(f.at) if i in bound)
        least = isinstance(e, Smallest)
        if any(real.shape[k] == 0 for k in axes):
            real = np.full([1 if k in axes else n for k, n in enumerate(real.shape)], np.inf if least else -np.inf)
            return Field(np.max(real, axis=axes), tuple(i for i in f.at if i not in bound))
        found = (np.min if least else np.max)(real, axis=axes, keepdims=True) if axes else real
        out = found
        if isinstance(e, Largest) and not is_integral(f.array):  # what moves it is shared by ties
            moved = np.where(real == found, self.numbers.imag(f.array), 0)
            number = np.maximum(np.sum(real == found, axis=axes, keepdims=True), 1)
            out = self.numbers.moved(found, np.sum(moved, axis=axes, keepdims=True) / number)
        return Field(np.asarray(np.squeeze(out, axes)), tuple(i for i in f.at if i not in bound))

    def of_product(self, e: Product) -> Field:
        """All factors multiplied, one after the other; of none it is one."""
        over = self._bind(e)
        f = self.field(e.body)  # type: ignore[arg-type]
        kept = tuple(i for i in f.at if i not in over)
        moved = f.array.transpose([*[f.at.index(i) for i in kept], *[f.at.index(i) for i in over if i in f.at]])
        factors = moved.reshape(*moved.shape[: len(kept)], -1)
        factors = factors.astype(np.int64) if is_integral(factors) else self.numbers.lift(factors)
        repeats = math.prod(self._extent[i] for i in over if i not in f.at)
        total = np.broadcast_to(self.numbers.constant(sp.S.One), factors.shape[:-1])
        for k in range(factors.shape[-1] * repeats):
            factor = factors[..., k % factors.shape[-1]]
            total = factor if k == 0 else self.numbers.times(total, factor)
        return Field(np.asarray(total), kept)

    # -- conditions --------------------------------------------------------------------------------------------

    def _real(self, a: Array) -> Array:
        return a if is_integral(a) else self.numbers.real(a)

    def of_compare(self, e: Expr) -> Field:
        compare = _COMPARISONS[type(e)]

        def holds(a: Array, b: Array) -> Array:
            return np.asarray(compare(self._real(a), self._real(b))).astype(bool)

        return self._map(holds, *cast("Any", e.args))

    def of_where(self, e: Where) -> Field:
        condition = self.field(e.args[0])
        self._guarded += 1
        branches = [self.field(a) for a in e.args[1:]]
        self._guarded -= 1
        (c, a, b), at = align([condition, *branches])
        if not (is_integral(a) and is_integral(b)):
            a, b = self.numbers.lift(a), self.numbers.lift(b)
        return Field(np.where(self._real(c) != 0, a, b), at)

    def of_sign(self, e: Sign) -> Field:
        def sign(a: Array) -> Array:
            return np.subtract(self._real(a) > 0, self._real(a) < 0, dtype=np.int64)

        return self._map(sign, e.args[0])

    def of_floor(self, e: Floor) -> Field:
        def floor(a: Array) -> Array:
            return a if is_integral(a) else np.floor(self._real(a))

        return self._map(floor, e.args[0])

    def of_parity(self, e: Parity) -> Field:
        def sign(i: Array, j: Array, k: Array) -> Array:
            return (i - j) * (j - k) * (k - i) // 2

        return self._map(sign, *cast("Any", e.args))

    def of_quo(self, e: Quo) -> Field:
        return self._map(np.floor_divide, *cast("Any", e.args))

    def of_rem(self, e: Rem) -> Field:
        return self._map(np.remainder, *cast("Any", e.args))


def _sum(array: Array, axes: tuple[int, ...]) -> Array:
    counted = array.astype(np.int64) if is_integral(array) else array
    return np.asarray(counted.sum(axis=axes)) if axes else counted


_COMPARISONS: dict[Any, Callable[..., Any]] = {
    Less: np.less,
    LessEqual: np.less_equal,
    Equal: np.equal,
    Delta: np.equal,
}

_METHODS: tuple[tuple[Any, Callable[[Interpreter, Any], Field]], ...] = (
    (Index, Interpreter.of_index),
    (Symbol, Interpreter.of_symbol),
    (Integer, Interpreter.of_integer),
    (Indexed, Interpreter.of_access),
    (sp.Add, Interpreter.of_add),
    (sp.Mul, Interpreter.of_mul),
    (sp.Pow, Interpreter.of_pow),
    (Sigma, Interpreter.of_sigma),
    (Amax, Interpreter.of_amax),
    (Product, Interpreter.of_product),
    (BRACKETS, Interpreter.of_compare),
    (Where, Interpreter.of_where),
    (Sign, Interpreter.of_sign),
    (Floor, Interpreter.of_floor),
    (Parity, Interpreter.of_parity),
    (Quo, Interpreter.of_quo),
    (Rem, Interpreter.of_rem),
)

__all__ = ["BINDERS", "Field", "Head", "Interpreter", "align"]
