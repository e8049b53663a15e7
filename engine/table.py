"""The op table: what each torch callable computes, as index notation. A row has no derivative; sympy finds it.

    @elementwise("tanh", probes=REALS)
    def tanh(x): return sp.tanh(x)

    @op("mv")
    def mv(matrix, vector):
        i, j = fresh("i"), fresh("j")
        n = equal(matrix.shape[1], vector.shape[0])
        return define((matrix.shape[0],), (i,), sigma(matrix[i, j] * vector[j], (j, n)))

    @op("inverse")
    def inverse(x):
        i, j, k = fresh(), fresh(), fresh()
        return equate(x.shape, (i, k), sigma(x[i, j] * unknown(j, k), (j, x.shape[0])), Delta(i, k), 0)

A row's function has the parameters of the torch callable. Tensors come as `Operand`s, everything else as it was given.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.bounds import nonnegative
from engine.errors import ShapeError, TraceError
from engine.implicit import Equation, Implicit
from engine.notation import BINDERS, Index, Quo, accesses, base, element, fresh, name_of
from engine.own import keys_of
from engine.sizes import Sized, evaluate, expression

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

Shape = tuple[Expr, ...]


@dataclass(frozen=True)
class Definition:
    """One output of an op: its shape and the expression of its element at `indices` (0 for a dimension of size one).

    It holds where none of the `bounds` is negative, which whoever runs it has checked.
    """

    shape: Shape
    indices: tuple[Expr, ...]
    expr: Expr
    bounds: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Opaque:
    """An output that the algebra takes as it is: an argmax, a random mask, a rounded tensor. It has no derivative."""

    shape: Shape


Output = Definition | Implicit | Opaque


class Operand:
    """A tensor argument in index notation: `x.shape` in symbolic sizes, `x[i, j]` its element.

    Integers that are below zero at the example, or may be, are `signed`.
    """

    def __init__(
        self, position: int, shape: Shape, dtype: torch.dtype, positive: bool = False, signed: bool = False
    ) -> None:
        self.position, self.shape, self.dtype, self.signed = position, shape, dtype, signed
        self.floating, self.boolean = dtype.is_floating_point, dtype == torch.bool
        self._base = base(f"_{position}", positive=positive, integer=not self.floating)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: Any) -> Expr:
        given = cast("tuple[Any, ...]", indices if isinstance(indices, tuple) else (indices,))
        if len(given) != self.rank:
            raise TraceError(f"an operand of rank {self.rank} was read with {len(given)} indices")
        at = [sp.S.Zero if size == 1 else i for i, size in zip(given, self.shape, strict=True)]
        return element(self._base, at)

    def element(self, *indices: Expr) -> Expr:
        """The element at `indices`, for any rank including 0."""
        return self[tuple(indices)]


class BroadcastError(ShapeError):
    """A computed size that is one at the example meets another one, or is dropped, as only a size of one is: the trace fixes it."""

    def __init__(self, size: Expr) -> None:
        super().__init__(f"the size {size} is one here and must equal another one")
        self.size = size


class Scope:
    """What a row's function may ask while it runs: which sizes are equal, and how large they are at the example."""

    def __init__(self, values: dict[Any, int], operands: int = 0, padded: bool = False) -> None:
        self.values = values
        self.operands = operands
        self.padded = padded
        self.chosen: list[tuple[int, Shape]] = []
        self.same: list[tuple[Expr, Expr]] = []
        self.bounds: list[Expr] = []
        self.substitution: dict[Any, Expr] = {}

    def resolve(self, e: Expr) -> Expr:
        return e.xreplace(self.substitution) if self.substitution else e

    def value(self, e: Expr) -> int:
        return evaluate(e, self.values)

    def equal(self, a: Expr, b: Expr) -> Expr:
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return a
        if self.value(a) != self.value(b):
            single = next((s for s in (a, b) if self.value(s) == 1), None)
            if single is not None:
                raise BroadcastError(single)
            raise ShapeError(f"two sizes that must be equal are {self.value(a)} and {self.value(b)}")
        self.same.append((a, b))
        for one, other in ((b, a), (a, b)):
            if one.is_Symbol and one not in other.free_symbols:
                self.substitution = {k: v.xreplace({one: other}) for k, v in self.substitution.items()}
                self.substitution[one] = other
                return other
        return a


_scopes: list[Scope] = []


def equal(a: Expr, b: Expr) -> Expr:
    """Two sizes that the op needs to be equal, as one. Raises ShapeError where they differ at the example."""
    return _scopes[-1].equal(a, b)


def at_least(size: Expr, least: Expr) -> bool:
    """Whether one size is not below another one at the example, as it has to be in any run then, or not above it.

    Where they are equal either answer has to do.
    """
    difference = size - least
    holds = value_of(difference) >= 0
    _scopes[-1].bounds.append(difference if holds else -difference)
    return holds


def value_of(size: Expr) -> int:
    """The number that a size has at the example."""
    return _scopes[-1].value(size)


def padded() -> bool:
    """Whether an integer input holds -100 at the example: what torch's losses leave out unless they are told otherwise."""
    return _scopes[-1].padded


def own_output(number: int, shape: Sequence[Expr]) -> Operand:
    """Output `number` of the same call, an integer tensor of this shape, for another output's definition to read.

    The values of `max` are a gather at its indices. The row returns an `Opaque` for it.
    """
    scope = _scopes[-1]
    scope.chosen.append((number, tuple(shape)))
    return Operand(scope.operands + len(scope.chosen) - 1, tuple(shape), torch.int64)


def indices_of(shape: Sequence[Expr]) -> tuple[Expr, ...]:
    """One fresh index per dimension, 0 where the dimension has size one."""
    return tuple(sp.S.Zero if s == 1 else fresh() for s in shape)


def fresh_of(size: Expr) -> Expr:
    """A fresh index over a dimension, 0 where it has size one."""
    return sp.S.Zero if size == 1 else fresh()


def define(shape: Sequence[Expr], indices: Sequence[Expr], expr: Any) -> Definition:
    """An output of `shape` whose element at `indices` is `expr`."""
    at = tuple(sp.S.Zero if s == 1 else i for i, s in zip(indices, shape, strict=True))
    body = sp.sympify(expr)
    gone = {i: sp.S.Zero for i, s in zip(indices, shape, strict=True) if s == 1}
    return Definition(tuple(shape), at, body.xreplace(gone) if gone else body)


def equate(
    shape: Sequence[Expr],
    indices: Sequence[Expr],
    left: Any,
    right: Any,
    lead: int,
    symmetric: bool = False,
    columns: bool = False,
) -> Equation:
    """An output of `shape` with which `left` is `right` at `indices`; see `Equation`."""
    at = tuple(sp.S.Zero if s == 1 else i for i, s in zip(indices, shape, strict=True))
    gone = {i: sp.S.Zero for i, s in zip(indices, shape, strict=True) if s == 1}
    one, other = (sp.sympify(e).xreplace(gone) for e in (left, right))
    return Equation(tuple(shape), at, one, other, lead, symmetric, columns)


def broadcast_shape(*shapes: Shape) -> Shape:
    """torch's broadcast of shapes; sizes that must agree are made equal."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Expr] = []
    for d in range(rank):
        size: Expr = sp.S.One
        for s in shapes:
            k = d - rank + len(s)
            if k >= 0 and s[k] != 1:
                size = s[k] if size == 1 else equal(size, s[k])
        out.append(size)
    return tuple(out)


def aligned(x: Operand, at: Sequence[Expr]) -> Expr:
    """The element of `x` that broadcasting puts at the output's indices `at`."""
    return x[tuple(at[len(at) - x.rank :])] if x.rank else x[()]


def pointwise(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Definition:
    """The output of a scalar function applied to broadcast operands; numbers become exact constants."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Operand)]
    shape = broadcast_shape(*[o.shape for o in operands])
    at = indices_of(shape)

    def scalar(a: Any) -> Any:
        if isinstance(a, Operand):
            return aligned(a, at)
        return expression(a) if isinstance(a, (int, float, *Sized)) and not isinstance(a, bool) else a

    numbers = [int(a) if isinstance(a, bool) and k in _takes_numbers(function) else a for k, a in enumerate(args)]
    return define(shape, at, function(*[scalar(a) for a in numbers], **{k: scalar(v) for k, v in kwargs.items()}))


@functools.cache
def _takes_numbers(function: Callable[..., Any]) -> frozenset[int]:
    """The places at which a function of scalars takes elements or numbers, and no flags."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(k for k, p in enumerate(parameters) if "Expr" in str(p.annotation))


@dataclass(frozen=True)
class Row:
    """One op: its name, the torch callables it stands for, its index notation, and where to probe it.

    `kind` is "factory" for what makes a tensor of no other, "like" for what takes no more than a shape and a dtype from one
    (autograd goes through neither), "elementwise" for a function of scalars, and "product" for what torch does on tensors
    of one dtype alone, which its meta device lets pass.
    """

    name: str
    targets: tuple[Any, ...]
    define: Callable[..., Output | tuple[Output, ...]]
    probes: tuple[Any, ...] = ()
    view: bool = False
    kind: str = "op"
    signature: inspect.Signature = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", inspect.signature(self.define))

    @property
    def bundled(self) -> bool:
        """Whether it comes with this package."""
        return self.define.__module__.startswith("engine.ops.")

    def __call__(self, scope: Scope, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Output, ...]:
        _scopes.append(scope)
        try:
            positional, named = self.arguments(args, kwargs)
            out = self.define(*positional, **named)
            outputs = out if isinstance(out, tuple) else (out,)
            if not self.view:
                shapes = {x.position: x.shape for x in _operands(args, kwargs)}
                for o in outputs:
                    _match_sizes(o, shapes)
            if any(isinstance(o, Definition) and o.expr.has(sp.zoo) for o in outputs):
                raise TraceError("this divides by the number of elements of a dimension that has none")
        finally:
            _scopes.pop()
        return tuple(_resolved(o, scope) for o in outputs)

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call's arguments as the row takes them: `permute(2, 0, 1)` may be spelled `permute(dims=(2, 0, 1))`."""
        named = self.renamed(kwargs)
        plain = {n for n, p in self.signature.parameters.items() if p.kind != p.VAR_POSITIONAL}
        if len(plain) < len(self.signature.parameters):
            spread = [k for k in named if k in _SPREAD and k not in plain]
            first = [named.pop(k) for k in ("x",) if spread and k in named]
            args = (*first, *args, *[named.pop(k) for k in spread])
        return tuple(args), named

    def renamed(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keywords in the row's own names: torch calls a first tensor `input`, and takes numpy's `axis`, `keepdims`."""
        positional = list(self.signature.parameters)
        names = {"axis": "dim", "keepdims": "keepdim", "train": "training"}
        for place, known in enumerate(_KEYWORDS):
            names.update({k: positional[place] for k in known if place < len(positional)})
        return {k if k in self.signature.parameters else names.get(k, k): v for k, v in kwargs.items()}


def _operands(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Operand]:
    found: list[Operand] = []
    for a in (*args, *kwargs.values()):
        if isinstance(a, Operand):
            found.append(a)
        elif isinstance(a, (tuple, list)):
            found.extend(x for x in cast("Sequence[Any]", a) if isinstance(x, Operand))
    return found


def _match_sizes(o: Output, shapes: dict[int, Shape]) -> None:
    """An index that runs over one size and reads a dimension of another of the same number: the two sizes are one.

    Layout ops are left alone: they may read a part of a dimension that happens to be all of it at the example.
    """
    if not isinstance(o, Definition):
        return
    ranges: dict[Any, Expr] = {i: n for i, n in zip(o.indices, o.shape, strict=True) if i != 0}
    for bound in o.expr.atoms(*BINDERS):
        ranges.update(dict(cast("Any", bound).limits))
    for a in accesses(o.expr):
        shape = shapes.get(int(name_of(a)[1:])) if name_of(a)[1:].isdigit() else None
        for i, n in zip(a.indices, shape or (), strict=False):
            size = ranges.get(i)
            if (
                size is not None
                and size != n
                and not size.is_Integer
                and not n.is_Integer
                and value_of(size) == value_of(n)
            ):
                equal(size, n)


_KEYWORDS = (
    ("input", "self", "tensors", "condition", "x1", "input1", "anchor"),
    ("other", "target", "exponent", "mat2", "vec", "vec2", "tensor", "x2", "input2", "positive"),
    ("mat3", "negative"),
)
"""torch's names for a first, second and third argument, where a row calls them x and y."""
_SPREAD = ("dims", "size", "sizes", "shape", "repeats")
"""torch's names for what may be one sequence or several arguments."""


def _resolved(o: Output, scope: Scope) -> Output:
    shape = tuple(scope.resolve(s) for s in o.shape)
    if isinstance(o, Definition):
        bounds = tuple(e for e in map(scope.resolve, scope.bounds) if not nonnegative(e))
        return replace(define(shape, o.indices, scope.resolve(o.expr)), bounds=bounds)
    return Opaque(shape) if isinstance(o, Opaque) else o.replaced(scope.substitution)


TABLE: dict[Any, Row] = {}
NAMESPACES: tuple[Any, ...] = (torch, torch.Tensor, torch.nn.functional, torch.special)


def callables(*names: str) -> tuple[Any, ...]:
    """Every torch callable of these names: functions, methods, torch.nn.functional, torch.special."""
    found: list[Any] = []
    for name in names:
        for space in NAMESPACES:
            target = getattr(space, name, None)
            if callable(target) and not isinstance(target, type) and target not in found:
                found.append(target)
    return tuple(found)


def _drawn(x: Operand, *_: Any, **__: Any) -> Opaque:
    return Opaque(x.shape)


DRAWN = Row("mask", (), _drawn)
"""The row of what is drawn at random: opaque, of its first argument's shape."""


def register(row: Row) -> None:
    """Put a row into the table; a later row for the same callable replaces the earlier one.

    A bundled row replaces no row of the user's, who may have imported less of this package before.
    """
    for target in row.targets:
        if not (row.bundled and target in TABLE and not TABLE[target].bundled):
            TABLE[target] = row


def quotient(count: Expr, parts: Any) -> Expr:
    """A number of elements over what shares it, cancelled where that leaves nothing below.

    Where it does not, the factors stay as they are, so that one of them may take the divisor: cancelling multiplies
    `c ((h - 1) // 2 + 1) / 2` out.
    """
    whole = sp.cancel(count / parts)
    return whole if sp.fraction(sp.together(whole))[1] == 1 else count / parts


def divided(missing: Expr) -> Expr | None:
    """A number of elements with a quotient for the size that takes its divisor: of c h / 2 it is (c // 2) h where c is even,
    which is then so for good; a size of an input before one that is computed. None where no size does.
    """
    over, under = sp.fraction(sp.together(missing))
    if not under.is_Integer or under == 1:
        return None
    sizes = [f for f in sp.Mul.make_args(over) if f.free_symbols and f.is_nonnegative is not False]
    sizes = [f for f in sizes if value_of(f) % int(under) == 0]
    if not sizes:
        return None
    size = min(sizes, key=lambda f: not f.is_Symbol)
    part = cast("Expr", Quo(size, under))
    equal(size, under * part)
    return over / size * part


def halves(x: Operand, dim: int) -> tuple[Shape, tuple[Expr, ...], Expr, Expr]:
    """Shape and indices of half a tensor, and the elements of both halves there."""
    d = axis(dim, x.rank)
    half = quotient(x.shape[d], 2)
    if not half.is_integer:
        half = divided(half) or Integer(value_of(x.shape[d]) // 2)
        equal(x.shape[d], 2 * half)
    shape = tuple(half if k == d else s for k, s in enumerate(x.shape))
    at = indices_of(shape)
    second = tuple(i + half if k == d else i for k, i in enumerate(at))
    return shape, at, x[at], x[second]


def op(
    *names: str, targets: Sequence[Any] = (), probes: Sequence[Any] = (), view: bool = False, kind: str = "op"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the index notation of the torch callables of these names (or of `targets`)."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        found = (*[key for target in targets for key in keys_of(target)], *callables(*names))
        if not found:
            raise TraceError(f"op {names}: torch has no callable of that name; pass it as targets=(...)")
        first = targets[0] if targets else None
        name = (
            names[0] if names else str(getattr(first, "_name", None) or getattr(first, "__name__", function.__name__))
        )
        register(Row(name, found, function, tuple(probes), view, kind))
        return function

    return decorate


def elementwise(
    *names: str, targets: Sequence[Any] = (), probes: Sequence[Any] = (), view: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function of scalars as an op that is applied element by element, with broadcasting."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def row(*args: Any, **kwargs: Any) -> Definition:
            return pointwise(function, *args, **kwargs)

        op(*names, targets=targets, probes=probes, view=view, kind="elementwise")(row)
        return function

    return decorate


def composite(*names: str, targets: Sequence[Any] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as what these torch callables do in terms of other ops.

    It runs while the forward is traced, on the forward's own arguments; what it calls is recorded in the callable's
    place.
    """
    return op(*names, targets=targets, kind="composite")


_recording: list[Row | None] = []


@contextlib.contextmanager
def recorded_as(row: Row | None) -> Generator[None]:
    """In a composite: a torch call in here is recorded by this row, whatever the table says of it; for None as it says."""
    _recording.append(row)
    try:
        yield
    finally:
        _recording.pop()


def row_of(target: Any) -> Row | None:
    """The row of a torch callable, None if it has none."""
    row = _recording[-1] if _recording else None
    return TABLE.get(target) if row is None else row


def several(value: Any) -> list[Any] | None:
    """A tuple or list as a list, None for anything else."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, (tuple, list)) else None


def each_of(value: Any, count: int) -> list[Any]:
    """One value per dimension: `3` and `(3, 3)` are the same."""
    given = several(value)
    return [value] * count if given is None else given


def axis(dim: int, rank: int) -> int:
    """A dimension counted from the front. Raises ShapeError where there is no such dimension."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise ShapeError(f"dimension {dim} of a tensor of rank {rank}")
    return dim % max(rank, 1)


def axes(dim: Any, rank: int) -> tuple[int, ...]:
    """The dimensions that a `dim=` argument means: one, several, or all for None and the empty tuple."""
    if dim is None:
        return tuple(range(rank))
    dims = tuple(axis(int(d), rank) for d in (cast("Sequence[int]", dim) if isinstance(dim, (tuple, list)) else (dim,)))
    return (dims or tuple(range(rank))) if rank else ()


def product(shape: Sequence[Expr]) -> Expr:
    """The number of elements of a shape."""
    return sp.Mul(*shape)


def reduced(
    x: Operand, dim: Any, keepdim: bool
) -> tuple[Shape, tuple[Expr, ...], tuple[Expr, ...], list[tuple[Index, Expr]]]:
    """For a reduction: the output's shape and indices, the input's indices, and the limits that are summed over."""
    dims = axes(dim, x.rank)
    at = indices_of(x.shape)
    limits = [(cast("Index", at[d]), x.shape[d]) for d in range(x.rank) if d in dims and x.shape[d] != 1]
    kept = [d for d in range(x.rank) if d not in dims]
    if keepdim:
        shape = tuple(Integer(1) if d in dims else x.shape[d] for d in range(x.rank))
        out = tuple(sp.S.Zero if d in dims else at[d] for d in range(x.rank))
    else:
        shape, out = tuple(x.shape[d] for d in kept), tuple(at[d] for d in kept)
    return shape, out, at, limits
