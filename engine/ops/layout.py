"""Layout ops: index maps, nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import ShapeError, TraceError
from engine.notation import LessEqual, Quo, Rem, Where, fresh
from engine.sizes import expression
from engine.table import Definition, Operand, aligned, axes, axis, define, equal, indices_of, op, product, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor


def flat(args: Sequence[Any]) -> tuple[Any, ...]:
    """`view(2, 3)` and `view((2, 3))` are the same."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        return tuple(cast("Sequence[Any]", args[0]))
    return tuple(args)


def completed(sizes: Sequence[Any], count: Expr) -> tuple[Expr, ...]:
    """A target shape with its -1 worked out from the number of elements."""
    shape = [expression(s) for s in sizes]
    if -1 in shape:
        at = shape.index(Integer(-1))
        rest = product([s for s in shape if s != -1])
        missing = sp.cancel(count / rest)
        if sp.fraction(missing)[1] != 1 or any(f.is_Pow and f.exp.is_negative for f in sp.Mul.make_args(missing)):
            missing = Integer(value_of(count) // value_of(rest))
            equal(count, cast("Expr", missing * rest))
        shape[at] = missing
    return tuple(shape)


def groups(a: Sequence[Expr], b: Sequence[Expr]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions of shapes `a` and `b` with equal numbers of elements, in order."""
    out: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        left, right = ([i] if i < len(a) else []), ([j] if j < len(b) else [])
        i, j = i + len(left), j + len(right)
        while True:
            p, q = product([a[k] for k in left]), product([b[k] for k in right])
            if sp.expand(p - q) == 0:
                break
            m, n = value_of(p), value_of(q)
            if m == n and (i == len(a) or a[i] != 1) and (j == len(b) or b[j] != 1):
                equal(p, q)
                break
            if m <= n and i < len(a):
                left.append(i)
                i += 1
            elif j < len(b):
                right.append(j)
                j += 1
            else:
                raise ShapeError(f"a shape of {m} elements cannot be viewed as one of {n}")
        out.append((left, right))
    return out


def viewed(x: Operand, shape: Sequence[Expr]) -> Definition:
    """The elements of `x` in the same order, in another shape: mixed-radix index arithmetic between groups of dimensions."""
    at = indices_of(shape)
    source: list[Expr] = [sp.S.Zero] * x.rank
    for left, right in groups(x.shape, shape):
        inner = [d for d in left if x.shape[d] != 1]
        outer = [d for d in right if shape[d] != 1]
        if not inner:
            continue
        position: Expr = sp.S.Zero
        for d in outer:
            position = cast("Expr", position * shape[d] + at[d]) if position != 0 else at[d]
        for k, d in enumerate(inner):
            stride = product([x.shape[e] for e in inner[k + 1 :]])
            here: Expr = cast("Expr", Quo(position, stride))
            source[d] = here if k == 0 else cast("Expr", Rem(here, x.shape[d]))
        if len(inner) > 1 and len(outer) > 1:
            source = [sp.expand(s) if s.is_Add else s for s in source]
    return define(shape, at, x[tuple(source)] if x.rank else x[()])


@op("view", "reshape", view=True)
def view(x: Operand, *shape: Any) -> Definition:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise TraceError("view(dtype) reinterprets bits and has no derivative; use .to(dtype)")
    return viewed(x, completed(flat(shape), product(x.shape)))


@op("view_as", "reshape_as", view=True)
def view_as(x: Operand, other: Operand) -> Definition:
    return viewed(x, other.shape)


@op("flatten", "ravel", view=True)
def flatten(x: Operand, start_dim: int = 0, end_dim: int = -1) -> Definition:
    if not x.rank:
        return viewed(x, (Integer(1),))
    first, last = axis(start_dim, x.rank), axis(end_dim, x.rank)
    return viewed(x, (*x.shape[:first], product(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@op("unflatten", view=True)
def unflatten(x: Operand, dim: int, sizes: Sequence[Any]) -> Definition:
    d = axis(dim, x.rank)
    return viewed(x, (*x.shape[:d], *completed(flat((sizes,)), x.shape[d]), *x.shape[d + 1 :]))


def permuted(x: Operand, order: Sequence[int]) -> Definition:
    """Dimensions in another order."""
    at = indices_of([x.shape[d] for d in order])
    source: list[Expr] = [sp.S.Zero] * x.rank
    for k, d in enumerate(order):
        source[d] = at[k]
    return define([x.shape[d] for d in order], at, x[tuple(source)] if x.rank else x[()])


@op("permute", view=True)
def permute(x: Operand, *dims: Any) -> Definition:
    return permuted(x, [axis(int(d), x.rank) for d in flat(dims)])


@op("transpose", "swapaxes", "swapdims", view=True)
def transpose(x: Operand, dim0: int, dim1: int) -> Definition:
    order = list(range(x.rank))
    a, b = axis(dim0, x.rank), axis(dim1, x.rank)
    if order:
        order[a], order[b] = order[b], order[a]
    return permuted(x, order)


@op("t", "T", "H", targets=(Tensor.T.__get__, Tensor.H.__get__), view=True)
def reversed_dims(x: Operand) -> Definition:
    return permuted(x, list(range(x.rank))[::-1])


@op("mT", "mH", "adjoint", targets=(Tensor.mT.__get__, Tensor.mH.__get__), view=True)
def matrix_transpose(x: Operand) -> Definition:
    return permuted(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@op("movedim", "moveaxis", view=True)
def movedim(x: Operand, source: Any, destination: Any) -> Definition:
    sources = [axis(d, x.rank) for d in (source if isinstance(source, (tuple, list)) else (source,))]
    targets = [axis(d, x.rank) for d in (destination if isinstance(destination, (tuple, list)) else (destination,))]
    rest = [d for d in range(x.rank) if d not in sources]
    order = [sources[targets.index(d)] if d in targets else rest.pop(0) for d in range(x.rank)]
    return permuted(x, order)


@op("squeeze", view=True)
def squeeze(x: Operand, dim: Any = None) -> Definition:
    dims = axes(dim, x.rank)
    return viewed(x, [s for d, s in enumerate(x.shape) if not (d in dims and s == 1)])


@op("unsqueeze", view=True)
def unsqueeze(x: Operand, dim: int) -> Definition:
    d = axis(dim, x.rank + 1)
    return viewed(x, (*x.shape[:d], Integer(1), *x.shape[d:]))


@op("expand", "broadcast_to", view=True)
def expand(x: Operand, *sizes: Any) -> Definition:
    wanted = [expression(s) for s in flat(sizes)]
    lead = len(wanted) - x.rank
    shape = [x.shape[d - lead] if s == -1 else s for d, s in enumerate(wanted)]
    shape = [s if d < lead or x.shape[d - lead] == 1 else equal(x.shape[d - lead], s) for d, s in enumerate(shape)]
    at = indices_of(shape)
    return define(shape, at, aligned(x, at))


@op("expand_as", view=True)
def expand_as(x: Operand, other: Operand) -> Definition:
    return _expanded(x, other.shape)


def _expanded(x: Operand, shape: Sequence[Expr]) -> Definition:
    at = indices_of(shape)
    return define(shape, at, aligned(x, at))


def _triangle(x: Operand, keep: Any) -> Definition:
    at = indices_of(x.shape)
    return define(x.shape, at, Where(keep(at[-2], at[-1]), x[at], 0))


@op("tril")
def tril(x: Operand, diagonal: int = 0) -> Definition:
    return _triangle(x, lambda i, j: LessEqual(j, i + expression(diagonal)))


@op("triu")
def triu(x: Operand, diagonal: int = 0) -> Definition:
    return _triangle(x, lambda i, j: LessEqual(i + expression(diagonal), j))


@op("diagonal", view=True)
def diagonal(x: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Definition:
    a, b = axis(dim1, x.rank), axis(dim2, x.rank)
    rows, columns = x.shape[a], x.shape[b]
    down, right = max(-offset, 0), max(offset, 0)
    size = min((rows - down, columns - right), key=value_of)
    i = fresh()
    rest = [d for d in range(x.rank) if d not in (a, b)]
    source: list[Expr] = list(indices_of(x.shape))
    at = [source[d] for d in rest]
    source[a], source[b] = cast("Expr", i + down), cast("Expr", i + right)
    return define((*[x.shape[d] for d in rest], size), (*at, i), x[tuple(source)])


@op("diag")
def diag(x: Operand, diagonal_: int = 0) -> Definition:
    if x.rank == 2:
        return diagonal(x, diagonal_)
    size = cast("Expr", x.shape[0] + abs(diagonal_))
    from engine.notation import Delta

    i, j, k = fresh(), fresh(), fresh()
    down, right = max(-diagonal_, 0), max(diagonal_, 0)
    from engine.notation import sigma

    body = x[k] * Delta(i, k + down) * Delta(j, k + right)
    return define((size, size), (i, j), sigma(cast("Expr", body), (k, x.shape[0])))


@op("flip")
def flip(x: Operand, *dims: Any) -> Definition:
    turned = {axis(int(d), x.rank) for d in flat(dims)}
    at = indices_of(x.shape)
    return define(x.shape, at, x[tuple(s - 1 - i if d in turned else i for d, (i, s) in enumerate(zip(at, x.shape, strict=True)))])


def _joined(xs: Sequence[Operand], dim: int) -> Definition:
    d = axis(dim, xs[0].rank)
    first = xs[0]
    shape = list(first.shape)
    for x in xs[1:]:
        shape = [s if k == d else equal(s, x.shape[k]) for k, s in enumerate(shape)]
    shape[d] = cast("Expr", sp.Add(*[x.shape[d] for x in xs]))
    at = list(indices_of(shape))
    start: Expr = sp.S.Zero
    pieces: list[tuple[Expr, Expr]] = []
    for x in xs:
        here = list(at)
        here[d] = cast("Expr", at[d] - start)
        start = cast("Expr", start + x.shape[d])
        pieces.append((start, x[tuple(here)]))
    body = pieces[-1][1]
    for end, piece in reversed(pieces[:-1]):
        body = cast("Expr", Where(LessEqual(at[d] + 1, end), piece, body))
    return define(shape, at, body)


@op("cat", "concat", "concatenate")
def cat(xs: Sequence[Operand], dim: int = 0) -> Definition:
    return _joined(list(xs), dim)


@op("stack")
def stack(xs: Sequence[Operand], dim: int = 0) -> Definition:
    d = axis(dim, xs[0].rank + 1)
    shape = list(xs[0].shape)
    for x in xs[1:]:
        shape = [equal(s, x.shape[k]) for k, s in enumerate(shape)]
    full = [*shape[:d], Integer(len(xs)), *shape[d:]]
    at = list(indices_of(full))
    rest = tuple(at[:d] + at[d + 1 :])
    body = xs[-1].element(*rest)
    for k in range(len(xs) - 2, -1, -1):
        body = cast("Expr", Where(LessEqual(at[d], k), xs[k].element(*rest), body))
    return define(full, at, body)


def narrowed(x: Operand, dim: int, start: Expr, length: Expr) -> Definition:
    """`length` entries of one dimension, from `start`."""
    shape = [length if d == dim else s for d, s in enumerate(x.shape)]
    at = indices_of(shape)
    return define(shape, at, x[tuple(start + i if d == dim else i for d, i in enumerate(at))])


@op("narrow", view=True)
def narrow(x: Operand, dim: int, start: Any, length: Any) -> Definition:
    d = axis(dim, x.rank)
    first = expression(start)
    return narrowed(x, d, x.shape[d] + first if value_of(first) < 0 else first, expression(length))


def _pieces(x: Operand, dim: int, lengths: Sequence[Expr]) -> tuple[Definition, ...]:
    out: list[Definition] = []
    start: Expr = sp.S.Zero
    for length in lengths:
        out.append(narrowed(x, dim, start, length))
        start = cast("Expr", start + length)
    equal(x.shape[dim], start)
    return tuple(out)


@op("split", view=True)
def split(x: Operand, split_size: Any, dim: int = 0) -> tuple[Definition, ...]:
    d = axis(dim, x.rank)
    if isinstance(split_size, (tuple, list)):
        return _pieces(x, d, [expression(s) for s in cast("Sequence[Any]", split_size)])
    size = expression(split_size)
    total, each = value_of(x.shape[d]), value_of(size)
    count = -(-total // each)
    if total % each == 0 and sp.cancel(x.shape[d] / size) == count:
        return _pieces(x, d, [size] * count)
    equal(x.shape[d], Integer(total))
    return _pieces(x, d, [Integer(min(each, total - k * each)) for k in range(count)])


@op("chunk", view=True)
def chunk(x: Operand, chunks: int, dim: int = 0) -> tuple[Definition, ...]:
    d = axis(dim, x.rank)
    total = value_of(x.shape[d])
    if total % chunks == 0 and sp.cancel(x.shape[d] / chunks).is_integer:
        return _pieces(x, d, [sp.cancel(x.shape[d] / chunks)] * chunks)
    return split(x, -(-total // chunks), dim)


@op("unbind", targets=(Tensor.__iter__,), view=True)
def unbind(x: Operand, dim: int = 0) -> tuple[Definition, ...]:
    d = axis(dim, x.rank)
    count = value_of(x.shape[d])
    equal(x.shape[d], Integer(count))
    return tuple(selected(x, d, Integer(k)) for k in range(count))


def selected(x: Operand, dim: int, at: Expr) -> Definition:
    """One entry of a dimension, which goes."""
    shape = [s for d, s in enumerate(x.shape) if d != dim]
    rest = list(indices_of(shape))
    return define(shape, rest, x[tuple([*rest[:dim], at, *rest[dim:]])])


@op("select", view=True)
def select(x: Operand, dim: int, index: Any) -> Definition:
    d = axis(dim, x.rank)
    k = expression(index)
    return selected(x, d, x.shape[d] + k if value_of(k) < 0 else k)


@op("repeat", "tile")
def repeat(x: Operand, *sizes: Any) -> Definition:
    times = [expression(s) for s in flat(sizes)]
    lead = len(times) - x.rank
    old = [Integer(1)] * lead + list(x.shape)
    shape = [cast("Expr", s * t) for s, t in zip(old, times, strict=True)]
    at = indices_of(shape)
    source = [i if t == 1 else sp.S.Zero if s == 1 else Rem(i, s) for i, s, t in zip(at, old, times, strict=True)]
    return define(shape, at, x[tuple(source[lead:])] if x.rank else x[()])


@op("roll")
def roll(x: Operand, shifts: Any, dims: Any = None) -> Definition:
    if dims is None:
        raise TraceError("roll without dims flattens first; name the dims")
    by = dict(zip((axis(d, x.rank) for d in flat((dims,))), flat((shifts,)), strict=True))
    at = indices_of(x.shape)
    source = [Rem(i + s - expression(by[d]) % value_of(s), s) if d in by else i for d, (i, s) in enumerate(zip(at, x.shape, strict=True))]
    return define(x.shape, at, x[tuple(source)])
