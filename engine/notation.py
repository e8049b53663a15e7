"""Index notation: one sympy scalar expression for one element of a tensor.

`hpreact[i,k] = Sigma(emb[i,j]*w1[j,k], (j, n))` is written with sympy's `Indexed` for accesses and the inert heads
below for what sympy would otherwise evaluate wrongly or slowly: finite sums, Kronecker deltas, brackets and choices.
Truth values are the numbers 0 and 1, so conditions multiply like anything else.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import sympy as sp
from sympy import Expr, Integer, Symbol, Tuple

from engine.indexed import Indexed, IndexedBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")
_counter = count()


class Index(Symbol):
    """An index symbol. Fresh ones are numbered, so that two sums never share a bound index by accident."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        known = _NAMED.get(name)
        if known is None:
            known = _NAMED[name] = Symbol.__new__(cls, name, integer=True, nonnegative=True)
        return cast("Self", known)


_NAMED: dict[str, Index] = {}
"""Those that were made by a name. There are few names, and what sympy looks up for a symbol takes longer than this."""
_ANY = Index("any")
_ASSUMED = [s for s in ("_assumptions", "_assumptions_orig", "_assumptions0") if hasattr(_ANY, s)]


def fresh(prefix: str = "i") -> Index:
    """A new index, different from every other one of this process. Names sort as they were made, for any number of them.

    sympy orders by name, so what is emitted would else depend on what was derived before. What sympy knows of one index it
    knows of all: to derive it anew is most of what making one takes.
    """
    index: Any = sp.Expr.__new__(Index)
    index.name = f"{prefix}_{next(_counter):09d}"
    for slot in _ASSUMED:
        setattr(index, slot, getattr(_ANY, slot))
    return cast("Index", index)


def size_symbol(name: str) -> Symbol:
    """The symbol of a tensor dimension."""
    return Symbol(name, integer=True, positive=True)


class Part(Symbol):
    """A size over a number that divides it: a size of its own, of which the whole is a multiple.

    Where a forward holds only for sizes without a rest, `d // 2` is one of these, and d is two of it.
    """

    __slots__ = ("count", "whole")

    def __new__(cls, whole: Symbol, count: int) -> Self:
        self = Symbol.__new__(cls, f"{whole} // {count}", integer=True, positive=True)
        self.whole, self.count = whole, count
        return self


def in_wholes(e: Any) -> Any:
    """An expression with parts of sizes written as quotients, and with as many of them as there are as the size itself."""
    if isinstance(e, Part):
        return Quo(e.whole, e.count)
    if not isinstance(e, Expr) or not e.atoms(Part):
        return e
    if not isinstance(e, sp.Mul):
        return e.func(*map(in_wholes, e.args))
    times = sp.Mul(*[f for f in e.args if f.is_number])
    factors: list[Any] = []
    for f in e.args:
        if f.is_number:
            continue
        part, power = f.as_base_exp()
        if isinstance(part, Part) and power.is_Rational and not power.is_Integer:
            left = times / Integer(part.count) ** power
            if left.is_Rational and (not times.is_Rational or (left if power > 0 else 1 / left).is_Integer):
                times = left
                factors.append(part.whole**power)
                continue
        if not isinstance(part, Part) or not power.is_Integer:
            factors.append(in_wholes(f))
            continue
        one = 1 if power > 0 else -1
        while power and (times**one / part.count).is_Integer:
            times, power = times / Integer(part.count) ** one, power - one
            factors.append(part.whole**one)
        factors.append(Quo(part.whole, part.count) ** power)
    return sp.Mul(times, *factors)


def sizes_in(e: Expr) -> set[Any]:
    """The sizes that the text of an expression names."""
    return {s.whole if isinstance(s, Part) else s for s in e.free_symbols}


@lru_cache(maxsize=2**12)
def base(name: str, positive: bool = False, integer: bool = False) -> IndexedBase:
    """The tensor `name` in index notation; `positive` lets sympy take logarithms and powers of its elements apart."""
    if integer:
        return IndexedBase(Symbol(name, integer=True))
    return IndexedBase(Symbol(name, positive=True) if positive else Symbol(name, real=True))


def element(tensor: IndexedBase, indices: Sequence[Expr]) -> Indexed:
    """One element of a tensor. sympy wants at least one index, so a tensor of rank 0 is read at 0."""
    return tensor[tuple(indices)] if len(indices) else tensor[0]


def name_of(access: Indexed) -> str:
    """The name of the tensor that an access reads."""
    return str(getattr(access.base.label, "name", access.base.label))


class Head(sp.Function):
    """An inert function: never evaluated by sympy beyond what `eval` says."""

    is_commutative = True
    is_real = True

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        body = self._math(printer)
        return body if exp is None else rf"\left({body}\right)^{{{exp}}}"

    def _math(self, printer: Any) -> str:
        inner = ", ".join(printer._print(a) for a in self.args)
        return rf"\operatorname{{{type(self).__name__.lower()}}}\left({inner}\right)"


class Bounded(Head):
    """What is made of `body` over bound indices, `(body, (i, n), (j, m), ...)`, and has the sign that all of it has."""

    @classmethod
    def eval(cls, *args: Any) -> None:
        return None

    @property
    def body(self) -> Expr:
        return self.args[0]

    @property
    def limits(self) -> tuple[tuple[Index, Expr], ...]:
        return cast("tuple[tuple[Index, Expr], ...]", tuple(t.args for t in self.args[1:]))

    def _eval_is_positive(self) -> bool | None:
        return True if self.body.is_positive else None

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.body.is_nonnegative else None


class Sigma(Bounded):
    """`Sigma(body, (i, n), (j, m), ...)`: the finite sum of `body` over i < n, j < m, ... Bound indices are fresh.

    sympy's own `Sum` turns deltas into Piecewise when it is evaluated, so it is not used.
    """

    def _math(self, printer: Any) -> str:
        lower = ", ".join(printer._print(i) for i, _ in self.limits)
        inner = printer._print(self.body)
        grouped = self.body.is_Add or self.body.could_extract_minus_sign()
        return rf"\sum_{{{lower}}} " + (rf"\left({inner}\right)" if grouped else inner)


class Delta(Head):
    """Kronecker's delta of two integer expressions: 1 where they are equal, else 0."""

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if a == b:
            return sp.S.One
        if not (isinstance(a, (Index, Indexed)) and isinstance(b, (Index, Indexed))):  # two of those may be equal
            difference = a - b
            if difference.is_Integer or difference.is_positive or difference.is_negative:
                return sp.S.Zero
        if sp.default_sort_key(a) > sp.default_sort_key(b):
            return cls(b, a)
        return None

    def _eval_is_nonnegative(self) -> bool:
        return True

    def _eval_power(self, exponent: Any) -> Expr | None:
        """Itself: zero and one are their own powers."""
        return self if exponent.is_Integer and exponent.is_positive else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        a, b = (printer._print(x) for x in self.args)
        return rf"\delta_{{{a},\,{b}}}"


class Parity(Head):
    """The sign of the permutation (i, j, k) of (0, 1, 2), 0 where two of them are equal: Levi-Civita's symbol of a vector product."""

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        i, j, k = args
        if i in (j, k) or j == k:
            return sp.S.Zero
        return cls.polynomial(i, j, k) if all(x.is_Integer for x in args) else None

    @staticmethod
    def polynomial(i: Any, j: Any, k: Any) -> Expr:
        """The sign by arithmetic with the positions."""
        return cast("Expr", (i - j) * (j - k) * (k - i) / 2)

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        return rf"\varepsilon_{{{', '.join(printer._print(x) for x in self.args)}}}"


def counts(e: Any) -> bool:
    """Whether an expression is about indices and sizes only.

    Those can be compared symbolically; a tensor's elements cannot, whatever sympy knows of their sign: they underflow,
    and may be infinite or nan.
    """
    return not e.has(Indexed) and all(s.is_integer for s in e.free_symbols)


class Less(Head):
    """The Iverson bracket [a < b]."""

    symbol = "<"
    latex_symbol = "<"

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if a is sp.zoo:  # 1/0 of a zero that is known, which floats take for a positive one
            return sp.S.Zero
        if not (counts(a) and counts(b)):
            return None
        if a == b:  # infinities have no difference
            return sp.S.Zero
        difference = b - a
        if difference.is_extended_positive:
            return sp.S.One
        if difference.is_extended_nonpositive:
            return sp.S.Zero
        return None

    def _eval_is_nonnegative(self) -> bool:
        return True

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        a, b = (printer._print(x) for x in self.args)
        return rf"\left[{a} {self.latex_symbol} {b}\right]"


class LessEqual(Less):
    """The Iverson bracket [a <= b]."""

    symbol = "<="
    latex_symbol = r"\leq"

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if b is sp.zoo:
            return sp.S.One
        if not (counts(a) and counts(b)):
            return None
        if a == b:
            return sp.S.One
        difference = b - a
        if difference.is_extended_nonnegative:
            return sp.S.One
        if difference.is_extended_negative:
            return sp.S.Zero
        return None


class Equal(Head):
    """The Iverson bracket [a == b] of two real values (`Delta` is the one of two integer indices)."""

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if isinstance(a, BRACKETS) and b == 0:
            return 1 - a
        if not (counts(a) and counts(b)):
            return None
        difference = a - b
        if a == b or difference == 0:
            return sp.S.One
        return sp.S.Zero if difference.is_extended_positive or difference.is_extended_negative else None

    def _eval_is_nonnegative(self) -> bool:
        return True

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        a, b = (printer._print(x) for x in self.args)
        return rf"\left[{a} = {b}\right]"


def negated(condition: Any) -> Any:
    """What is false where a condition holds: x of `1 - x`; None for any other condition."""
    return 1 - condition if condition.is_Add and isinstance(1 - condition, Indexed) else None


class Where(Head):
    """`Where(condition, a, b)`: a where the condition (0 or 1) holds, else b.

    The branch not taken is never used, nor is its derivative: a product with the bracket would make 0 times infinity
    of it.
    """

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        condition, a, b = args
        if condition == 1:
            return a
        if condition == 0:
            return b
        if a == b:
            return a
        if a == 1 and b == 0:
            return condition
        if a == 0 and b == 1:
            return 1 - condition
        if isinstance(condition, sp.Add) and isinstance(1 - condition, BRACKETS):
            return cls(1 - condition, b, a)
        return None

    def _eval_derivative(self, s: Expr) -> Expr:
        condition, a, b = self.args
        return Where(condition, a.diff(s), b.diff(s))

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[1].is_positive and self.args[2].is_positive else None

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.args[1].is_nonnegative and self.args[2].is_nonnegative else None

    def _math(self, printer: Any) -> str:
        other = negated(self.args[0])
        condition, a, b = (printer._print(x) for x in (other or self.args[0], *self.args[1:]))
        word = "if" if other is None else "if not"
        return rf"\begin{{cases}} {a} & \text{{{word} }} {condition} \\ {b} & \text{{else}} \end{{cases}}"


class Sign(Head):
    """The sign of a real number, 0 at 0. Its derivative is 0, torch's convention at the kink."""

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        (a,) = args
        if a.is_positive:
            return sp.S.One
        if a.is_zero:
            return sp.S.Zero
        if a.is_negative:
            return sp.S.NegativeOne
        return None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero


class Floor(Head):
    """The largest integer not above a real number. Its derivative is 0, torch's convention at the steps."""

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        (a,) = args
        return sp.floor(a) if a.is_number or a.is_integer else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        return rf"\left\lfloor {printer._print(self.args[0])} \right\rfloor"


class Quo(Head):
    """Integer quotient of a nonnegative index expression by a size."""

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if b == 1:
            return a
        if a.is_zero:
            return sp.S.Zero
        if a.is_Integer and b.is_Integer:
            return Integer(int(a) // int(b))
        return Quo(a.args[0], a.args[1] * b) if isinstance(a, Quo) else None

    def _math(self, printer: Any) -> str:
        a, b = (printer._print(x) for x in self.args)
        return rf"\left\lfloor {a} / {b} \right\rfloor"


class Rem(Head):
    """Remainder of a nonnegative index expression by a size."""

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        a, b = args
        if b == 1 or a.is_zero:
            return sp.S.Zero
        if a.is_Integer and b.is_Integer:
            return Integer(int(a) % int(b))
        return None

    def _math(self, printer: Any) -> str:
        a, b = (printer._print(x) for x in self.args)
        return rf"\left({a} \bmod {b}\right)"


class Amax(Head):
    """`Amax(body, (i, n), ...)`: the largest value of `body` over the indices.

    Only ever a shift or a comparison: what is differentiated is a `Largest`.
    """

    body = Sigma.body
    limits = Sigma.limits

    def fdiff(self, argindex: int = 1) -> Expr:
        return sp.S.Zero

    def _math(self, printer: Any) -> str:
        lower = ", ".join(printer._print(i) for i, _ in self.limits)
        return rf"\max_{{{lower}}} {printer._print(self.body)}"


class Largest(Amax):
    """`Largest(body, (i, n), ...)`: the largest value, with torch's derivative: ties share it evenly.

    It is that of `Sum_i [body = m] body / Sum_i [body = m]` for the largest value m.
    """

    def shares(self, body: Expr) -> Expr:
        """What `body`, which is that of other indices, has of the derivative: `[body = m] / Sum_i [body = m]`."""
        copy = {i: fresh() for i, _ in self.limits}
        limits = [(copy[i], n) for i, n in self.limits]
        return Equal(body, self) / sigma(Equal(self.body.xreplace(copy), self), *limits)


class Smallest(Largest):
    """`Smallest(body, (i, n), ...)`: the smallest value, whose derivative ties share evenly, too."""

    def _math(self, printer: Any) -> str:
        return super()._math(printer).replace(r"\max", r"\min", 1)


class Product(Bounded):
    """`Product(body, (i, n), ...)`: the product of `body` over i < n, ... Bound indices are fresh.

    Its derivative is a sum over its factors, each time of the product of all others: nothing is divided by a factor.
    """

    def _math(self, printer: Any) -> str:
        lower = ", ".join(printer._print(i) for i, _ in self.limits)
        inner = printer._print(self.body)
        return rf"\prod_{{{lower}}} " + (rf"\left({inner}\right)" if self.body.is_Add else inner)


class Fixed(Amax):
    """`Fixed(e)`: the value of `e`, taken as a constant, as torch takes what it computes under `no_grad`.

    It is the largest value over no index at all. A number is one already.
    """

    @classmethod
    def eval(cls, *args: Any) -> Expr | None:
        return args[0] if args[0].is_number else None

    def _math(self, printer: Any) -> str:
        return rf"\overline{{{printer._print(self.args[0])}}}"


BRACKETS = (Less, Equal, Delta)
"""What is 0 or 1 by itself."""

BINDERS = (Sigma, Amax, Product)


def sigma(body: Expr, *limits: tuple[Index, Expr]) -> Expr:
    """An inert sum; of nothing it is the body, of an index of size one the body at 0."""
    kept: list[Tuple] = []
    for index, size in limits:
        if size == 1:
            body = body.xreplace({index: sp.S.Zero})
        else:
            kept.append(Tuple(index, size))
    return Sigma(body, *kept) if kept and body != 0 else body


def parts(e: Any, kinds: Any) -> set[Any]:
    """The parts of an expression that are of some types, itself included: what `atoms` finds, in a third of its time."""
    found = set[Any]()
    stack = [e]
    while stack:
        x = stack.pop()
        if isinstance(x, kinds):
            found.add(x)
        stack += x.args
    return found


@lru_cache(maxsize=2**16)
def holds(e: Any, *kinds: type) -> bool:
    """Whether a part of an expression is of one of some types: what `has` finds, remembered for the parts as well."""
    return isinstance(e, kinds) or any(holds(a, *kinds) for a in e.args)


def bound(e: Expr) -> set[Index]:
    """The bound indices of every sum inside of an expression."""
    return {i for b in parts(e, BINDERS) for i, _ in b.limits}


def free_indices(e: Expr) -> set[Index]:
    """The indices an expression depends on, bound ones left out."""
    return {s for s in e.free_symbols if isinstance(s, Index)} - bound(e)


def instantiate(e: Expr, where: Mapping[Any, Any]) -> Expr:
    """`e` with indices or sizes replaced, and every bound index by a fresh one, so that copies never collide."""
    mapping = dict(where)
    mapping.update({i: fresh() for i in _bound_in_order(e)})
    return e.xreplace(mapping)


@lru_cache(maxsize=2**12)
def _bound_in_order(e: Expr) -> tuple[Index, ...]:
    return tuple(ordered(bound(e)))


def ordered(items: Iterable[T]) -> list[T]:
    """A set in an order that does not depend on the hash seed."""
    found = list(items)
    return sorted(found, key=sp.default_sort_key) if len(found) > 1 else found


def accesses(e: Expr, name: str | None = None) -> list[Indexed]:
    """Every access (of the tensor `name`) in an expression, in a fixed order."""
    return [a for a in _accesses(e) if name is None or name_of(a) == name]


@lru_cache(maxsize=2**14)
def _accesses(e: Expr) -> tuple[Indexed, ...]:
    return tuple(ordered(parts(e, Indexed)))


def canonical(e: Expr, where: Mapping[Any, Any] | None = None) -> Expr:
    """Bound indices renamed in the order in which a walk from the root meets them: equal sums become equal objects.

    `where` says what free indices, sizes and tensors are replaced by.
    """
    numbers = count()

    def walk(x: Any, mapping: dict[Any, Any]) -> Any:
        if isinstance(x, BINDERS):
            inner = dict(mapping)
            names = [Index(f"_b{next(numbers)}") for _ in x.limits]
            inner.update({i: b for (i, _), b in zip(x.limits, names, strict=True)})
            limits = [Tuple(b, walk(s, mapping)) for (_, s), b in zip(x.limits, names, strict=True)]
            return x.func(walk(x.body, inner), *limits)
        if not x.args:
            return mapping.get(x, x)
        if isinstance(x, IndexedBase):
            return mapping.get(x, x)
        args = [walk(a, mapping) for a in x.args]
        return x.func(*args) if any(a is not b for a, b in zip(args, x.args, strict=True)) else x

    return walk(e, dict(where or {}))
