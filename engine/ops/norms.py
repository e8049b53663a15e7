"""Norms and distances. At the zero vector torch takes the slope of a norm as 0."""

from __future__ import annotations

import math
from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Largest, Smallest, Where, sigma
from engine.ops.choice import magnitude
from engine.sizes import expression
from engine.table import Definition, Operand, composite, define, each_of, op, reduced

linalg: Any = torch.linalg
F = torch.nn.functional


def vector_norm(x: Operand, ord: Any, dim: Any, keepdim: bool) -> Definition:
    """(Sum |x|^p)^(1/p); the largest or smallest |x| for infinite p, the count of what is not 0 for p = 0."""
    shape, out, at, limits = reduced(x, dim, keepdim)
    e = x.element(*at)
    p = expression(ord)
    if not limits:
        return define(shape, out, 1 - Equal(e, 0) if p == 0 else magnitude(e))
    if p in (sp.S.Infinity, sp.S.NegativeInfinity):
        return define(shape, out, _extreme_magnitude(e, limits, 1 if p is sp.S.Infinity else -1))
    if p == 0:
        return define(shape, out, sigma(1 - Equal(e, 0), *limits))
    if p == 1:
        return define(shape, out, sigma(magnitude(e), *limits))
    powers = e**2 if p == 2 else Where(Equal(e, 0), 0 if p > 0 else sp.S.Infinity, magnitude(e) ** p)
    total = sigma(powers, *limits)
    return define(shape, out, Where(Equal(total, 0), 0, total ** (1 / p)))


def _extreme_magnitude(e: Expr, limits: Any, sign: int) -> Expr:
    return (Largest if sign > 0 else Smallest)(magnitude(e), *[sp.Tuple(i, n) for i, n in limits])


@op(targets=(linalg.vector_norm,))
def linalg_vector_norm(
    x: Operand, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Definition:
    return vector_norm(x, ord, dim, keepdim)


@op("norm")
def norm(
    x: Operand, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Definition:
    if p == "nuc":
        raise TraceError("the nuclear norm needs singular values, which are not in the table")
    return vector_norm(x, 2 if p in ("fro", None) else p, dim, keepdim)


@composite(targets=(linalg.norm,))
def linalg_norm(x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of a vector, or of matrices where `ord` is given and there are two dimensions."""
    matrix = ord is not None and (x.dim() if dim is None else len(each_of(dim, 1))) == 2
    if matrix or isinstance(ord, str):
        return linalg.matrix_norm(x, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return linalg.vector_norm(x, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@composite(targets=(linalg.matrix_norm,))
def matrix_norm(x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The Frobenius norm, or the largest (-1, -inf: smallest) sum of magnitudes of a column (1) or a row (inf)."""
    rows, columns = (d % x.dim() for d in dim)
    if ord == "fro":
        return linalg.vector_norm(x, 2, (rows, columns), keepdim, dtype=dtype)
    if isinstance(ord, str) or abs(ord) not in (1, math.inf):
        raise TraceError(f"the matrix norm ord={ord!r} needs singular values, which are not in the table")
    if abs(ord) != 1:
        rows, columns = columns, rows
    sums = linalg.vector_norm(x, 1, rows, True, dtype=dtype)
    found = sums.amax(columns, True) if ord > 0 else sums.amin(columns, True)
    if keepdim:
        return found
    return found.reshape([n for d, n in enumerate(x.shape) if d not in (rows, columns)])


@composite("dist")
def dist(x: Any, y: Any, p: Any = 2) -> Any:
    return linalg.vector_norm(x - y, p)


@composite("cdist")
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """The distance of every row of one from every row of the other."""
    return lengths(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


@composite("pdist")
def pdist(x: Any, p: float = 2.0) -> Any:
    """The distance of every row from every later one."""
    first, second = torch.triu_indices(x.shape[0], x.shape[0], 1)
    return lengths(x[first] - x[second], p)


def lengths(d: Any, p: float) -> Any:
    """Norms of differences. Where several coordinates are the largest, torch passes all of a gradient to each, not its share."""
    if p != math.inf:
        return linalg.vector_norm(d, p, -1)
    found = d.detach().abs().amax(-1)
    tied = (d.abs() == found.unsqueeze(-1)) & found.isfinite().unsqueeze(-1)
    return found + torch.where(tied, d.abs() - found.unsqueeze(-1), 0).sum(-1)


@composite(targets=(F.normalize,))
def normalize(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """`x` over its norm along `dim`, or over `eps` where that is larger."""
    return x / linalg.vector_norm(x, p, dim, keepdim=True).clamp_min(eps)


@composite("renorm")
def renorm(x: Any, p: float, dim: int, maxnorm: float) -> Any:
    """Slices along a dimension, each whose norm is larger than `maxnorm` scaled down to it."""
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    size = linalg.vector_norm(x, p, others, keepdim=True)
    return x * torch.where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)


@composite("pairwise_distance")
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


@composite("cosine_similarity")
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The product of both vectors over their norms, of which each is at least `eps`."""
    x1, x2 = cast("Any", torch).broadcast_tensors(x1, x2)
    one, other = (linalg.vector_norm(x, 2, dim, keepdim=True).clamp_min(eps) for x in (x1, x2))
    return ((x1 / one) * (x2 / other)).sum(dim)


@composite("_weight_norm")
def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
    """Lengths `g` along all dimensions but one, of the directions `v`: `torch.nn.utils.parametrizations.weight_norm`."""
    others = None if dim == -1 else [d for d in range(v.dim()) if d != dim % v.dim()]
    return v * (g / linalg.vector_norm(v, 2, others, keepdim=True))
