"""`Value`: a number that remembers how it was computed, with micrograd's interface."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

from engine.bridge import trace_value
from engine.errors import InputError
from engine.scalar import Rule, exponential, power, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.graph import Graph


class Value:
    """A scalar with `data` and, after `backward()` of something computed from it, `grad`.

    `+ - * / **`, `relu`, `tanh`, `exp` and `log` make new values, from values and real numbers in either place; only
    in `**` one side must be a number. Numbers are float64, and poles and overflows give inf or nan as in torch.

        a = Value(2.0, label="a")
        b = (a * a + 1).log()
        b.backward()
        a.grad  # 0.8

    Raises InputError for data that is not a real number.
    """

    __slots__ = ("_prev", "_rule", "data", "grad", "label")

    _prev: tuple[Value, ...]
    _rule: Rule | None
    data: float
    grad: float
    label: str

    def __init__(self, data: float, label: str = "") -> None:
        if not _is_number(data):
            raise InputError(f"Value(...) takes a real number, got {type(data).__name__}: {data!r}")
        self.data, self.grad, self.label = float(data), 0.0, label
        self._rule, self._prev = None, ()

    @property
    def rule(self) -> Rule | None:
        """The op this value is the result of; None for a value made from a number."""
        return self._rule

    @property
    def operands(self) -> tuple[Value, ...]:
        """What the op was applied to, in its order."""
        return self._prev

    @property
    def _op(self) -> str:
        return self._rule.sign if self._rule else ""

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    # -- what can be computed ----------------------------------------------------------------------------------

    def __add__(self, other: Value | float) -> Value:
        return _binary("+", self, other)

    def __radd__(self, other: float) -> Value:
        return _binary("+", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return _binary("-", self, other)

    def __rsub__(self, other: float) -> Value:
        return _binary("-", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return _binary("*", self, other)

    def __rmul__(self, other: float) -> Value:
        return _binary("*", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return _binary("/", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return _binary("/", other, self)

    def __pow__(self, exponent: float) -> Value:
        if isinstance(exponent, Value):
            raise InputError(
                "Value ** Value is not supported: one side must be a number. "
                "For a positive base write (exponent * base.log()).exp()."
            )
        return _result(power(exponent), self) if _is_number(exponent) else NotImplemented

    def __rpow__(self, base: float) -> Value:
        return _result(exponential(base), self) if _is_number(base) else NotImplemented

    def __neg__(self) -> Value:
        return _result(rule("neg"), self)

    def relu(self) -> Value:
        """The value where it is positive, else 0; the derivative at 0 is 0, as in torch."""
        return _result(rule("ReLU"), self)

    def tanh(self) -> Value:
        """The hyperbolic tangent."""
        return _result(rule("tanh"), self)

    def exp(self) -> Value:
        """The exponential function."""
        return _result(rule("exp"), self)

    def log(self) -> Value:
        """The natural logarithm; -inf at 0 and nan below."""
        return _result(rule("log"), self)

    # -- what can be asked -------------------------------------------------------------------------------------

    def walk(self, until: Iterable[Value] = ()) -> list[Value]:
        """Every value this one was computed from, each once, operands before results and this one last.

        The operands of the values in `until` are left out.
        """
        seen: set[Value] = set()
        closed = set(until)
        order: list[Value] = []
        stack: list[tuple[Value, bool]] = [(self, False)]
        while stack:
            value, ready = stack.pop()
            if ready:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                stack.append((value, True))
                if value not in closed:
                    stack.extend((o, False) for o in reversed(value._prev))
        return order

    def backward(self) -> None:
        """Add to the `grad` of every value this one was computed from its derivative of this one with respect to it.

        Gradients add up over calls, those of intermediate values too; set `grad` to 0 in between to start afresh.
        """
        cotangents: dict[Value, float] = {self: 1.0}
        for value in reversed(self.walk()):
            cotangent = cotangents.pop(value)
            value.grad += cotangent
            if value._rule is not None:
                partials = value._rule.partials(*[o.data for o in value._prev])
                for operand, partial in zip(value._prev, partials, strict=True):
                    cotangents[operand] = cotangents.get(operand, 0.0) + cotangent * partial

    def trace(self, inputs: Mapping[str, Value]) -> Graph:
        """This expression as a traced graph over 0-d float64 tensors, for which `codegen` can emit code.

        `inputs` names the values that become the graph's inputs, in their order; every other number becomes a constant.
        Labels become node names. Raises InputError: a name that is not an identifier, a value under two names, or an
        expression that depends on none of them.
        """
        return trace_value(self, inputs)


def _result(op: Rule, *operands: Value) -> Value:
    value = Value.__new__(Value)
    (value.data,) = op.value(*[o.data for o in operands])
    value.grad, value.label = 0.0, ""
    value._rule, value._prev = op, operands  # pyright: ignore[reportPrivateUsage]
    return value


def _binary(sign: str, left: Value | float, right: Value | float) -> Value:
    a, b = _operand(left), _operand(right)
    return NotImplemented if a is None or b is None else _result(rule(sign), a, b)


def _operand(x: Value | float) -> Value | None:
    if isinstance(x, Value):
        return x
    return Value(x) if _is_number(x) else None


def _is_number(x: object) -> bool:
    return isinstance(x, (float, int, Real))
