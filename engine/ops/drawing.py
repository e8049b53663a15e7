"""Random tensors: drawn once by every call, in torch's order, and constants of the algebra."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import TraceError
from engine.ops.factories import sized, wanted
from engine.sizes import expression
from engine.table import Opaque, Operand, composite, op

Tensor = torch.Tensor


@op("rand_like", "randn_like", "randint_like", "bernoulli", "empty_like")
def drawn_like(x: Operand, *_: Any, **__: Any) -> Opaque:
    return Opaque(x.shape)


@op(
    targets=(
        Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_, Tensor.random_, Tensor.cauchy_,
        Tensor.geometric_, Tensor.log_normal_,
    )
)  # fmt: skip
def filled(x: Operand, *_: Any, **__: Any) -> Opaque:
    """A tensor that the forward made, filled with random numbers."""
    return Opaque(x.shape)


@op("rand", "randn", "empty", kind="factory")
def drawn(*size: Any, **_: Any) -> Opaque:
    return Opaque(sized(size))


@op("randint", kind="factory")
def drawn_integers(*args: Any, size: Any = None, **_: Any) -> Opaque:
    return Opaque(sized(tuple(args[-1] if size is None else size)))


@op("randperm", kind="factory")
def permutation(n: Any, **_: Any) -> Opaque:
    return Opaque((expression(n),))


@op("multinomial")
def chosen_places(x: Operand, num_samples: Any, replacement: bool = False) -> Opaque:
    return Opaque((*x.shape[:-1], expression(num_samples)))


@op("poisson")
def counts(x: Operand) -> Opaque:
    return Opaque(x.shape)


@composite("normal")
def normal(mean: Any, std: Any = 1.0, size: Any = None, *, dtype: Any = None) -> Any:
    """Numbers around a mean, through which torch takes no derivative."""
    mean, std = (v.detach() if isinstance(v, torch.Tensor) and v.requires_grad else v for v in (mean, std))
    tensors = [v for v in (mean, std) if isinstance(v, torch.Tensor)]
    like: Any = sum(tensors) if tensors else None
    noise = torch.randn(size if like is None else like.shape, dtype=dtype if like is None else like.dtype)
    return noise * std + mean


@op("new_empty", kind="like")
def new_empty(x: Operand, *args: Any, size: Any = None, **_: Any) -> Opaque:
    return Opaque(wanted(args, size))


@composite("new")
def new(x: Any, *size: Any) -> Any:
    """An old spelling of `new_empty`, which of a list makes a tensor."""
    if any(isinstance(s, (list, torch.Tensor)) for s in size):
        raise TraceError("x.new(values) copies values; use x.new_tensor(values)")
    return x.new_empty(*size)
