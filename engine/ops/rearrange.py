"""Entries in other places: triangles, diagonals, turned and shifted dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.notation import Delta, Index, LessEqual, Rem, Where, fresh, sigma
from engine.ops.layout import flat, steps
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    Row,
    axis,
    composite,
    define,
    each_of,
    equal,
    indices_of,
    op,
    recorded_as,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable


linalg: Any = torch.linalg
fft: Any = torch.fft


def triangle(x: Operand, keep: Callable[[Expr, Expr], Any]) -> Definition:
    """The entries of matrices where `keep(row, column)` holds, 0 elsewhere."""
    at = indices_of(x.shape)
    return define(x.shape, at, Where(keep(at[-2], at[-1]), x[at], 0))


@op("tril")
def tril(x: Operand, diagonal: int = 0) -> Definition:
    return triangle(x, lambda i, j: LessEqual(j, i + expression(diagonal)))


@op("triu")
def triu(x: Operand, diagonal: int = 0) -> Definition:
    return triangle(x, lambda i, j: LessEqual(i + expression(diagonal), j))


def diagonal_of(x: Operand, offset: int, dim1: int, dim2: int) -> Definition:
    """The entries whose places along two dimensions differ by `offset`, as a new last dimension.

    Which of the two sizes ends it is that of the example: a square stays one, and other sizes are numbers from here on.
    """
    a, b = axis(dim1, x.rank), axis(dim2, x.rank)
    rows, columns = x.shape[a], x.shape[b]
    if value_of(rows) == value_of(columns):
        rows = columns = equal(rows, columns)
    elif not (columns - rows).is_Integer:
        rows, columns = (equal(n, sp.Integer(value_of(n))) for n in (rows, columns))
    down, right = max(-offset, 0), max(offset, 0)
    size = min((rows - down, columns - right), key=value_of)
    if value_of(size) <= 0:
        size = sp.S.Zero
    i: Expr = sp.S.Zero if size == 1 else fresh()
    rest = [d for d in range(x.rank) if d not in (a, b)]
    source: list[Expr] = list(indices_of(x.shape))
    at = [source[d] for d in rest]
    source[a], source[b] = i + down, (i + right)
    return define((*[x.shape[d] for d in rest], size), (*at, i), x[tuple(source)])


@op("diagonal", "diagonal_copy", view=True)
def diagonal(x: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Definition:
    return diagonal_of(x, offset, dim1, dim2)


@op(targets=(linalg.diagonal,), view=True)
def linalg_diagonal(x: Operand, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Definition:
    return diagonal_of(x, offset, dim1, dim2)


@op("diag_embed")
def diag_embed(x: Operand, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Definition:
    """The last dimension along a diagonal of new matrices."""
    a, b = axis(dim1, x.rank + 1), axis(dim2, x.rank + 1)
    size = x.shape[-1] + abs(offset)
    down, right = max(-offset, 0), max(offset, 0)
    rest = list(indices_of(x.shape[:-1]))
    i, j = indices_of((size, size))
    shape, at = list(x.shape[:-1]), list(rest)
    for d, place in sorted(((a, i), (b, j)), key=lambda p: p[0]):
        shape.insert(d, size)
        at.insert(d, place)
    return define(shape, at, Where(Delta(i - down, j - right), x.element(*rest, i - down), 0))


@op("diag")
def diag(x: Operand, diagonal: int = 0) -> Definition:
    return diagonal_of(x, diagonal, 0, 1) if x.rank == 2 else diag_embed(x, diagonal)


@composite("diagflat")
def diagflat(x: Any, offset: int = 0) -> Any:
    return x.reshape(-1).diag(offset)


@op("trace")
def trace(x: Operand) -> Definition:
    d = diagonal_of(x, 0, 0, 1)
    limits = [(cast("Index", i), s) for i, s in zip(d.indices, d.shape, strict=True) if s != 1]
    return define((), (), sigma(d.expr, *limits))


@op("flip")
def flip(x: Operand, *dims: Any) -> Definition:
    turned = {axis(int(d), x.rank) for d in flat(dims)}
    at = indices_of(x.shape)
    return define(
        x.shape,
        at,
        x.element(*[(s - 1 - i) if d in turned else i for d, (i, s) in enumerate(zip(at, x.shape, strict=True))]),
    )


@composite("fliplr")
def fliplr(x: Any) -> Any:
    return x.flip(1)


@composite("flipud")
def flipud(x: Any) -> Any:
    return x.flip(0)


@composite("rot90")
def rot90(x: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """Quarter turns in the plane of two dimensions."""
    a, b = dims
    k = k % 4
    if k == 2:
        return x.flip(a, b)
    return x if k == 0 else x.flip(b).transpose(a, b) if k == 1 else x.transpose(a, b).flip(b)


@composite("roll")
def roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    """Without dims, in the order of all elements."""
    if dims is None or dims == ():
        return x.reshape(-1).roll(shifts, 0).view_as(x)
    with recorded_as(ROLL):
        return x.roll(shifts, dims)


def rolled(x: Operand, shifts: Any, dims: Any) -> Definition:
    by: dict[int, Expr] = {}
    for d, s in zip(flat((dims,)), flat((shifts,)), strict=True):
        k = axis(d, x.rank)
        by[k] = by.get(k, sp.S.Zero) + expression(s)
    at = indices_of(x.shape)
    return define(
        x.shape,
        at,
        x.element(*[shifted(i, s, by[d]) if d in by else i for d, (i, s) in enumerate(zip(at, x.shape, strict=True))]),
    )


def shifted(i: Expr, size: Expr, by: Expr) -> Expr:
    """The place that a cyclic shift moves to `i`."""
    total, away = value_of(size), value_of(by)
    if total == 0 or away == 0:
        return i
    if away < 0:
        return cast("Expr", Rem(i - by, size))
    if away >= total:
        equal(size, Integer(total))
        by = Integer(away % total)
    return cast("Expr", Rem(i + size - by, size))


ROLL = Row("roll", (), rolled)


@op(targets=(torch.Tensor.unfold, torch.unfold_copy))
def unfold(x: Operand, dimension: int, size: int, step: int) -> Definition:
    """Windows of one dimension, as a new last dimension."""
    d = axis(dimension, x.rank)
    if not x.rank:
        (k,) = indices_of((expression(size),))
        return define((expression(size),), (k,), x.element())
    count = steps(x.shape[d] - size, step)
    shape = [count if k == d else s for k, s in enumerate(x.shape)] + [expression(size)]
    at = indices_of(shape)
    source = [(i * step + at[-1]) if k == d else i for k, i in enumerate(at[:-1])]
    return define(shape, at, x.element(*source))


@composite(targets=(fft.fftshift,))
def fftshift(x: Any, dim: Any = None) -> Any:
    """The first half of each dimension behind the second: frequencies from the lowest to the highest."""
    dims = range(x.dim()) if dim is None else each_of(dim, 1)
    return x.roll([int(x.shape[d]) // 2 for d in dims], list(dims))


@composite(targets=(fft.ifftshift,))
def ifftshift(x: Any, dim: Any = None) -> Any:
    """The inverse of `fftshift`."""
    dims = range(x.dim()) if dim is None else each_of(dim, 1)
    return x.roll([-(int(x.shape[d]) // 2) for d in dims], list(dims))
