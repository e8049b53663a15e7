"""Layout ops: index maps, nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import ShapeError, TraceError
from engine.notation import Quo, Rem
from engine.shapes import broadcast_shapes
from engine.sizes import expression
from engine.table import (
    BroadcastError,
    Definition,
    Operand,
    aligned,
    at_least,
    axes,
    axis,
    composite,
    define,
    divided,
    each_of,
    equal,
    indices_of,
    op,
    product,
    quotient,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Tensor: Any = torch.Tensor


def flat(args: Sequence[Any]) -> tuple[Any, ...]:
    """`view(2, 3)` and `view((2, 3))` are the same."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        return tuple(cast("Sequence[Any]", args[0]))
    return tuple(args)


def completed(sizes: Sequence[Any], old: Sequence[Expr]) -> tuple[Expr, ...]:
    """A target shape with its -1 worked out from the shape that is rearranged."""
    shape = [expression(s) for s in sizes]
    if -1 in shape:
        at = shape.index(Integer(-1))
        count, rest = product(old), product([s for s in shape if s != -1])
        missing = count / rest
        if sp.fraction(missing)[1] != 1:  # what is a product of whole dimensions has cancelled already
            missing = quotient(count, rest)
        if sp.fraction(sp.together(missing))[1] != 1 or any(
            f.is_Pow and f.exp.is_negative for f in sp.Mul.make_args(missing)
        ):
            found = between(old, product(shape[:at]), product(shape[at + 1 :])) or divided(missing)
            if found is None:
                found = Integer(value_of(count) // value_of(rest))
                equal(count, found * rest)
            missing = found
        shape[at] = missing
    return tuple(shape)


def between(old: Sequence[Expr], before: Expr, after: Expr) -> Expr | None:
    """What is left of a shape when `before` elements are taken off its front and `after` off its back, by whole dimensions:
    of (n, t, c) in `view(-1, 30)` it is n where t*c is 30, which is then so for good. None where the dimensions do not fit.
    """
    firsts = [k for k in range(len(old) + 1) if value_of(product(old[:k])) == value_of(before)]
    lasts = [k for k in range(len(old), -1, -1) if value_of(product(old[k:])) == value_of(after)]
    if not firsts or not lasts or firsts[0] > lasts[0]:
        return None
    equal(product(old[: firsts[0]]), before)
    equal(product(old[lasts[0] :]), after)
    return product(old[firsts[0] : lasts[0]])


def steps(span: Expr, step: Any) -> Expr:
    """How many steps of a size begin at 0 and stay within a span: span // step + 1."""
    whole = sp.cancel(span / step)
    if whole.is_integer:
        return whole + 1
    span, size = sp.expand(span), expression(step)
    if not size.is_Integer:
        return Quo(span, size) + 1
    constant = span.as_coeff_Add()[0]  # n // 2 rather than (n - 2) // 2 + 1
    times = sp.floor(constant / size)
    return Quo(span - times * size, size) + times + 1


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
            done = i == len(a) and j == len(b)
            if m == n and (m or done) and (i == len(a) or a[i] != 1) and (j == len(b) or b[j] != 1):
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
            position = (position * shape[d] + at[d]) if position != 0 else at[d]
        for k, d in enumerate(inner):
            stride = product([x.shape[e] for e in inner[k + 1 :]])
            here: Expr = cast("Expr", Quo(position, stride))
            source[d] = here if k == 0 else cast("Expr", Rem(here, x.shape[d]))
        if len(inner) > 1 and len(outer) > 1:
            source = [sp.expand(s) if s.is_Add else s for s in source]
    return define(shape, at, x[tuple(source)] if x.rank else x[()])


@op("view", "view_copy", "reshape", view=True)
def view(x: Operand, *shape: Any) -> Definition:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise TraceError("view(dtype) reinterprets bits and has no derivative; use .to(dtype)")
    return viewed(x, completed(flat(shape), x.shape))


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
    return viewed(x, (*x.shape[:d], *completed(flat((sizes,)), (x.shape[d],)), *x.shape[d + 1 :]))


def permuted(x: Operand, order: Sequence[int]) -> Definition:
    """Dimensions in another order."""
    at = indices_of([x.shape[d] for d in order])
    source: list[Expr] = [sp.S.Zero] * x.rank
    for k, d in enumerate(order):
        source[d] = at[k]
    return define([x.shape[d] for d in order], at, x[tuple(source)] if x.rank else x[()])


@op("permute", "permute_copy", view=True)
def permute(x: Operand, *dims: Any) -> Definition:
    return permuted(x, [axis(int(d), x.rank) for d in flat(dims)])


@op("transpose", "transpose_copy", "swapaxes", "swapdims", view=True)
def transpose(x: Operand, dim0: int, dim1: int) -> Definition:
    order = list(range(x.rank))
    a, b = axis(dim0, x.rank), axis(dim1, x.rank)
    if order:
        order[a], order[b] = order[b], order[a]
    return permuted(x, order)


@op("t", "t_copy", "T", "H", targets=(Tensor.T.__get__, Tensor.H.__get__), view=True)
def reversed_dims(x: Operand) -> Definition:
    return permuted(x, list(range(x.rank))[::-1])


@op("mT", "mH", "adjoint", targets=(Tensor.mT.__get__, Tensor.mH.__get__), view=True)
def matrix_transpose(x: Operand) -> Definition:
    if x.rank < 2:  # torch returns a number as it is
        return permuted(x, list(range(x.rank)))
    return permuted(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@op("movedim", "moveaxis", view=True)
def movedim(x: Operand, source: Any, destination: Any) -> Definition:
    sources, targets = ([axis(d, x.rank) for d in each_of(dims, 1)] for dims in (source, destination))
    rest = [d for d in range(x.rank) if d not in sources]
    order = [sources[targets.index(d)] if d in targets else rest.pop(0) for d in range(x.rank)]
    return permuted(x, order)


@op("squeeze", "squeeze_copy", view=True)
def squeeze(x: Operand, dim: Any = None) -> Definition:
    dims = () if dim == () else axes(dim, x.rank)
    for d in dims:
        if x.shape[d] != 1 and value_of(x.shape[d]) == 1:  # a computed size: it is one in any run from here on
            raise BroadcastError(x.shape[d])
        if value_of(x.shape[d]) > 1:  # of one it would be taken out
            at_least(x.shape[d], Integer(2))
    return viewed(x, [s for d, s in enumerate(x.shape) if not (d in dims and s == 1)])


@op("unsqueeze", "unsqueeze_copy", view=True)
def unsqueeze(x: Operand, dim: int) -> Definition:
    d = axis(dim, x.rank + 1)
    return viewed(x, (*x.shape[:d], Integer(1), *x.shape[d:]))


@op("expand", "expand_copy", "broadcast_to", view=True)
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


@composite("broadcast_tensors")
def broadcast_tensors(*xs: Any) -> Any:
    """Tensors expanded to their common shape."""
    xs = flat(xs)
    shape = broadcast_shapes(*[x.shape for x in xs])
    return tuple(x.expand(shape) for x in xs)


def each(xs: tuple[Any, ...], function: Callable[[Any], Any]) -> Any:
    """A function of one tensor, or of each of several."""
    return (
        function(xs[0])
        if len(xs) == 1 and not isinstance(xs[0], (tuple, list))
        else tuple(function(x) for x in flat(xs))
    )


@composite("atleast_1d")
def atleast_1d(*xs: Any) -> Any:
    return each(xs, lambda x: x.reshape(1) if x.dim() == 0 else x)


@composite("atleast_2d")
def atleast_2d(*xs: Any) -> Any:
    return each(xs, lambda x: x if x.dim() > 1 else x.reshape(1, -1))


@composite("atleast_3d")
def atleast_3d(*xs: Any) -> Any:
    return each(xs, lambda x: x if x.dim() > 2 else x.unsqueeze(-1) if x.dim() == 2 else x.reshape(1, -1, 1))


@composite("meshgrid")
def meshgrid(*xs: Any, indexing: str = "ij") -> Any:
    """Each vector along its own dimension, expanded along the others."""
    xs = flat(xs)
    grid = [x.reshape(-1).reshape([-1 if d == k else 1 for d in range(len(xs))]) for k, x in enumerate(xs)]
    shape = [g.shape[k] for k, g in enumerate(grid)]
    out = [g.expand(shape) for g in grid]
    return tuple(g.transpose(0, 1) if indexing == "xy" and len(xs) > 1 else g for g in out)


@composite("sum_to_size")
def sum_to_size(x: Any, *size: Any) -> Any:
    """Summed over what broadcasting would expand."""
    wanted = flat(size)
    lead = x.dim() - len(wanted)
    dims = [*range(lead), *[lead + d for d, s in enumerate(wanted) if s == 1 and x.shape[lead + d] != 1]]
    if dims:
        x = x.sum(dims, keepdim=True)
    return x.reshape(wanted) if lead else x


@composite("pixel_shuffle")
def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """Channels into space: (..., c*r*r, h, w) to (..., c, h*r, w*r)."""
    r, (c, h, w) = upscale_factor, x.shape[-3:]
    split = x.reshape(*x.shape[:-3], c // (r * r), r, r, h, w)
    n = x.dim() - 3
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return split.permute(order).reshape(*x.shape[:-3], c // (r * r), h * r, w * r)


@composite("pixel_unshuffle")
def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """Space into channels: (..., c, h*r, w*r) to (..., c*r*r, h, w)."""
    r, (c, h, w) = downscale_factor, x.shape[-3:]
    split = x.reshape(*x.shape[:-3], c, h // r, r, w // r, r)
    n = x.dim() - 3
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return split.permute(order).reshape(*x.shape[:-3], c * r * r, h // r, w // r)


@composite("channel_shuffle")
def channel_shuffle(x: Any, groups: int) -> Any:
    """Channels taken from each group in turn."""
    n, c = x.shape[:2]
    return x.reshape(n, groups, c // groups, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
