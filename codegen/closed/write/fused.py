"""Sums with a product in them as torch's one call for both: `b + x @ w` is `addmm`, `c + a * b` is `addcmul`.

The product is then no tensor of its own, which would be written and read once more.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sympy import S, expand

from codegen.closed.write.tidy import value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sympy import Expr

    from codegen.closed.write.blocks import Block

    Shape = tuple[Expr, ...]

ENTRY_BY_ENTRY = frozenset(
    ["exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "abs", "sign", "sin", "cos", "square", "reciprocal", "clamp", "detach"]
)  # fmt: skip
"""Methods of one tensor that keep its shape."""


def fused(blocks: Sequence[Block], shapes: Mapping[str, Shape], sizes: frozenset[str]) -> list[Block]:
    """Blocks in whose expressions no product is made that is only added.

    `shapes` are those of all tensors of floats, `sizes` the names of sizes.
    """
    writer = Fuse(shapes, sizes)
    return [replace(b, lines=tuple(map(writer.line, b.lines))) for b in blocks]


class Fuse(ast.NodeTransformer):
    """Puts the calls in, inner ones first."""

    def __init__(self, shapes: Mapping[str, Shape], sizes: frozenset[str]) -> None:
        self.shapes, self.sizes = shapes, sizes

    def line(self, line: str) -> str:
        """A statement `name = value` with its sums of products as one call each."""
        name, assigned, _ = line.partition(" = ")
        summed, multiplied = "+" in line or "-" in line, "*" in line or "@" in line
        if not assigned or not name.isidentifier() or '"' in line or not (summed and multiplied):
            return line
        before = ast.parse(value_of(line), mode="eval")
        text = ast.unparse(before)
        after = ast.unparse(self.visit(before))
        return line if after == text else f"{name} = {after}"

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """A sum of a tensor and a product, or a difference of them."""
        node = cast("ast.BinOp", self.generic_visit(node))
        if not isinstance(node.op, (ast.Add, ast.Sub)):
            return node
        minus = isinstance(node.op, ast.Sub)
        orders = [(node.left, node.right), *([] if minus else [(node.right, node.left)])]
        for whole, product in sorted(orders, key=lambda o: not is_matrix_product(o[1])):  # the larger of the two
            call = self.in_one(whole, product, minus)
            if call is not None:
                return call
        return node

    def in_one(self, whole: ast.expr, product: ast.expr, minus: bool) -> ast.expr | None:
        """`whole + product`, or less the product, as one call; None where there is none. The product may have a number in it."""
        front, product = self.without_number(whole, product)
        if minus:
            front = minus_of(front)
        if not isinstance(product, ast.BinOp) or not isinstance(product.op, (ast.Mult, ast.MatMult)):
            return None
        parts = [whole, product.left, product.right]
        given, one, other = map(self.shape, parts)
        if given is None or one is None or other is None:
            return None
        if minus and is_chosen_product(whole):
            return None
        if isinstance(product.op, ast.Mult):
            result = broadcast(one, other)
            whole_result = broadcast(given, result) if result else None
            if whole_result is None or alike_along_rows([given, one, other], whole_result):
                return None
            return called("addcmul", parts, "value", front)
        fits = len(one) == len(other) == 2 and broadcast(given, (one[0], other[1])) == (one[0], other[1])
        return called("addmm", parts, "alpha", front) if fits else None

    def without_number(self, whole: ast.expr, product: ast.expr) -> tuple[ast.expr, ast.expr]:
        """The number that a product is multiplied with, and the product; for anything else one and what is given.

        A factor that is smaller than what is added up, or has one entry, has its number: it costs less there.
        """
        one = ast.Constant(1)
        if not isinstance(product, ast.BinOp):
            return one, product
        if isinstance(product.op, ast.Mult) and not is_matrix_product(product.right):
            for side, other in (("left", product.right), ("right", product.left)):
                scaled = cast("ast.expr", getattr(product, side))
                if isinstance(scaled, ast.BinOp) and isinstance(scaled.op, ast.Mult) and not self.is_number(other):
                    for number, rest in ((scaled.left, scaled.right), (scaled.right, scaled.left)):
                        own = None if self.is_number(rest) else self.shape(rest)
                        if self.is_number(number) and own == self.shape(whole) and {*(own or ())} - {S.One}:
                            pair = (rest, other) if side == "left" else (other, rest)
                            return number, ast.BinOp(pair[0], product.op, pair[1])
        if isinstance(product.op, ast.Mult) and is_matrix_product(product.right) and self.is_number(product.left):
            return product.left, product.right
        if isinstance(product.op, ast.Div) and is_matrix_product(product.left) and self.is_number(product.right):
            return ast.BinOp(one, product.op, product.right), product.left
        return one, product

    def shape(self, e: ast.expr) -> Shape | None:
        """The shape of a tensor of floats; None for what is none, or is not known to be one."""
        if isinstance(e, ast.Name):
            return self.shapes.get(e.id)
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            return self.shape(e.operand)
        if isinstance(e, ast.BinOp):
            return self.combined(e)
        if isinstance(e, ast.Subscript):
            return self.with_ones(e)
        if isinstance(e, ast.Attribute):
            own = self.shape(e.value)
            return own[::-1] if e.attr == "T" and own is not None and len(own) == 2 else None
        return self.of_call(e) if isinstance(e, ast.Call) and isinstance(e.func, ast.Attribute) else None

    def with_ones(self, e: ast.Subscript) -> Shape | None:
        """The shape of a tensor with dimensions of one put in, `x[:, None]`; None for any other part of it."""
        own = self.shape(e.value)
        items = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        whole = ["1" if ast.unparse(i) == "None" else "" if ast.unparse(i) == ":" else "?" for i in items]
        if own is None or "?" in whole or whole.count("") > len(own):
            return None
        rest = iter(own)
        return (*[S.One if w else next(rest) for w in whole], *rest)

    def combined(self, e: ast.BinOp) -> Shape | None:
        """The shape of what an operator gives."""
        one, other = self.shape(e.left), self.shape(e.right)
        if isinstance(e.op, ast.MatMult):
            plain = one is not None and other is not None and {len(one), len(other)} <= {1, 2}
            return (*one[:-1], *other[1:]) if plain and one is not None and other is not None else None
        if one is not None and other is not None:
            return broadcast(one, other)
        rest, known = (e.left, other) if one is None else (e.right, one)
        return (
            known if isinstance(e.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)) and self.is_number(rest) else None
        )

    def is_number(self, e: ast.expr) -> bool:
        """Whether an expression is a Python number: of constants and of sizes."""
        inside = list(ast.walk(e))
        calls = any(isinstance(x, (ast.Call, ast.Subscript, ast.Attribute)) for x in inside)
        return not calls and all(x.id in self.sizes for x in inside if isinstance(x, ast.Name))

    def of_call(self, e: ast.Call) -> Shape | None:
        """The shape of what a call gives."""
        function = cast("ast.Attribute", e.func)
        if ast.unparse(function) in ("torch.addcmul", "torch.addmm"):
            shapes = [self.shape(a) for a in e.args]
            one, two, three = shapes
            if one is None or two is None or three is None:
                return None
            inner = broadcast(two, three) if function.attr == "addcmul" else (two[0], three[1])
            return None if inner is None else broadcast(one, inner)
        if ast.unparse(function) == "torch.where":
            return self.chosen(e)
        own = self.shape(function.value)
        numbers = [n for a in e.args for n in [whole_number(a)] if n is not None]
        if own is None:
            return None
        if function.attr in ENTRY_BY_ENTRY:
            return own
        if function.attr == "unsqueeze" and len(numbers) == 1:
            return unsqueezed(own, numbers[0])
        if function.attr == "squeeze" and len(numbers) == 1:
            return squeezed(own, numbers[0])
        if function.attr in ("sum", "mean"):
            return self.reduced(own, e, numbers)
        return None

    def chosen(self, e: ast.Call) -> Shape | None:
        """The shape of a choice between tensors of floats, or one and a number."""
        if len(e.args) != 3 or all(self.shape(a) is None for a in e.args[1:]):
            return None
        parts = [self.of_mask(e.args[0]), *(() if self.is_number(a) else self.shape(a) for a in e.args[1:])]
        return None if None in parts else together(cast("list[Shape]", parts))

    def of_mask(self, e: ast.expr) -> Shape | None:
        """The shape of what comparisons of tensors of floats give."""
        if isinstance(e, ast.Compare):
            parts = [() if self.is_number(x) else self.shape(x) for x in (e.left, *e.comparators)]
            return None if None in parts else together(cast("list[Shape]", parts))
        if isinstance(e, ast.BinOp) and isinstance(e.op, (ast.BitAnd, ast.BitOr)):
            parts = [self.of_mask(e.left), self.of_mask(e.right)]
            return None if None in parts else together(cast("list[Shape]", parts))
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.Invert):
            return self.of_mask(e.operand)
        if isinstance(e, ast.Call) and isinstance(e.func, ast.Attribute) and e.func.attr in ("squeeze", "unsqueeze"):
            own, numbers = self.of_mask(e.func.value), [whole_number(a) for a in e.args]
            if own is None or len(numbers) != 1 or numbers[0] is None:
                return None
            return squeezed(own, numbers[0]) if e.func.attr == "squeeze" else unsqueezed(own, numbers[0])
        return None

    def reduced(self, own: Shape, e: ast.Call, numbers: list[int]) -> Shape | None:
        """The shape of a sum over one dimension, or over all."""
        if not e.args and not e.keywords:
            return ()
        if len(numbers) != 1 or not 0 <= numbers[0] < len(own) or len(e.args) != 1:
            return None
        kept = (S.One,) if e.keywords else ()
        return (*own[: numbers[0]], *kept, *own[numbers[0] + 1 :])


def squeezed(own: Shape, dim: int) -> Shape | None:
    """A shape without a dimension of one; None where the dimension is no such."""
    at = dim if dim >= 0 else len(own) + dim
    return (*own[:at], *own[at + 1 :]) if 0 <= at < len(own) and own[at] == 1 else None


def unsqueezed(own: Shape, dim: int) -> Shape:
    """A shape with a dimension of one put in."""
    at = dim if dim >= 0 else len(own) + 1 + dim
    return (*own[:at], S.One, *own[at:])


def together(shapes: Sequence[Shape]) -> Shape | None:
    """The shape that several tensors have together; None where they are not known to fit."""
    whole: Shape | None = ()
    for s in shapes:
        whole = None if whole is None else broadcast(whole, s)
    return whole


def minus_of(number: ast.expr) -> ast.expr:
    """Minus a number: of a quotient minus what is above."""
    if isinstance(number, ast.BinOp) and isinstance(number.op, ast.Div):
        return ast.BinOp(minus_of(number.left), number.op, number.right)
    return ast.UnaryOp(ast.USub(), number)


def is_matrix_product(e: ast.expr) -> bool:
    """Whether an expression is `x @ w`."""
    return isinstance(e, ast.BinOp) and isinstance(e.op, ast.MatMult)


def is_chosen_product(e: ast.expr) -> bool:
    """Whether an expression is a product where a condition holds: less an equal one, it is zero if both are rounded alike."""
    chosen = isinstance(e, ast.Call) and ast.unparse(e.func) == "torch.where"
    branches = cast("ast.Call", e).args[1:] if chosen else []
    return any(isinstance(b, ast.BinOp) and isinstance(b.op, ast.Mult) for b in branches)


def alike_along_rows(parts: Sequence[Shape], result: Shape) -> bool:
    """Whether two of three tensors are the same along the last dimension: `addcmul` has no vector form then."""
    return result[-1:] != (S.One,) and sum(p[-1:] in ((), (S.One,)) for p in parts) > 1


def whole_number(e: ast.expr) -> int | None:
    """The integer that is written there."""
    minus = isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub)
    plain = cast("ast.UnaryOp", e).operand if minus else e
    if not isinstance(plain, ast.Constant) or not isinstance(plain.value, int):
        return None
    return -plain.value if minus else plain.value


def broadcast(one: Shape, other: Shape) -> Shape | None:
    """The shape that two tensors have together; None where they are not known to fit."""
    if len(one) < len(other):
        one, other = other, one
    padded = (*[S.One] * (len(one) - len(other)), *other)
    both = [a if b == 1 else b if a == 1 or expand(a - b) == 0 else None for a, b in zip(one, padded, strict=True)]
    return None if None in both else cast("Shape", tuple(both))


def called(name: str, parts: list[ast.expr], number: str, front: ast.expr) -> ast.expr:
    """The call of torch's function, with the number that it multiplies the product with."""
    keywords = [] if isinstance(front, ast.Constant) and front.value == 1 else [ast.keyword(number, front)]
    return ast.Call(ast.Attribute(ast.Name("torch"), name), parts, keywords)


__all__ = ["fused"]
