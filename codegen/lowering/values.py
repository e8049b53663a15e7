"""A tensor expression whose axes are index symbols, and how such tensors are brought into line."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.lowering import tensors as tt
from codegen.lowering.tensors import T
from engine.notation import ordered

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from sympy import Add, Expr

    from engine.notation import Index, Where

Axes = tuple["Index | None", ...]


@dataclass(frozen=True)
class Val:
    """`t` with one entry of `axes` per dimension (None: size one). `kind` is float, int, bool or number (no tensor).

    `kept` are the axes it would have with keepdim=True, where it is a plain reduction.
    """

    t: T
    axes: Axes
    kind: str = "float"
    kept: Axes | None = None

    @property
    def indices(self) -> tuple[Index, ...]:
        return tuple(a for a in self.axes if a is not None)

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    @property
    def is_plain_number(self) -> bool:
        """Whether it is one number or size, and no expression in them."""
        return self.is_number and self.t.kind in ("number", "size")


def scalar(value: float) -> Val:
    """A Python number."""
    return Val(tt.number(value), (), "number")


def fits(axes: Axes, target: Sequence[Index | None]) -> bool:
    """Whether a tensor with these axes broadcasts to the target's axes as it is."""
    if len(axes) > len(target):
        return False
    return all(a is None or a == b for a, b in zip(axes, target[len(target) - len(axes) :], strict=True))


def to_axes(v: Val, target: Sequence[Index | None]) -> Val:
    """The same tensor with dimensions permuted and ones inserted, so that it broadcasts to the target's axes."""
    if v.is_number or fits(v.axes, target):
        return v
    if v.kept is not None and fits(v.kept, target):
        return Val(with_keepdim(v.t), v.kept, v.kind)
    t, axes = v.t, v.axes
    turned = _turned(axes, target)
    if turned is not None:
        return Val(permute(t, turned), tuple(axes[d] for d in turned), v.kind)
    if None in axes:
        ones = [d for d, a in enumerate(axes) if a is None]
        t = tt.method(t, "squeeze", ones[0] if len(ones) == 1 else tuple(ones))
        axes = tuple(a for a in axes if a is not None)
    wanted = [a for a in target if a is not None and a in axes]
    if tuple(wanted) != axes:
        t = permute(t, [axes.index(a) for a in wanted])
        axes = tuple(wanted)
    if fits(axes, target):
        return Val(t, axes, v.kind)
    first = next(k for k, a in enumerate(target) if a in axes)
    out: Axes = tuple(a if a in axes else None for a in target[first:])
    return Val(insert(t, out), out, v.kind)


def _turned(axes: Axes, target: Sequence[Index | None]) -> list[int] | None:
    """The order of dimensions in which a tensor with ones fits the target, if no ones need to be put in or out."""
    if None not in axes or len(axes) > len(target):
        return None
    tail = target[len(target) - len(axes) :]
    if any(a is not None and a not in tail for a in axes):
        return None
    ones = [d for d, a in enumerate(axes) if a is None]
    return [axes.index(a) if a is not None and a in axes else ones.pop(0) for a in tail]


ELEMENTWISE = frozenset(
    ["sqrt", "rsqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "sin", "cos", "erf", "abs", "sign"]
)


def with_keepdim(t: T) -> T:
    """A reduction (or its negative, or a multiple) with keepdim=True."""
    if t.kind == "unary" or (t.kind == "method" and t.head in ELEMENTWISE):
        return T(t.kind, t.head, (with_keepdim(t.args[0]), *t.args[1:]), t.keywords)
    if t.kind == "binary":
        a, b = t.args
        return T(t.kind, t.head, (a, with_keepdim(b)) if is_scalar(a) else (with_keepdim(a), b))
    return T(t.kind, t.head, t.args, (*t.keywords, ("keepdim", "True")))


INFINITY = tt.call("float", '"inf"')


def is_scalar(t: T) -> bool:
    """A number, which may be infinite, a size, or arithmetic of those."""
    return (
        t.kind in ("number", "size")
        or t == INFINITY
        or (t.kind in ("unary", "binary") and all(is_scalar(a) for a in t.args))
    )


def permute(t: T, order: Sequence[int]) -> T:
    """Dimensions in another order, in the shortest spelling."""
    n = len(order)
    if list(order) == list(range(n)):
        return t
    if t.kind == "attribute" and t.head == "T" and n == 2:
        return t.args[0]
    if n == 2:
        return tt.attribute(t, "T")
    if list(order) == [*range(n - 2), n - 1, n - 2]:
        return tt.attribute(t, "mT")
    moved = [d for d, o in enumerate(order) if d != o]
    if len(moved) == 2:
        return tt.method(t, "transpose", moved[0], moved[1])
    return tt.method(t, "permute", *order)


def insert(t: T, axes: Axes) -> T:
    """Ones inserted where `axes` is None."""
    missing = [d for d, a in enumerate(axes) if a is None]
    if len(missing) == 1:
        d = missing[0]
        return tt.method(t, "unsqueeze", -1 if d == len(axes) - 1 else d)
    return tt.item(t, *["None" if a is None else ":" for a in axes])


class LowererBase:
    """What the parts of the lowering share: known tensors, ranges of indices, and the order of axes."""

    tensors: dict[str, TensorInfo]
    ranges: dict[Index, Expr]
    order: list[Index]
    result: Axes
    """The dimensions of what is computed."""
    like: str | None
    counting: bool
    fills: bool
    """Whether what is written is a closed form's: in an order that moves least, not in that of autograd's kernels."""
    example: Mapping[Any, int] | None
    """Sizes at which the smallest tensor of a product is looked for."""
    guarded: bool
    """Whether what is lowered now is read under a condition, and may lie outside of its tensor elsewhere."""
    losses: bool
    """Whether a loss of torch is among what was lowered, which may be asked for its sum."""

    def value(self, e: Expr) -> Val:
        """An expression as a tensor over the indices it depends on."""
        raise NotImplementedError(type(self).__name__)

    def sum_of(self, e: Add) -> Val:
        """Terms added up."""
        raise NotImplementedError(type(self).__name__)

    def elements(self, indices: Iterable[Index]) -> int:
        """The number of elements over indices at the sizes of the example; 0 where there is none."""
        raise NotImplementedError(type(self).__name__)

    def kernel(self, k: tuple[str, tuple[Any, ...]]) -> Val:
        """A stable kernel found by `kernels.stable`."""
        raise NotImplementedError(type(self).__name__)

    def bessel(self, e: Expr, scaled: bool = False) -> Val:
        """A modified Bessel function, times exp(-|x|) where it is scaled."""
        raise NotImplementedError(type(self).__name__)

    def scaled_bessel(self, e: Expr) -> Val | None:
        """A product with a modified Bessel function that does not overflow; None for any other."""
        raise NotImplementedError(type(self).__name__)

    def triangle(self, e: Expr) -> Val | None:
        """A product that is a triangle of a matrix; None for any other."""
        raise NotImplementedError(type(self).__name__)

    def chosen_triangle(self, e: Where) -> Val | None:
        """A choice between a matrix and zero that is a triangle of it; None for any other."""
        raise NotImplementedError(type(self).__name__)

    def stacked(self, e: Where) -> Val | None:
        """A choice by the position along a dimension that is a stack; None for any other."""
        raise NotImplementedError(type(self).__name__)

    def triangle_of_truths(self, one: Index, other: Index, strict: bool) -> Val:
        """A bracket between two indices."""
        raise NotImplementedError(type(self).__name__)

    def rank(self, i: Index) -> int:
        """The place of an index in the order of axes; unknown ones come last."""
        if i not in self.order:
            self.order.append(i)
        return self.order.index(i)

    def natural_order(self, e: Expr, outputs: Sequence[Index]) -> list[Index]:
        """An order of all indices in which most tensors can be used as they lie in memory."""
        raise NotImplementedError(type(self).__name__)

    def sorted_indices(self, *values: Val) -> list[Index]:
        """The indices of several tensors, each once, in the order of axes."""
        return sorted(dict.fromkeys(i for v in values for i in v.indices), key=self.rank)

    @contextlib.contextmanager
    def inside(self, body: Expr, limits: Iterable[tuple[Index, Expr]]) -> Generator[None]:
        """While what is under a sum is lowered: its indices have ranges, and axes come in an order that suits it."""
        self.ranges.update(limits)
        outer = self.order
        self.order = self.natural_order(body, [i for i in outer if i in body.free_symbols])
        try:
            yield
        finally:
            self.order = outer

    @contextlib.contextmanager
    def under_condition(self, condition: bool = True) -> Generator[None]:
        """While what a condition guards is lowered."""
        outer = self.guarded
        self.guarded = outer or condition
        try:
            yield
        finally:
            self.guarded = outer

    def ranked(self, indices: Iterable[Index]) -> list[Index]:
        """Indices in the order of axes."""
        return sorted(ordered(indices), key=self.rank)

    def join(self, symbol: str, a: Val, b: Val, kind: str | None = None) -> Val:
        """An elementwise operator, with broadcasting."""
        if not self.counting and (symbol == "/" or not all(integral(v.t) for v in (a, b) if v.is_number)):
            a, b = self.promoted(a, b)
        target = self.target(a, b)
        a, b = to_axes(a, target), to_axes(b, target)
        if symbol in ("+", "-") and b.t.kind == "unary" and b.t.head == "neg":
            symbol, b = "-" if symbol == "+" else "+", Val(b.t.args[0], b.axes, b.kind, b.kept)
        kept = a.kept if b.is_plain_number else b.kept if a.is_plain_number else None
        return Val(tt.binary(symbol, a.t, b.t), broadcast(a.axes, b.axes), kind or common_kind(a, b), kept)

    def promoted(self, a: Val, b: Val) -> tuple[Val, Val]:
        """Two operands of which one holds floats or both are numbers: torch would make float32 of an integer tensor."""
        if (a.is_number and b.is_number) or "float" in (a.kind, b.kind):
            return a, b
        return (a, self.typed(b)) if a.is_number else (self.typed(a), b)

    def typed(self, v: Val) -> Val:
        """A number, a tensor of integers or of truth values as floats of the precision that the expression has.

        Left to itself torch would give them its default, float32, whatever they meet later; where the expression has no
        precision, that is what they get.
        """
        if v.kind == "float" or (self.like is None and v.kind != "bool"):
            return v
        if self.like is None:
            return Val(tt.binary("*", v.t, tt.number(1.0)), v.axes, "float", v.kept)
        like = tt.name(self.like)
        if v.is_number:
            return Val(tt.method(like, "new_tensor", v.t), (), "float")
        return Val(tt.method(v.t, "to", tt.attribute(like, "dtype")), v.axes, "float")

    def negative(self, v: Val) -> Val:
        """Minus a tensor, written on its first factor; minus a difference is the difference the other way around."""
        if v.t.kind == "binary" and v.t.head in ("*", "/", "@"):
            first = self.negative(Val(v.t.args[0], (), v.kind))
            return Val(tt.binary(v.t.head, first.t, v.t.args[1]), v.axes, v.kind, v.kept)
        if v.t.kind == "unary" and v.t.head == "neg":
            return Val(v.t.args[0], v.axes, v.kind, v.kept)
        if v.t.kind == "binary" and v.t.head == "-":
            return Val(tt.binary("-", *v.t.args[::-1]), v.axes, v.kind, v.kept)
        return Val(tt.unary("neg", v.t), v.axes, v.kind, v.kept)

    def unsigned(self, v: Val) -> tuple[bool, Val]:
        """Whether an odd number of a tensor's factors are negated, and the tensor without their signs."""
        minus, t = tt.unsigned(v.t)
        return minus, v if t is v.t else Val(t, v.axes, v.kind, v.kept)

    def target(self, *values: Val) -> list[Index | None]:
        """The axes that tensors broadcast to: their own where they agree, else all indices in the order of axes."""
        axes = max((v.axes for v in values), key=len, default=())
        if all(fits(v.axes, axes) or v.is_number for v in values):
            return list(axes)
        for v in values:
            if v.kept is None:
                continue
            merged = self.merged(v.kept, axes)
            lined_up = all(fits(w.axes if w is not v else v.kept, merged) or w.is_number for w in values)
            if lined_up and distinct(merged):
                return list(merged)
        whole: list[Index | None] = [*self.sorted_indices(*values)]
        for v in values:  # what lies as the result does is not flattened, to be unflattened where it meets that
            placed = len(v.axes) == len(self.result) and all(
                a in (None, r) for a, r in zip(v.axes, self.result, strict=True)
            )
            if placed and None in v.axes and [a for a in v.axes if a is not None] == whole:
                return list(v.axes)
        return whole

    @staticmethod
    def merged(a: Axes, b: Axes) -> Axes:
        """The longer of two axes, with its ones filled from the other where they line up."""
        if len(a) < len(b):
            a, b = b, a
        padded = (*[None] * (len(a) - len(b)), *b)
        return tuple(x if x is not None else y for x, y in zip(a, padded, strict=True))

    def arranged(self, v: Val, indices: Sequence[Any], exact: bool = True) -> Val:
        """A tensor with just the given dimensions in order (0: size one), short of expansion along missing indices."""
        target = [None if i == 0 else i for i in indices]
        if v.is_number:
            return v
        v = to_axes(v, target)
        if exact and len(v.axes) < len(target) and all(a is None for a in target[: len(target) - len(v.axes)]):
            axes: Axes = (*target[: len(target) - len(v.axes)], *v.axes)
            if v.kept == axes:
                return Val(with_keepdim(v.t), axes, v.kind)
            t = v.t
            for _ in range(len(target) - len(v.axes)):
                t = tt.method(t, "unsqueeze", 0)
            return Val(t, axes, v.kind)
        return v


def distinct(axes: Axes) -> bool:
    """Whether no index runs over two dimensions."""
    indices = [a for a in axes if a is not None]
    return len(set(indices)) == len(indices)


def integral(t: T) -> bool:
    """Whether a number is whole as it is written."""
    if t.kind == "number":
        return t.head.lstrip("-").isdigit()
    if t.kind == "size":
        return bool(t.args[0].is_integer)
    return t.kind in ("unary", "binary") and t.head != "/" and all(integral(a) for a in t.args)


def common_kind(a: Val, b: Val) -> str:
    """The kind of an arithmetic result."""
    if a.is_number and b.is_number:
        return "number"
    if "float" in (a.kind, b.kind):
        return "float"
    return a.kind if b.is_number else b.kind


def broadcast(a: Axes, b: Axes) -> Axes:
    """The axes of an elementwise result."""
    n = max(len(a), len(b))
    left, right = (*[None] * (n - len(a)), *a), (*[None] * (n - len(b)), *b)
    return tuple(x if x is not None else y for x, y in zip(left, right, strict=True))


@dataclass(frozen=True)
class TensorInfo:
    """What lowering knows of a named tensor: its shape, whether it holds floats, integers or truth values, what it is
    computed from, as far as that is known, and whether its integers are places that are refused below zero.
    """

    shape: tuple[Expr, ...]
    kind: str = "float"
    sources: frozenset[str] = frozenset()
    from_start: bool = False
