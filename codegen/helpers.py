# pyright: basic
"""Functions that emitted files bring along: torch's kernels by a name that says what they are, and written out where one that has no
second derivative may need it.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


def followed(*tensors: torch.Tensor) -> bool:
    """Whether what is computed of tensors may be differentiated: backward, forward, or by a compiler."""
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return torch.is_grad_enabled() and (
        torch.compiler.is_compiling() or forward_mode or any(t.requires_grad for t in tensors)
    )


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of every row of x from every row of y. torch's kernel has no second derivative: where there may be one, it is written out."""
    if followed(x, y) or x.dtype not in (torch.float32, torch.float64):
        return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    roots = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return (roots**2).to(x.dtype)  # in float32 the root and the square would each be rounded


def silu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`grad` times the slope of silu at x. torch's kernel has no second derivative: where there may be one, it is written out."""
    if not followed(grad, x):
        return torch.ops.aten.silu_backward(grad, x)
    s = x.sigmoid()
    return grad * s * (1 + x * (1 - s))


def mish_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`grad` times the slope of mish at x. torch's kernel has no second derivative: where there may be one, it is written out."""
    if not followed(grad, x):
        return torch.ops.aten.mish_backward(grad, x)
    t = torch.nn.functional.softplus(x).tanh()
    return grad * (t + x * (1 - t * t) * x.sigmoid())


def softmax_backward(grad: torch.Tensor, p: torch.Tensor, dim: int) -> torch.Tensor:
    """What a softmax p passes back: `p * (grad - (grad * p).sum(dim, keepdim=True))`, by torch's kernel for it."""
    return torch.ops.aten._softmax_backward_data(grad, p, dim, p.dtype)


def logcumsumexp_backward(grad: torch.Tensor, x: torch.Tensor, out: torch.Tensor, dim: int) -> torch.Tensor:
    """What `out = x.logcumsumexp(dim)` passes back: the sum of `grad * (x - out).exp()` over all that come no earlier than an x.

    By logarithms, so that nothing overflows: what is positive and what is negative is summed apart. A logarithm of 0 has no derivative:
    where there may be one, all of it is written out.
    """
    if followed(grad, x, out):
        grad, x, out = (t.movedim(dim, -1) for t in (grad, x, out))
        later = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).triu()
        known = later & ((out > -torch.inf) | (grad != 0)).unsqueeze(-2)
        shares = torch.where(known, torch.where(known, x.unsqueeze(-1) - out.unsqueeze(-2), 0).exp(), 0)
        return (shares @ grad.unsqueeze(-1)).squeeze(-1).movedim(-1, dim)
    logs = grad.abs().log() - out
    parts = (
        torch.where(taken, logs, -torch.inf).flip(dim).logcumsumexp(dim).flip(dim) for taken in (grad > 0, grad < 0)
    )
    one, other = ((part + x).exp() for part in parts)
    return one - other


FUNCTIONS = {
    f.__name__: f for f in (squared_distances, silu_backward, mish_backward, softmax_backward, logcumsumexp_backward)
}
"""What statements may call by its name alone."""


def source(lines: Iterable[str]) -> list[str]:
    """The lines of the functions that statements call, as their file has them; [] where they call none."""
    texts = list(lines)
    used = [f for name, f in FUNCTIONS.items() if any(re.search(rf"(?<![\w.]){name}\(", t) for t in texts)]
    asking = any("followed(" in source_of(f) for f in used)
    parts = [source_of(f).splitlines() for f in ((followed, *used) if asking else used)]
    return [line for k, part in enumerate(parts) for line in ([*["", ""][: 2 * (k > 0)], *part])]


def source_of(function: Any) -> str:
    """A function's text without annotations."""
    text = inspect.getsource(function)
    return (
        text.replace("  # noqa: SLF001", "")
        .replace(": torch.Tensor", "")
        .replace(" -> torch.Tensor", "")
        .replace(": int", "")
        .replace(" -> bool", "")
    )


__all__ = ["FUNCTIONS", "source"]
