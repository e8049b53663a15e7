"""Torch expressions as data, and their text. Few kinds on purpose: names, operators, calls, attributes, brackets."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr, Integer, N

from engine.notation import Part, Quo, in_wholes
from engine.spelling import listed, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PRECEDENCE = {
    "<": 0, "<=": 0, "==": 0, ">": 0, ">=": 0, "!=": 0, "|": 1, "&": 2,
    "+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5, "@": 5, "neg": 6, "~": 6, "**": 7,
}  # fmt: skip
"""How strongly Python's operators bind."""
ATOM = 9
ASSOCIATIVE = ("+", "*")
RIGHT_TO_LEFT = ("**", "<", "<=", "==", ">", ">=", "!=")
"""Operators whose left operand needs parentheses if it has the same: powers, and comparisons, which Python chains."""
SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
}  # fmt: skip


@dataclass(frozen=True)
class T:
    """One torch (or size) expression: `kind` is name, number, size, binary, unary, starred, call, method, attribute or item."""

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


EACH = name('"none"')
"""How a loss of torch is told that every entry is wanted."""
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
        if t.kind == "binary" and t.head in ("*", "/"):
            whole = of_wholes(t.head, *args)
            if whole is not None:
                return whole
        return T(t.kind, t.head, args, tuple((k, rename(v, names, sizes)) for k, v in t.keywords))
    if isinstance(t, tuple):
        return tuple(rename(a, names, sizes) for a in cast("tuple[Any, ...]", t))
    return t.xreplace(sizes) if isinstance(t, Expr) and sizes else t


def of_wholes(symbol: str, a: T, b: T) -> T | None:
    """A product or quotient with so many parts of a size as one size: 4 of `d // 4` are d. None for others."""
    if a.kind == "number" and b.kind == "size":
        whole = times(a, b, 1 if symbol == "*" else -1)
        return whole if whole is None or symbol == "*" else binary("/", number(1), whole)
    if symbol == "*" and a.kind == "binary" and a.head == "/" and a.args[0] == number(1) and b.kind != "size":
        return binary("/", b, a.args[1]) if root_of_whole(a.args[1]) else None
    return None


def root_of_whole(t: T) -> bool:
    """Whether it is a root of one of the forward's sizes."""
    return t.kind == "size" and t.args[0].is_Pow and t.args[0].base.is_Symbol and not t.args[0].exp.is_Integer


def times(n: T, part: T, sign: int) -> T | None:
    """So many parts of a size, or so many per part (a sign of -1), where they are sizes of the forward; roots of them likewise."""
    base, power = part.args[0].as_base_exp()
    if isinstance(base, Part) and power.is_Rational and not power.is_Integer:
        same = float(n.head) == float(N(Integer(base.count) ** (sign * power), 30))
        return size(base.whole**power) if same else None
    if sign < 0 or not n.head.isdigit():
        return None
    whole = in_wholes(int(n.head) * part.args[0])
    return size(whole) if part.args[0].atoms(Part) and not whole.atoms(Quo) else None


def unsigned(t: T) -> tuple[bool, T]:
    """Whether an odd number of a product's factors have a minus, and the product without: `a * -b` is minus `a * b`."""
    if t.kind == "unary" and t.head == "neg":
        minus, inner = unsigned(t.args[0])
        return not minus, inner
    if t.kind != "binary" or t.head not in ("*", "/", "@"):
        return False, t
    (left, a), (right, b) = map(unsigned, t.args)
    return left != right, binary(t.head, a, b) if a is not t.args[0] or b is not t.args[1] else t


def puts_into_zeros(t: T) -> bool:
    """Whether an expression is values put into zeros, as they can be put into something else of its shape."""
    return (
        t.kind == "method" and t.head == "scatter_add" and t.args[0].kind == "method" and t.args[0].head == "new_zeros"
    )


def reduced_inside(t: Any) -> Any:
    """An expression in which a loss that torch adds up or averages itself is asked to do so, `loss(a, b, reduction="none").mean()`."""
    if not isinstance(t, T):
        return tuple(map(reduced_inside, cast("tuple[Any, ...]", t))) if isinstance(t, tuple) else t
    args = tuple(map(reduced_inside, t.args))
    keywords = tuple((k, reduced_inside(v)) for k, v in t.keywords)
    whole = t.kind == "method" and t.head in ("sum", "mean") and len(args) == 1 and not keywords
    inner = dict(args[0].keywords) if whole and args[0].kind == "call" else {}
    if inner.get("reduction") != EACH:
        return T(t.kind, t.head, args, keywords)
    own = {k: name('"sum"') if k == "reduction" else v for k, v in inner.items() if k != "reduction" or t.head == "sum"}
    return T("call", args[0].head, args[0].args, tuple(own.items()))


def argument(value: Any) -> str:
    """An argument as Python text."""
    if isinstance(value, T):
        return text(value)
    if isinstance(value, Expr):
        return size_text(value)
    if isinstance(value, tuple):
        return f"({listed(argument(v) for v in cast('tuple[Any, ...]', value))})"
    return str(value)


def text(t: T) -> str:
    """An expression as Python text, with parentheses only where they are needed."""
    if t.kind in ("name", "number"):
        return t.head
    if t.kind == "size":
        return size_text(t.args[0])
    if t.kind == "binary":
        level = PRECEDENCE[t.head]
        left = level + 1 if t.head in RIGHT_TO_LEFT else level
        right = level if t.head in ASSOCIATIVE and outermost(t.args[1]) == t.head else level + 1
        return f"{_operand(t.args[0], left)} {t.head} {_operand(t.args[1], right)}"
    if t.kind == "unary":
        return f"{'-' if t.head == 'neg' else t.head}{_operand(t.args[0], PRECEDENCE[t.head])}"
    if t.kind == "starred":
        return f"*{text(t.args[0])}"
    if t.kind == "slice":
        start, stop, step = ("" if a is None else size_text(a) for a in t.args)
        return f"{start}:{stop}" + (f":{step}" if step else "")
    keywords = [f"{k}={argument(v)}" for k, v in t.keywords]
    if t.kind == "call":
        return f"{t.head}({', '.join([*map(argument, t.args), *keywords])})"
    obj = _operand(t.args[0], ATOM)
    if t.kind == "method":
        return f"{obj}.{t.head}({', '.join([*map(argument, t.args[1:]), *keywords])})"
    if t.kind == "attribute":
        return f"{obj}.{t.head}"
    return f"{obj}[{', '.join(map(argument, t.args[1:]))}]"


def _operand(t: T, level: int) -> str:
    """An expression beside an operator, in parentheses where it holds together less than `level`."""
    symbol = outermost(t)
    return text(t) if symbol is None or PRECEDENCE[symbol] >= level else f"({text(t)})"


def outermost(t: T) -> str | None:
    """The operator that an expression's text is made of at the top; None for names, calls and the like."""
    if t.kind in ("binary", "unary"):
        return t.head
    if t.kind == "number":
        return "neg" if t.head.startswith("-") else None
    return operator_of(text(t)) if t.kind == "size" else None


@cache
def operator_of(python: str) -> str | None:
    """The outermost operator of Python text."""
    node = ast.parse(python, mode="eval").body
    if isinstance(node, ast.BinOp):
        return SYMBOLS[type(node.op)]
    return "neg" if isinstance(node, ast.UnaryOp) else None
