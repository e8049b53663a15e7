"""Torch calls as Python text, in the user's spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import sympy as sp
import torch
from sympy import Expr
from sympy.printing.str import StrPrinter

from engine.notation import Part, Quo, Rem, in_wholes
from engine.own import is_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Ref:
    """A tensor argument: the position of the operand in its node's list."""

    position: int


@dataclass(frozen=True)
class SizeArg:
    """An argument computed from sizes."""

    expr: Expr


def is_slice(value: Any) -> TypeGuard[slice[Any, Any, Any]]:
    """`isinstance(value, slice)`, for type checkers too."""
    return isinstance(value, slice)


def with_bounds(function: Callable[[Any], Any], s: slice[Any, Any, Any]) -> slice[Any, Any, Any]:
    """A slice with `function` applied to its start, stop and step."""
    return slice(function(s.start), function(s.stop), function(s.step))


LONG = 10**6
"""A fraction with a larger denominator is written as a decimal."""


class _SizePrinter(StrPrinter):
    """Python text of an expression in sizes: `//` and `%` for Quo and Rem, `**` for roots."""

    def parenthesize(self, item: Any, level: int, strict: bool = False) -> str:
        """Parentheses by precedence; `//` and `%` inside of anything always have them."""
        if isinstance(item, (Quo, Rem)):
            return f"({self._print(item)})"
        return StrPrinter.parenthesize(self, item, level, strict)

    def _print_Quo(self, e: Expr) -> str:
        a, b = (self.parenthesize(x, 60) for x in e.args)
        return f"{a} // {b}"

    def _print_Rem(self, e: Expr) -> str:
        a, b = (self.parenthesize(x, 60) for x in e.args)
        return f"{a} % {b}"

    def _print_Pow(self, expr: Expr, rational: bool = False) -> str:
        b, e = expr.args
        if e == sp.S.Half:
            return f"{self.parenthesize(b, 70)} ** 0.5"
        if e == -sp.S.Half:
            return f"{self.parenthesize(b, 70)} ** -0.5"
        text = StrPrinter._print_Pow(self, expr, rational=rational)
        return re.sub(r"^1/", "1 / ", text.replace("**", " ** "))

    def _print_Float(self, expr: Expr) -> str:
        return repr(float(expr))

    def _print_log(self, expr: Expr) -> str:
        return f"math.log({self._print(expr.args[0])})"

    def _print_exp(self, expr: Expr) -> str:
        return f"math.exp({self._print(expr.args[0])})"

    def _print_Mul(self, expr: Expr) -> str:
        return re.sub(r"\s*(\*\*|//|\*|/)\s*", r" \1 ", StrPrinter._print_Mul(self, expr))


def size_text(e: Expr) -> str:
    """A size as Python."""
    if e.is_Symbol and not isinstance(e, Part):
        return str(e)
    long = {r: sp.Float(float(r), 17) for r in e.atoms(sp.Rational) if r.q > LONG}
    long |= {f: sp.Float(float(f), 17) for f in e.atoms(sp.log, sp.exp, sp.NumberSymbol) if f.is_number}
    return _SizePrinter().doprint(in_wholes(e).xreplace(long))


def quoted(text: str) -> str:
    """A Python string literal in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def shape_text(shape: Sequence[Expr]) -> str:
    """A shape as Python: `(n, 27)`, `(n,)`, `()`."""
    return f"({listed(map(size_text, shape))})"


def entries(items: Iterable[str], between: str = ", ", start: str = "", width: int = 110) -> list[str]:
    """Items one after the other over several lines, broken between two of them and indented from the second line on."""
    lines = [start]
    given = list(items)
    for k, item in enumerate(given):
        text = item + (between.rstrip() if k + 1 < len(given) else "")
        if lines[-1].strip() and len(lines[-1]) + 1 + len(text) > width:
            lines.append(f"    {text}")
        else:
            lines[-1] += (" " if lines[-1].strip() else "") + text
    return lines


def listed(items: Iterable[str]) -> str:
    """What stands between the parentheses of a tuple: `a, b` or `a,`."""
    given = list(items)
    return ", ".join(given) + ("," if len(given) == 1 else "")


_BINARY = {
    "__add__": "{0} + {1}",
    "__radd__": "{1} + {0}",
    "__iadd__": "{0} + {1}",
    "__sub__": "{0} - {1}",
    "__rsub__": "{1} - {0}",
    "__isub__": "{0} - {1}",
    "__mul__": "{0} * {1}",
    "__rmul__": "{1} * {0}",
    "__imul__": "{0} * {1}",
    "__truediv__": "{0} / {1}",
    "__itruediv__": "{0} / {1}",
    "__idiv__": "{0} / {1}",
    "__rtruediv__": "{1} / {0}",
    "__rdiv__": "{1} / {0}",
    "__matmul__": "{0} @ {1}",
    "__rmatmul__": "{1} @ {0}",
    "__pow__": "{0} ** {1}",
    "__rpow__": "{1} ** {0}",
    "__neg__": "-{0}",
    "__abs__": "{0}.abs()",
    "__gt__": "{0} > {1}",
    "__lt__": "{0} < {1}",
    "__ge__": "{0} >= {1}",
    "__le__": "{0} <= {1}",
    "__eq__": "{0} == {1}",
    "__ne__": "{0} != {1}",
    "__and__": "{0} & {1}",
    "__or__": "{0} | {1}",
    "__invert__": "~{0}",
    "matmul": "{0} @ {1}",
    "pow": "{0} ** {1}",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "gt": "{0} > {1}",
    "lt": "{0} < {1}",
    "ge": "{0} >= {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "neg": "-{0}",
    "rsub": "{1} - {0}",
}


def decimals(t: torch.Tensor) -> Any:
    """A tensor's numbers, as nested lists: 0.1 where float32 has the number next to it, for that is what was meant."""

    def shortest(x: float) -> float:
        texts = (f"{x:.{digits}g}" for digits in range(1, 10))
        return next((float(s) for s in texts if torch.tensor(float(s), dtype=t.dtype).item() == x), x)

    def within(values: Any) -> Any:
        return [within(v) for v in cast("list[Any]", values)] if isinstance(values, list) else shortest(values)

    values: Any = cast("Any", t).tolist()
    return within(values) if t.is_floating_point() and t.dtype != torch.float64 else values


def value_text(value: Any, names: Sequence[str]) -> str:
    """An argument as Python: tensors by name, sizes as expressions, slices as they are written inside of brackets."""
    if isinstance(value, Ref):
        return names[value.position]
    if isinstance(value, SizeArg):
        return size_text(value.expr)
    if is_slice(value):
        start, stop = ("" if bound is None else value_text(bound, names) for bound in (value.start, value.stop))
        return f"{start}:{stop}" + ("" if value.step is None else ":" + value_text(value.step, names))
    if isinstance(value, tuple):
        return f"({listed(value_text(v, names) for v in cast('tuple[Any, ...]', value))})"
    if isinstance(value, list):
        return "[" + ", ".join(value_text(v, names) for v in cast("list[Any]", value)) + "]"
    if value is Ellipsis:
        return "..."
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return 'float("inf")' if value > 0 else '-float("inf")'
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return f'torch.device("{value}")' if isinstance(value, torch.device) else str(value)
    if isinstance(value, float) and value != value:
        return 'float("nan")'
    return repr(value)


def item_text(item: Any, names: Sequence[str]) -> str:
    """What stands inside of the brackets of an indexing."""
    if isinstance(item, tuple) and item:
        return listed(value_text(v, names) for v in cast("tuple[Any, ...]", item))
    return value_text(item, names)


def operand(text: str) -> str:
    """An expression as it stands in a larger one: in parentheses if it needs them."""
    simple = all(c.isalnum() or c in "_." for c in text.replace("e-", "e", 1)) and not text.startswith("-")
    closed = (
        text.endswith((")", "]"))
        and not text.startswith("(")
        and " " not in text.split("(", maxsplit=1)[0].split("[", maxsplit=1)[0]
    )
    return text if simple or closed else f"({text})"


def render_call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]
) -> str:
    """One torch call as the Python expression a person would write for it."""
    name = str(getattr(function, "__name__", function))
    owner = getattr(function, "__self__", None)
    if name == "__get__" and owner is not None:
        return f"{value_text(args[0], names)}.{owner.__name__}"
    if name == "__getitem__":
        return f"{value_text(args[0], names)}[{item_text(args[1], names)}]"
    given = [value_text(a, names) for a in args]
    if name in _BINARY and not kwargs and len(args) == _BINARY[name].count("{"):
        return _BINARY[name].format(*[operand(g) for g in given])
    usual = defaults(function)
    extra = [
        f"{k}={value_text(v, names)}"
        for k, v in kwargs.items()
        if k not in usual or not (usual[k] is v or (type(usual[k]) is type(v) and usual[k] == v))
    ]
    if getattr(torch.Tensor, name, None) is function and isinstance(args[0], Ref):
        return f"{given[0]}.{name}({', '.join([*given[1:], *extra])})"
    whole = qualified(function)
    if kwargs.get("return_indices") is True:  # asks the public function for what the other one is
        whole = whole.removesuffix("_with_indices")
    return f"{whole}({', '.join([*given, *extra])})"


@cache
def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function takes for arguments that are not given, where that is nothing, a truth value, a number or a word."""
    try:
        given = signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return {}
    return {p.name: p.default for p in given if p.default is None or type(p.default) in (bool, int, float, str)}


ATEN = (type(torch.ops.aten.tanh_backward), type(torch.ops.aten.tanh_backward.default))
"""What torch's own kernels are, called past its Python functions."""
SPACES = (torch, torch.nn.functional, torch.special, torch.linalg)


def qualified(function: Callable[..., Any]) -> str:
    """A torch function's full name. Some call themselves by another (`logsigmoid` says `log_sigmoid`)."""
    if isinstance(function, ATEN):
        return f"torch.ops.{function}"
    own = str(getattr(function, "__name__", ""))
    if is_operator(function):
        return f"torch.ops.{str(function).replace('::', '.')}"
    for space in SPACES:
        if getattr(space, own, None) is function:
            return f"{space.__name__}.{own}"
    for space in SPACES:
        for name, value in vars(space).items():
            if value is function:
                return f"{space.__name__}.{name}"
    return f"torch.{own}"
