"""Losses in torch.nn.functional's spelling."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr

from engine.errors import TraceError
from engine.notation import instantiate, sigma
from engine.table import Definition, Operand, aligned, broadcast_shape, define, equal, indices_of, op, product


def reduce_loss(shape: Any, at: Any, body: Any, reduction: str) -> Definition:
    """A loss per element, its sum, or its mean."""
    if reduction == "none":
        return define(shape, at, body)
    limits = [(i, s) for i, s in zip(at, shape, strict=True) if s != 1]
    total = sigma(cast("Expr", sp.sympify(body)), *limits)
    if reduction == "sum":
        return define((), (), total)
    if reduction == "mean":
        return define((), (), total / product(shape))
    raise TraceError(f"reduction={reduction!r} is none of 'none', 'mean', 'sum'")


@op("mse_loss")
def mse_loss(x: Operand, y: Operand, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Definition:
    shape = broadcast_shape(x.shape, y.shape)
    at = indices_of(shape)
    return reduce_loss(shape, at, (aligned(x, at) - aligned(y, at)) ** 2, reduction)


def _classes(x: Operand, y: Operand) -> tuple[Any, Any, list[Expr]]:
    """Shape and indices of the targets, and of the logits where the class index goes at dimension 1 (0 when unbatched)."""
    c = 1 if x.rank > 1 else 0
    rest = [s for d, s in enumerate(x.shape) if d != c]
    shape = [equal(s, t) for s, t in zip(rest, y.shape, strict=True)]
    return shape, indices_of(shape), [*rest[:0]]


@op("nll_loss")
def nll_loss(
    x: Operand, y: Operand, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None, reduction: str = "mean"
) -> Definition:
    if weight is not None:
        raise TraceError("nll_loss with class weights is not in the table yet; multiply by weight[target] yourself")
    shape, at, _ = _classes(x, y)
    c = 1 if x.rank > 1 else 0
    return reduce_loss(shape, at, -x.element(*at[:c], y.element(*at), *at[c:]), reduction)


@op("cross_entropy")
def cross_entropy(
    x: Operand,
    y: Operand,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Definition:
    if weight is not None or label_smoothing:
        raise TraceError("cross_entropy with weights or label smoothing is not in the table yet; write it with log_softmax")
    shape, at, _ = _classes(x, y)
    c = 1 if x.rank > 1 else 0
    (k,) = indices_of((x.shape[c],))
    everything = sigma(cast("Expr", sp.exp(x.element(*at[:c], k, *at[c:]))), *([(k, x.shape[c])] if x.shape[c] != 1 else []))
    body = sp.log(instantiate(everything, {})) - x.element(*at[:c], y.element(*at), *at[c:])
    return reduce_loss(shape, at, body, reduction)
