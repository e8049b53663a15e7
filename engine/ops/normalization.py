"""Normalizations in torch.nn.functional's spelling."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.notation import Index, instantiate, sigma
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    Row,
    aligned,
    at_least,
    broadcast_shape,
    composite,
    define,
    indices_of,
    op,
    product,
    recorded_as,
)

F = torch.nn.functional


def standardized(x: Operand, at: tuple[Expr, ...], dims: Any, eps: Any) -> Expr:
    """An element less its mean over some dimensions, over the root of their variance plus `eps`."""
    limits: list[tuple[Index, Expr]] = [(cast("Index", at[d]), x.shape[d]) for d in dims if x.shape[d] != 1]
    count = product([s for _, s in limits])
    mean = instantiate(sigma(x.element(*at), *limits), {}) / count
    variance = instantiate(sigma((x.element(*at) - mean) ** 2, *limits), {}) / count
    return (x.element(*at) - mean) / sp.sqrt(variance + expression(eps))


def affine(e: Any, weight: Expr | None, bias: Expr | None) -> Any:
    """`e * weight + bias`, where there are any."""
    e = e if weight is None else e * weight
    return e if bias is None else e + bias


def normalized_over(x: Operand, *parameters: Any) -> tuple[Expr, ...]:
    """The shape of `x`, whose last sizes are those of the parameters."""
    return broadcast_shape(x.shape, *[p.shape for p in parameters if p is not None])


@op("layer_norm")
def layer_norm(
    x: Operand,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Definition:
    shape = normalized_over(x, weight, bias)
    at = indices_of(shape)
    dims = range(x.rank - len(tuple(normalized_shape)), x.rank)
    scale, shift = (None if t is None else aligned(t, at) for t in (weight, bias))
    return define(shape, at, affine(standardized(x, at, dims, eps), scale, shift))


@op("rms_norm")
def rms_norm(x: Operand, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Definition:
    """`x` over the root of its mean square; `eps` is by default that of the dtype."""
    shape = normalized_over(x, weight)
    at = indices_of(shape)
    dims = range(x.rank - len(tuple(normalized_shape)), x.rank)
    limits = [(cast("Index", at[d]), x.shape[d]) for d in dims if x.shape[d] != 1]
    square = instantiate(sigma(x.element(*at) ** 2, *limits), {}) / product([s for _, s in limits])
    out = x.element(*at) / sp.sqrt(square + expression(torch.finfo(x.dtype).eps if eps is None else eps))
    return define(shape, at, affine(out, None if weight is None else aligned(weight, at), None))


def batch_normalized(
    x: Operand,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Definition:
    """Per channel (dimension 1): with the batch's own mean and variance, or with given ones."""
    at = indices_of(x.shape)
    c = at[1] if x.rank > 1 else at[0]
    if training or mean is None:
        dims = [d for d in range(x.rank) if d != 1]
        at_least(product([x.shape[d] for d in dims]), sp.Integer(2))
        out = standardized(x, at, dims, eps)
    else:
        out = (x.element(*at) - mean.element(c)) / sp.sqrt(var.element(c) + expression(eps))
    scale, shift = (None if t is None else t.element(c) for t in (weight, bias))
    return define(x.shape, at, affine(out, scale, shift))


BATCH_NORM = Row("batch_norm", (), batch_normalized)


@composite(targets=(F.batch_norm,))
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """In training the running statistics take a step towards the batch's, which are outputs of the graph then."""
    if not training:
        with recorded_as(BATCH_NORM):
            return F.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    dims = [d for d in range(x.dim()) if d != 1]
    with torch.no_grad():
        for running, new in ((running_mean, lambda: x.mean(dims)), (running_var, lambda: x.var(dims))):
            if running is not None:
                step(running, momentum, new())
    with recorded_as(BATCH_NORM):
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def step(running: Any, momentum: float, new: Any) -> None:
    """A running statistic moved towards a new value, in place: its last value is an output of the graph."""
    if hasattr(running, "record"):
        running.record.is_buffer = True
    running.mul_(1 - momentum).add_(momentum * new)


@composite(targets=(F.instance_norm,))
def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Each channel of each example by its own mean and variance."""
    if not use_input_stats:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        dims = list(range(2, x.dim()))
        with torch.no_grad():
            step(running_mean, momentum, x.mean(dims).mean(0))
            step(running_var, momentum, x.var(dims).mean(0))
    with recorded_as(INSTANCE_NORM):
        return F.instance_norm(x, None, None, weight, bias, eps=eps)


def instance_normalized(
    x: Operand,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Definition:
    at = indices_of(x.shape)
    scale, shift = (None if t is None else t.element(at[1]) for t in (weight, bias))
    at_least(product(x.shape[2:]), sp.Integer(2))
    return define(x.shape, at, affine(standardized(x, at, range(2, x.rank), eps), scale, shift))


INSTANCE_NORM = Row("instance_norm", (), instance_normalized)


@composite("group_norm")
def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """Each group of channels of each example by its own mean and variance."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    out = F.layer_norm(grouped, (grouped.shape[-1],), eps=eps).view_as(x)
    shape = (1, -1, *[1] * (x.dim() - 2))
    out = out if weight is None else out * weight.view(shape)
    return out if bias is None else out + bias.view(shape)


@composite(targets=(F.local_response_norm,))
def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """`x` over a power of the mean square of its neighbouring channels."""
    square = x * x
    padded = F.pad(square.flatten(2) if x.dim() > 2 else square.unsqueeze(-1), (0, 0, size // 2, (size - 1) // 2))
    channels = x.shape[1]
    total: Any = sum(padded.narrow(1, j, channels) for j in range(size))
    return x / (total / size * alpha + k).pow(beta).view_as(x)


@composite("native_layer_norm")
def native_layer_norm(x: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """The layer norm, and the mean and the reciprocal deviation that it is made with."""
    dims = list(range(x.dim() - len(tuple(normalized_shape)), x.dim()))
    mean = x.mean(dims, keepdim=True)
    deviation = (x.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    return F.layer_norm(x, normalized_shape, weight, bias, eps), mean, deviation
