"""Torch expressions as data, and their text. Small on purpose: names, operators, calls, methods, attributes, brackets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr

from engine.spelling import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PRECEDENCE = {
    "|": 1,
    "&": 2,
    "<": 0,
    "<=": 0,
    "==": 0,
    ">": 0,
    ">=": 0,
    "!=": 0,
    "%": 5,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "//": 5,
    "@": 5,
    "neg": 6,
    "~": 6,
    "**": 7,
}
ATOM = 9


@dataclass(frozen=True)
class T:
    """One torch (or size) expression: `kind` is name, number, size, binary, unary, call, method, attribute or item."""

    kind: str
    head: str
    args: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()


def name(text: str) -> T:
    return T("name", text)


def number(value: Any) -> T:
    return T("number", repr(value) if isinstance(value, float) else str(value))


def size(e: Expr) -> T:
    return T("size", "", (e,))


def binary(symbol: str, a: T, b: T) -> T:
    return T("binary", symbol, (a, b))


def unary(symbol: str, a: T) -> T:
    return T("unary", symbol, (a,))


def call(function: str, *args: Any, **keywords: Any) -> T:
    return T("call", function, args, tuple(keywords.items()))


def method(obj: T, function: str, *args: Any, **keywords: Any) -> T:
    return T("method", function, (obj, *args), tuple(keywords.items()))


def attribute(obj: T, text: str) -> T:
    return T("attribute", text, (obj,))


def item(obj: T, *items: Any) -> T:
    return T("item", "", (obj, *items))


def slice_(start: Expr | None, stop: Expr | None, step: Expr | None = None) -> T:
    """What stands between brackets for a run of a dimension; None where the dimension's own end is meant."""
    return T("slice", "", (start, stop, step))


EVERYTHING = slice_(None, None)


def walk(t: Any) -> Iterator[T]:
    """Every expression inside of an expression, itself first."""
    stack = [t]
    while stack:
        x = stack.pop()
        if isinstance(x, T):
            yield x
            stack.extend(reversed([*x.args, *[v for _, v in x.keywords]]))
        elif isinstance(x, tuple):
            stack.extend(reversed(cast("tuple[Any, ...]", x)))


def rename(t: Any, names: Mapping[str, str], sizes: Mapping[Any, Expr]) -> Any:
    """A template's expression with its placeholder names and sizes filled in."""
    if isinstance(t, T):
        if t.kind == "name":
            return T("name", names.get(t.head, t.head))
        if not t.args and not t.keywords:
            return t
        args = tuple(rename(a, names, sizes) for a in t.args)
        return T(t.kind, t.head, args, tuple((k, rename(v, names, sizes)) for k, v in t.keywords))
    if isinstance(t, tuple):
        return tuple(rename(a, names, sizes) for a in cast("tuple[Any, ...]", t))
    return t.xreplace(sizes) if isinstance(t, Expr) and sizes else t


def argument(value: Any) -> str:
    """An argument as Python text."""
    if isinstance(value, T):
        return text(value)
    if isinstance(value, Expr):
        return size_text(value)
    if isinstance(value, tuple):
        items = [argument(v) for v in cast("tuple[Any, ...]", value)]
        return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
    return str(value)


def text(t: T, outer: int = -1) -> str:
    """An expression as Python text, with parentheses only where they are needed."""
    if t.kind in ("name", "number"):
        bare = t.head
        return f"({bare})" if bare.startswith("-") and outer > _PRECEDENCE["-"] else bare
    if t.kind == "size":
        bare = size_text(t.args[0])
        loose = ((" * " in bare or " / " in bare or " // " in bare) and 5) or (" ** " in bare and 7) or ATOM
        if " + " in bare or " - " in bare[1:]:
            loose = 4
        return f"({bare})" if loose < outer or (loose == outer and loose < ATOM) else bare
    if t.kind == "binary":
        level = _PRECEDENCE[t.head]
        right = level + (0 if t.head in ("+", "*") and not _is(t.args[1], "-", "/", "@", "//") else 1)
        left = level + (1 if t.head in ("**", "<", "<=", "==", ">", ">=", "!=") else 0)
        bare = f"{text(t.args[0], left)} {t.head} {text(t.args[1], right)}"
        return f"({bare})" if level < outer else bare
    if t.kind == "unary":
        symbol = "-" if t.head == "neg" else t.head
        bare = f"{symbol}{text(t.args[0], _PRECEDENCE[t.head])}"
        return f"({bare})" if _PRECEDENCE[t.head] < outer else bare
    if t.kind == "slice":
        start, stop, step = ("" if a is None else size_text(a) for a in t.args)
        return f"{start}:{stop}" + (f":{step}" if step else "")
    keywords = [f"{k}={argument(v)}" for k, v in t.keywords]
    if t.kind == "call":
        return f"{t.head}({', '.join([*map(argument, t.args), *keywords])})"
    obj = text(t.args[0], ATOM)
    if t.kind == "method":
        return f"{obj}.{t.head}({', '.join([*map(argument, t.args[1:]), *keywords])})"
    if t.kind == "attribute":
        return f"{obj}.{t.head}"
    return f"{obj}[{', '.join(map(argument, t.args[1:]))}]"


def _is(t: T, *symbols: str) -> bool:
    return t.kind == "binary" and t.head in symbols
