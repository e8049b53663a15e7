"""Random tensors: drawn once by every call, in torch's order, and constants of the algebra."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import TraceError
from engine.ops.factories import sized, wanted
from engine.sizes import expression
from engine.table import Opaque, Operand, Row, composite, op, recorded_as

Tensor = torch.Tensor


@op("rand_like", "randn_like", "randint_like", "bernoulli")
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


@op("rand", "randn", kind="factory")
def drawn(*size: Any, **_: Any) -> Opaque:
    return Opaque(sized(size))


@op("empty", kind="factory")
def empty(*size: Any, **_: Any) -> Opaque:
    """Not drawn: no number of it is read before it is written."""
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


def drawn_around(mean: Any, std: Any, size: Any, **_: Any) -> Opaque:
    return Opaque(sized(tuple(size)))


AROUND_A_NUMBER = Row("normal", (), drawn_around, kind="factory")


@composite("normal")
def normal(mean: Any, std: Any = 1.0, size: Any = None, **given: Any) -> Any:
    """Numbers around a mean, through which torch takes no derivative; drawn and rounded in torch's own order."""
    mean, std = (v.detach() if isinstance(v, torch.Tensor) and v.requires_grad else v for v in (mean, std))
    tensors = [v for v in (mean, std) if isinstance(v, torch.Tensor)]
    if not tensors:
        with recorded_as(AROUND_A_NUMBER):
            return torch.normal(mean, std, size, **given)
    like: Any = sum(tensors)
    noise = torch.empty(like.shape, dtype=like.dtype)
    if isinstance(std, torch.Tensor):
        return noise.normal_() * std + mean
    return noise.normal_(0.0, std) + mean


@op("empty_like", kind="like")
def empty_like(x: Operand, **_: Any) -> Opaque:
    return Opaque(x.shape)


@op("new_empty", kind="like")
def new_empty(x: Operand, *args: Any, size: Any = None, **_: Any) -> Opaque:
    return Opaque(wanted(args, size))


@composite("new")
def new(x: Any, *size: Any) -> Any:
    """An old spelling of `new_empty`, which of a list makes a tensor."""
    if any(isinstance(s, (list, torch.Tensor)) for s in size):
        raise TraceError("x.new(values) copies values; use x.new_tensor(values)")
    return x.new_empty(*size)
