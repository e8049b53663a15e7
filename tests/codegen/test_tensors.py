"""The text of torch expressions: Python reads what was meant, and parentheses are only where they are needed."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from operator import add, floordiv, mod, mul, sub, truediv
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import Integer

from codegen.lowering import tensors as tt
from codegen.lowering.tensors import T
from engine.notation import Quo, Rem, size_symbol

N, M = size_symbol("n"), size_symbol("m")
A, B, C = (tt.name(letter) for letter in "abc")
OPERATORS = ["|", "&", "<", "<=", "==", ">", ">=", "!=", "+", "-", "*", "/", "//", "%", "@", "**"]


class Tree:
    """What Python makes of a text: every operator is recorded."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __bool__(self) -> bool:
        raise AssertionError("a chained comparison asks whether its first half holds")


def python(text: str, values: Mapping[str, Any]) -> Any:
    return eval(text, dict(values))  # noqa: S307 (the text is what is tested)


def recorded(symbol: str) -> Callable[..., Tree]:
    return lambda *operands: Tree(symbol, *operands)


METHODS = [
    "or", "and", "lt", "le", "eq", "gt", "ge", "ne", "add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow",
]  # fmt: skip
for method, sign in zip([*METHODS, "neg", "invert"], [*OPERATORS, "neg", "~"], strict=True):
    setattr(Tree, f"__{method}__", recorded(sign))


def shape(tree: Any) -> Any:
    """A recorded tree as nested tuples; sums of sums and products of products flat, since those may be regrouped."""
    if not isinstance(tree, Tree):
        return tree
    symbol, *operands = tree.parts
    found = [shape(o) for o in operands]
    if symbol in ("+", "*"):
        flat = [p for f in found for p in (f[1:] if isinstance(f, tuple) and f[0] == symbol else (f,))]
        return (symbol, *flat)
    return (symbol, *found)


def meant(t: T, values: dict[str, Tree]) -> Tree:
    """The tree that an expression stands for."""
    if t.kind == "name":
        return values[t.head]
    return Tree(t.head, *(meant(a, values) for a in t.args))


names = st.sampled_from([A, B, C])
trees = st.recursive(
    names,
    lambda inner: (
        st.builds(tt.binary, st.sampled_from(OPERATORS), inner, inner)
        | st.builds(tt.unary, st.sampled_from(["neg", "~"]), inner)
    ),
    max_leaves=8,
)


@given(trees)
def test_python_reads_what_was_meant(t: T) -> None:
    values = {letter: Tree(letter) for letter in "abc"}
    assert shape(python(tt.text(t), values)) == shape(meant(t, values)), tt.text(t)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": add, "-": sub, "*": mul, "/": truediv, "//": floordiv, "%": mod,
}  # fmt: skip
SIZES = [
    N, M, N + 1, N - 1, 1 - N, -N, 2 * N, N * M, N * (M + 1), N / M, 1 / N, N**2, -(N**2), Quo(N, M), Rem(N, M),
    N + Rem(N, M), 2 * Quo(N, M),
]  # fmt: skip
leaves = names | st.sampled_from(SIZES).map(tt.size) | st.sampled_from([2, -3, 7]).map(tt.number)
numbers = st.recursive(
    leaves,
    lambda inner: (
        st.builds(tt.binary, st.sampled_from([*ARITHMETIC]), inner, inner)
        | st.builds(lambda a: tt.binary("**", a, tt.number(2)), inner)
        | st.builds(lambda a: tt.unary("neg", a), inner)
    ),
    max_leaves=6,
)


def value(t: T, values: dict[str, Fraction]) -> Fraction:
    if t.kind == "name":
        return values[t.head]
    if t.kind == "number":
        return Fraction(int(t.head))
    if t.kind == "size":
        exact = t.args[0].xreplace({s: Integer(int(values[str(s)])) for s in (N, M)})
        return Fraction(int(exact.p), int(exact.q))
    operands = [value(a, values) for a in t.args]
    if t.kind == "unary":
        return -operands[0]
    return operands[0] ** int(operands[1]) if t.head == "**" else ARITHMETIC[t.head](*operands)


@given(numbers, st.tuples(*[st.integers(1, 9)] * 5))
def test_sizes_and_numbers_in_expressions(t: T, given_values: tuple[int, ...]) -> None:
    values = {letter: Fraction(v) for letter, v in zip(("a", "b", "c", "n", "m"), given_values, strict=True)}
    try:
        expected = value(t, values)
    except ZeroDivisionError:
        return
    assert python(tt.text(t), values) == expected, tt.text(t)


SUM, PRODUCT = tt.binary("+", A, B), tt.binary("*", A, B)


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (tt.binary("*", SUM, C), "(a + b) * c"),
        (tt.binary("+", PRODUCT, C), "a * b + c"),
        (tt.binary("+", C, SUM), "c + a + b"),
        (tt.binary("-", C, SUM), "c - (a + b)"),
        (tt.binary("/", C, PRODUCT), "c / (a * b)"),
        (tt.binary("*", C, tt.binary("%", A, B)), "c * (a % b)"),
        (tt.binary("*", C, tt.binary("@", A, B)), "c * (a @ b)"),
        (tt.binary("==", tt.binary("<", A, B), C), "(a < b) == c"),
        (tt.binary("&", tt.binary("<", A, B), tt.binary("<", B, C)), "(a < b) & (b < c)"),
        (tt.unary("~", tt.binary("<", A, B)), "~(a < b)"),
        (tt.unary("neg", PRODUCT), "-(a * b)"),
        (tt.binary("**", tt.unary("neg", A), tt.number(2)), "(-a) ** 2"),
        (tt.unary("neg", tt.binary("**", A, tt.number(2))), "-a ** 2"),
        (tt.binary("**", A, tt.number(-0.5)), "a ** (-0.5)"),
        (tt.binary("/", A, tt.size(N * M)), "a / (m * n)"),
        (tt.binary("*", A, tt.size(Rem(N, M))), "a * (n % m)"),
        (tt.binary("**", tt.size(-N), tt.number(2)), "(-n) ** 2"),
        (tt.method(SUM, "sum", 0, keepdim="True"), "(a + b).sum(0, keepdim=True)"),
        (tt.method(tt.unary("neg", A), "exp"), "(-a).exp()"),
        (tt.method(tt.method(A, "sum", (0, 1)), "sqrt"), "a.sum((0, 1)).sqrt()"),
        (tt.method(A, "view", N, (M,)), "a.view(n, (m,))"),
        (tt.attribute(tt.binary("@", A, B), "T"), "(a @ b).T"),
        (tt.item(A, tt.EVERYTHING, tt.size(N - 1)), "a[:, n - 1]"),
        (tt.item(A, tt.slice_(None, N), tt.slice_(N * 0 + 1, None, N * 0 + 2)), "a[:n, 1::2]"),
        (tt.item(SUM, B), "(a + b)[b]"),
        (tt.call("torch.where", tt.binary("<", A, B), A, tt.number(0)), "torch.where(a < b, a, 0)"),
    ],
)
def test_texts(t: T, text: str) -> None:
    assert tt.text(t) == text


def test_renaming_reaches_every_place() -> None:
    t = tt.item(tt.method(A, "view", N, keep=tt.binary("+", A, tt.size(N))), tt.slice_(None, N), (A, B))
    renamed = tt.rename(t, {"a": "x"}, {N: M})
    assert tt.text(renamed) == "x.view(m, keep=x + m)[:m, (x, b)]"
    assert {x.head for x in tt.walk(renamed) if x.kind == "name"} == {"x", "b"}


def test_every_operator_is_tried() -> None:
    assert {*tt.PRECEDENCE} == {*OPERATORS, "neg", "~"}
