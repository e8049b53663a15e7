"""Layers of torch.nn whose own forward reads a tensor's value, with a forward that does not."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import transformer

if TYPE_CHECKING:
    from collections.abc import Generator


def cumulative(layer: Any, x: Any) -> Any:
    """BatchNorm of momentum None: its running statistics are the plain means of those of all batches so far.

    torch makes a Python number of the count of batches; here it stays a tensor.
    """
    layer.num_batches_tracked.add_(1)
    share = layer.running_mean.new_ones(()) / layer.num_batches_tracked
    return nn.functional.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, True, share, layer.eps
    )


def _counts(layer: nn.Module) -> bool:
    """Whether a layer's forward takes the number of batches that it has seen."""
    known = isinstance(layer, LAYERS) and type(layer).forward is nn.BatchNorm1d.forward
    return known and layer.training and layer.momentum is None and isinstance(layer.num_batches_tracked, torch.Tensor)


LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def said_causal(_mask: Any, is_causal: bool | None = None, _size: int | None = None) -> bool:
    """What the caller says of a mask. torch's transformers look into the mask itself, to choose a kernel by it."""
    return bool(is_causal)


@contextlib.contextmanager
def traceable(module: nn.Module) -> Generator[None]:
    """While it lasts, such layers of a module have a forward that can be traced, and attention is computed as in training."""
    changed = [m for m in module.modules() if "forward" not in vars(m) and _counts(m)]
    for m in changed:
        vars(m)["forward"] = functools.partial(cumulative, m)
    looks, fast = vars(transformer)["_detect_is_causal_mask"], torch.backends.mha.get_fastpath_enabled()
    setattr(transformer, "_detect_is_causal_mask", said_causal)  # noqa: B010
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        setattr(transformer, "_detect_is_causal_mask", looks)  # noqa: B010
        for m in changed:
            del vars(m)["forward"]
