"""Contractions: matrix products in all of torch's spellings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch

from engine.errors import TraceError
from engine.notation import Index, Parity, fresh, sigma
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    aligned,
    axis,
    broadcast_shape,
    composite,
    define,
    equal,
    fresh_of,
    indices_of,
    op,
    several,
)

if TYPE_CHECKING:
    from sympy import Expr

linalg: Any = torch.linalg
Tensor = torch.Tensor


@op("matmul", "mm", "bmm", "mv", "dot", "vdot", targets=(Tensor.__matmul__, linalg.matmul), kind="product")
def matmul(x: Operand, y: Operand) -> Definition:
    if x.rank == 0 or y.rank == 0:
        raise TraceError("matmul needs tensors of rank 1 or more")
    j = fresh()
    n = equal(x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0])
    batch = broadcast_shape(x.shape[:-2], y.shape[:-2])
    at = list(indices_of(batch))
    rows, columns = list(indices_of(x.shape[-2:-1])), list(indices_of(y.shape[-1:] if y.rank > 1 else ()))
    left = _element(x, at, [*rows, j])
    right = _element(y, at, [j, *columns] if y.rank > 1 else [j])
    shape = (*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.rank > 1 else ()))
    return define(shape, (*at, *rows, *columns), sigma(left * right, (j, n)))


def _element(x: Operand, batch: list[Expr], last: list[Expr]) -> Expr:
    lead = x.rank - len(last)
    return x[(*batch[len(batch) - lead :], *last)]


@op(targets=(Tensor.__rmatmul__,), kind="product")
def rmatmul(y: Operand, x: Operand) -> Definition:
    return matmul(x, y)


@op("linear", kind="product")
def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Definition:
    j = fresh()
    n = equal(x.shape[-1], weight.shape[-1])
    rows, columns = list(indices_of(x.shape[:-1])), list(indices_of(weight.shape[:-1]))
    out = sigma(x[(*rows, j)] * weight[(*columns, j)], (j, n))
    shape = (*x.shape[:-1], *weight.shape[:-1])
    if bias is not None:
        out = out + aligned(bias, (*rows, *columns))
        broadcast_shape(shape, bias.shape)
    return define(shape, (*rows, *columns), out)


@op("addmm", "addmv", "baddbmm", kind="product")
def addmm(bias: Operand, x: Operand, y: Operand, *, beta: Any = 1, alpha: Any = 1) -> Definition:
    d = matmul(x, y)
    broadcast_shape(d.shape, bias.shape)
    return define(d.shape, d.indices, expression(beta) * aligned(bias, d.indices) + expression(alpha) * d.expr)


@op("inner", kind="product")
def inner(x: Operand, y: Operand) -> Definition:
    """The sum over the last dimension of both."""
    if not x.rank or not y.rank:
        at = indices_of(x.shape or y.shape)
        return define(x.shape or y.shape, at, x.element(*at[: x.rank]) * y.element(*at[: y.rank]))
    return linear(x, y)


@op("outer", "ger")
def outer(x: Operand, y: Operand) -> Definition:
    at = indices_of((x.shape[0], y.shape[0]))
    return define((x.shape[0], y.shape[0]), at, x[at[0]] * y[at[1]])


@op(targets=(linalg.vecdot,))
def vecdot(x: Operand, y: Operand, *, dim: int = -1) -> Definition:
    """The sum of products along one dimension."""
    shape = broadcast_shape(x.shape, y.shape)
    at, d = indices_of(shape), axis(dim, len(shape))
    limits = [(cast("Index", at[d]), shape[d])] if shape[d] != 1 else []
    rest = [k for k in range(len(shape)) if k != d]
    return define([shape[k] for k in rest], [at[k] for k in rest], sigma(aligned(x, at) * aligned(y, at), *limits))


@composite("addbmm")
def addbmm(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    out = alpha * (x @ y).sum(0)
    return out if beta == 0 else beta * bias + out


@composite("addr")
def addr(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    out = alpha * torch.outer(x, y)
    return out if beta == 0 else beta * bias + out


@op(targets=(torch.nn.functional.bilinear,), kind="product")
def bilinear(x1: Operand, x2: Operand, weight: Operand, bias: Operand | None = None) -> Definition:
    """x1 W x2 for each of the matrices W."""
    lead, (o, i, j) = list(indices_of(x1.shape[:-1])), (fresh_of(n) for n in weight.shape)
    limits = [(cast("Index", k), n) for k, n in ((i, weight.shape[1]), (j, weight.shape[2])) if n != 1]
    broadcast_shape(x1.shape[:-1], x2.shape[:-1])
    out = sigma(x1[(*lead, i)] * weight[o, i, j] * x2[(*lead, j)], *limits)
    return define((*x1.shape[:-1], weight.shape[0]), (*lead, o), out if bias is None else out + bias[o])


@composite(targets=(linalg.multi_dot,))
def multi_dot(*matrices: Any) -> Any:
    """A chain of products, from the left."""
    given = list(matrices[0]) if len(matrices) == 1 else list(matrices)
    out = given[0]
    for m in given[1:]:
        out = out @ m
    return out


@composite("chain_matmul")
def chain_matmul(*matrices: Any) -> Any:
    return multi_dot(*matrices)


@composite("matrix_power", targets=(linalg.matrix_power,))
def matrix_power(x: Any, n: int) -> Any:
    """n equal factors, by squares; of the inverse where n is negative."""
    if n < 0:
        return matrix_power(linalg.inv(x), -n)
    out: Any = None
    while n:
        if n & 1:
            out = x if out is None else out @ x
        n >>= 1
        x = x @ x if n else x
    return torch.eye(x.shape[-1], dtype=x.dtype).expand(x.shape) + 0 * x if out is None else out


@composite("tensordot")
def tensordot(x: Any, y: Any, dims: Any = 2) -> Any:
    """The sum over pairs of dimensions: the last `dims` of x with the first of y, or those listed."""
    pairs = (
        [(x.dim() - dims + k, k) for k in range(dims)]
        if isinstance(dims, int)
        else [(a % x.dim(), b % y.dim()) for a, b in zip(*dims, strict=True)]
    )
    left = [chr(ord("a") + d) for d in range(x.dim())]
    right = [chr(ord("A") + d) for d in range(y.dim())]
    for a, b in pairs:
        right[b] = left[a]
    out = [c for d, c in enumerate(left) if d not in {a for a, _ in pairs}] + [c for c in right if c.isupper()]
    return torch.einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y)


@composite("kron")
def kron(x: Any, y: Any) -> Any:
    """Every entry of x times the whole of y."""
    rank = max(x.dim(), y.dim())
    x, y = (t.reshape([1] * (rank - t.dim()) + list(t.shape)) for t in (x, y))
    for d in range(rank):
        x, y = x.unsqueeze(2 * d + 1), y.unsqueeze(2 * d)
    out = x * y
    return out.reshape([out.shape[2 * d] * out.shape[2 * d + 1] for d in range(rank)])


@op(targets=(linalg.cross,))
def linalg_cross(x: Operand, y: Operand, *, dim: int = -1) -> Definition:
    """The vector product along a dimension of size three."""
    shape = broadcast_shape(x.shape, y.shape)
    d = axis(dim, len(shape))
    equal(shape[d], sp.Integer(3))
    at = list(indices_of(shape))
    j, k = fresh(), fresh()
    left, right = (aligned(t, [*at[:d], i, *at[d + 1 :]]) for t, i in ((x, j), (y, k)))
    three = sp.Integer(3)
    body = Parity(at[d], j, k) * left * right
    return define((*shape[:d], three, *shape[d + 1 :]), at, sigma(body, (j, three), (k, three)))


@composite("cross")
def cross(x: Any, y: Any, dim: int | None = None) -> Any:
    """The vector product along a dimension of size three: the first one, as the example has it, where none is named."""
    shape: Any = cast("Any", torch).broadcast_shapes(x.shape, y.shape) if dim is None else ()
    return linalg.cross(x, y, dim=next(k for k, n in enumerate(shape) if n == 3) if dim is None else dim)


@op("einsum")
def einsum(equation: str, *given: Any) -> Definition:
    operands: list[Operand] = (several(given[0]) if len(given) == 1 else None) or list(given)
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise TraceError(f"einsum {equation!r} names {len(terms)} operands and was given {len(operands)}")
    rank = max(
        (x.rank - len(t.replace("...", "")) for t, x in zip(terms, operands, strict=True) if "..." in t), default=0
    )
    dots = "".join(chr(0x2460 + k) for k in range(rank))
    terms = [
        t.replace("...", dots[rank - (x.rank - len(t.replace("...", ""))) :] if "..." in t else "")
        for t, x in zip(terms, operands, strict=True)
    ]
    if arrow:
        out = right.replace("...", dots)
    else:
        letters = sorted(set("".join(terms)) - set(dots))
        out = dots + "".join(c for c in letters if "".join(terms).count(c) == 1)
    sizes: dict[str, Expr] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, size in zip(term, x.shape, strict=True):
            known = sizes.get(letter)
            sizes[letter] = size if known is None or known == 1 else known if size == 1 else equal(known, size)
    at: dict[str, Any] = {c: fresh() if s != 1 else 0 for c, s in sizes.items()}
    body: Any = 1
    for term, x in zip(terms, operands, strict=True):
        body = body * x.element(*[at[c] for c in term])
    summed = [(at[c], sizes[c]) for c in dict.fromkeys("".join(terms)) if c not in out and sizes[c] != 1]
    return define([sizes[c] for c in out], [at[c] for c in out], sigma(body, *summed))


@composite(targets=(linalg.vander,))
def linalg_vander(x: Any, *, N: Any = None) -> Any:
    """The powers 0, 1, ... of each entry, as a new last dimension; as many as there are entries unless `N` says so."""
    count = int(x.shape[-1] if N is None else N)
    powers = [torch.ones_like(x)]
    for _ in range(count - 1):
        powers.append(powers[-1] * x)
    return torch.stack(powers, -1)


@composite("vander")
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    """`torch.linalg.vander` of a vector, with the highest power first unless `increasing`."""
    found = linalg_vander(x, N=N)
    return found if increasing else found.flip(1)
