"""How far two tensors are apart, and whether that is within torch's tolerances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCES = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
}
"""torch's default (relative, absolute) tolerances; the absolute one is in units of the largest entry where that is below 1."""


@dataclass(frozen=True, eq=False)
class Difference:
    """What is between `ours` and `theirs`, entry by entry and at worst.

    Attributes:
        exact: bit for bit the same (a nan equals a nan).
        allclose: within torch's default tolerances of the dtype.
        absolute: the largest difference.
        relative: the largest difference over the largest entry of `theirs`.
        elementwise: the largest of |(theirs - ours) / theirs|.
        excess: differences in units of what the tolerances allow, infinite where only one side is finite.
    """

    exact: bool
    allclose: bool
    absolute: float
    relative: float
    elementwise: float
    excess: Tensor


def difference(ours: Tensor, theirs: Tensor, defined: Tensor | None = None) -> Difference:
    """Compare two tensors of one shape.

    Entries that are not `defined` agree, as do those where both sides are infinite or nan and one is nan.
    """
    a, b = ours.detach().double(), theirs.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    undefined = ~a.isfinite() & ~b.isfinite() & (a.isnan() | b.isnan())
    if defined is not None:
        undefined |= ~defined
    gap = torch.where(same | undefined, 0.0, (a - b).abs())
    gap = torch.where(gap.isnan(), torch.inf, gap)
    scale = largest(b)
    rtol, atol = TOLERANCES.get(theirs.dtype, (0.0, 0.0))
    allowed = rtol * b.abs() + atol * min(1.0, scale)
    excess = torch.where(gap == 0, 0.0, torch.where(gap.isinf(), torch.inf, gap / allowed))
    ratio = torch.where(gap == 0, 0.0, gap / b.abs())
    worst = largest_of(gap)
    return Difference(
        exact=ours.dtype == theirs.dtype and bool(same.all()),
        allclose=not bool((excess > 1).any()),
        absolute=worst,
        relative=0.0 if worst == 0 else worst / scale if scale else float("inf"),
        elementwise=largest_of(torch.where(ratio.isnan(), torch.inf, ratio)),
        excess=excess,
    )


def largest(t: Tensor) -> float:
    """The largest magnitude among the finite entries, 0 if there is none."""
    finite = t[t.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def largest_of(t: Tensor) -> float:
    """The largest entry of a tensor of magnitudes, 0 for an empty one."""
    return float(t.max()) if t.numel() else 0.0
