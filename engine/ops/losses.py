"""Losses between a prediction and a target of the same shape, in torch.nn.functional's spelling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Less, LessEqual, Where, sigma
from engine.ops.choice import magnitude
from engine.sizes import exact, expression
from engine.table import Definition, Operand, aligned, broadcast_shape, composite, define, indices_of, op, product

if TYPE_CHECKING:
    from collections.abc import Callable

F = torch.nn.functional


def reduce_loss(shape: Any, at: Any, body: Any, reduction: str) -> Definition:
    """A loss per element, its sum, or its mean ("batchmean" divides by the first dimension only)."""
    if reduction == "none":
        return define(shape, at, body)
    limits = [(i, s) for i, s in zip(at, shape, strict=True) if s != 1]
    total = sigma(sp.sympify(body), *limits)
    counts = {"sum": sp.S.One, "mean": product(shape), "batchmean": shape[0] if shape else sp.S.One}
    if reduction not in counts:
        raise TraceError(f"reduction={reduction!r} is none of 'none', 'mean', 'sum'")
    return define((), (), total / counts[reduction])


def reduction_of(size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction that torch's older flags `size_average` and `reduce` name."""
    if size_average is None and reduce is None:
        return reduction
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def paired(
    x: Operand, y: Operand, function: Callable[[Any, Any], Any], reduction: str, weight: Any = None
) -> Definition:
    """A loss of each pair of elements, weighted and reduced."""
    shape = broadcast_shape(x.shape, y.shape, *([weight.shape] if isinstance(weight, Operand) else []))
    at = indices_of(shape)
    body = function(aligned(x, at), aligned(y, at))
    return reduce_loss(shape, at, body if weight is None else aligned(weight, at) * body, reduction)


@op(targets=(F.mse_loss,))
def mse_loss(
    x: Operand, y: Operand, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Definition:
    return paired(x, y, lambda a, b: (a - b) ** 2, reduction_of(size_average, reduce, reduction), weight)


@op(targets=(F.l1_loss,))
def l1_loss(
    x: Operand, y: Operand, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Definition:
    return paired(x, y, lambda a, b: magnitude(a - b), reduction_of(size_average, reduce, reduction), weight)


@op(targets=(F.smooth_l1_loss,))
def smooth_l1_loss(
    x: Operand, y: Operand, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0
) -> Definition:
    """Quadratic where the difference is below beta."""
    b = expression(beta)

    def loss(p: Expr, q: Expr) -> Any:
        d = magnitude(p - q)
        return d if b == 0 else Where(Less(d, b), d**2 / (2 * b), d - b / 2)

    return paired(x, y, loss, reduction_of(size_average, reduce, reduction))


@op(targets=(F.huber_loss,))
def huber_loss(x: Operand, y: Operand, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Definition:
    """Quadratic where the difference is at most delta."""
    d = expression(delta)

    def loss(p: Expr, q: Expr) -> Any:
        z = magnitude(p - q)
        return Where(LessEqual(z, d), z**2 / 2, d * (z - d / 2))

    return paired(x, y, loss, reduction, weight)


def bounded_log(e: Expr) -> Any:
    """log(e), but at least -100."""
    return Where(Less(sp.log(e), -100), -100, sp.log(e))


@op(targets=(F.binary_cross_entropy,))
def binary_cross_entropy(
    x: Operand, y: Operand, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Definition:
    def loss(p: Expr, t: Expr) -> Any:
        return -t * bounded_log(p) - (1 - t) * bounded_log(1 - p)

    return paired(x, y, loss, reduction_of(size_average, reduce, reduction), weight)


@op(targets=(F.binary_cross_entropy_with_logits,))
def binary_cross_entropy_with_logits(
    x: Operand,
    y: Operand,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Definition:
    shape = broadcast_shape(x.shape, y.shape, *[w.shape for w in (weight, pos_weight) if w is not None])
    at = indices_of(shape)
    a, t = aligned(x, at), aligned(y, at)
    scale = sp.S.One if pos_weight is None else 1 + (aligned(pos_weight, at) - 1) * t
    body: Any = (1 - t) * a + scale * sp.log(1 + sp.exp(-a))
    if weight is not None:
        body = aligned(weight, at) * body
    return reduce_loss(shape, at, body, reduction_of(size_average, reduce, reduction))


@op(targets=(F.kl_div,))
def kl_div(
    x: Operand,
    y: Operand,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Definition:
    def loss(a: Expr, t: Expr) -> Any:
        if log_target:
            return sp.exp(t) * (t - a)
        return Where(Equal(t, 0), 0, t * sp.log(t)) - t * a

    return paired(x, y, loss, reduction_of(size_average, reduce, reduction))


@op(targets=(F.poisson_nll_loss,))
def poisson_nll_loss(
    x: Operand,
    y: Operand,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Definition:
    def loss(a: Expr, t: Expr) -> Any:
        body: Any = sp.exp(a) - t * a if log_input else a - t * sp.log(a + exact(eps))
        stirling = t * sp.log(t) - t + sp.log(2 * sp.pi * t) / 2
        return body + Where(LessEqual(t, 1), 0, stirling) if full else body

    return paired(x, y, loss, reduction_of(size_average, reduce, reduction))


@composite(targets=(F.gaussian_nll_loss,))
def gaussian_nll_loss(
    x: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """A variance below `eps` counts as `eps`, of which torch does not tell the derivative."""
    if isinstance(var, (int, float)):
        var = torch.full_like(x, var)
    if var.dim() == x.dim() - 1 and var.shape != x.shape:
        var = var.unsqueeze(-1)
    var = var + (var.clamp_min(eps) - var).detach()
    loss = 0.5 * (var.log() + (x - target) ** 2 / var)
    return reduced_tensor(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@op(targets=(F.soft_margin_loss,))
def soft_margin_loss(
    x: Operand, y: Operand, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Definition:
    return paired(x, y, lambda a, t: sp.log(1 + sp.exp(-t * a)), reduction_of(size_average, reduce, reduction))


@op(targets=(F.hinge_embedding_loss,))
def hinge_embedding_loss(
    x: Operand, y: Operand, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Definition:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    m = expression(margin)

    def loss(a: Expr, t: Expr) -> Any:
        far = Where(LessEqual(0, m - a), m - a, 0)
        return Where(Equal(t, 1), 0, far) + Where(Equal(t, -1), 0, a)

    return paired(x, y, loss, reduction_of(size_average, reduce, reduction))


@composite(targets=(F.margin_ranking_loss,))
def margin_ranking_loss(
    x1: Any,
    x2: Any,
    target: Any,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    return reduced_tensor((-target * (x1 - x2) + margin).clamp_min(0), reduction_of(size_average, reduce, reduction))


def reduced_tensor(loss: Any, reduction: str) -> Any:
    """In a composite: a loss as it is, its sum, or its mean."""
    return {"none": lambda: loss, "sum": loss.sum, "mean": loss.mean}[reduction]()


@composite(targets=(F.cosine_embedding_loss,))
def cosine_embedding_loss(
    x1: Any,
    x2: Any,
    target: Any,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1."""
    dim, eps = target.dim(), 1e-12
    squares = ((x1 * x1).sum(dim) + eps) * ((x2 * x2).sum(dim) + eps)
    cos = (x1 * x2).sum(dim) / squares.sqrt()
    loss = torch.where(target == 1, 1 - cos, 0) + torch.where(target == -1, (cos - margin).clamp_min(0), 0)
    return reduced_tensor(loss, reduction_of(size_average, reduce, reduction))


@composite(targets=(F.triplet_margin_loss,))
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    near, far = F.pairwise_distance(anchor, positive, p, eps), F.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = torch.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return reduced_tensor((margin + near - far).clamp_min(0), reduction_of(size_average, reduce, reduction))


@composite(targets=(F.triplet_margin_with_distance_loss,))
def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Any = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """The triplet loss for a distance of the user's own."""
    distance = F.pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = torch.minimum(far, distance(positive, negative))
    return reduced_tensor((margin + near - far).clamp_min(0), reduction)


@composite(targets=(F.multilabel_soft_margin_loss,))
def multilabel_soft_margin_loss(
    x: Any, y: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    loss = -(y * F.logsigmoid(x) + (1 - y) * F.logsigmoid(-x))
    if weight is not None:
        loss = loss * weight
    return reduced_tensor(loss.sum(-1) / x.shape[-1], reduction_of(size_average, reduce, reduction))


@composite(targets=(F.multilabel_margin_loss,))
def multilabel_margin_loss(
    x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    """Sum over the labels y (up to the first -1) and over what is no label of max(0, 1 - x[y] + x[c]), over the classes."""
    if x.dim() < 2:
        rows = x.reshape(1, -1), target.reshape(1, -1)
        return multilabel_margin_loss(*rows, size_average, reduce, reduction).reshape(())
    counts = (target >= 0).cumprod(1)
    labels = target.clamp(min=0)
    classes = torch.arange(x.shape[1])
    others = 1 - ((labels[:, :, None] == classes) * counts[:, :, None]).amax(1)
    margins = (1 - x.gather(1, labels)[:, :, None] + x[:, None, :]).relu()
    each = (margins * (counts[:, :, None] * others[:, None, :])).sum((1, 2)) / x.shape[1]
    how = reduction_of(size_average, reduce, reduction)
    return each if how == "none" else getattr(each, how)()
