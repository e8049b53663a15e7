"""Order statistics and covariances, in terms of sorting and sums."""

from __future__ import annotations

import math
from typing import Any

import torch

from engine.errors import TraceError
from engine.table import composite

ROUNDINGS = {"lower": math.floor, "higher": math.ceil, "nearest": round}


@composite("quantile")
def quantile(x: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
    """Between the two sorted entries around place q (n - 1); n is fixed."""
    if not isinstance(q, (int, float)):
        raise TraceError("quantile at a tensor of probabilities; pass them one by one, as Python numbers")
    whole, rank = dim is None, x.dim()
    if whole:
        x, dim = x.reshape(-1), 0
    if x.dim() == 0:
        return x
    place = q * (int(x.shape[dim]) - 1)
    ordered = x.sort(dim).values
    if interpolation in ROUNDINGS:
        found = ordered.select(dim, int(ROUNDINGS[interpolation](place)))
    elif interpolation in ("linear", "midpoint"):
        low, high = ordered.select(dim, math.floor(place)), ordered.select(dim, math.ceil(place))
        found = low.lerp(high, place - math.floor(place) if interpolation == "linear" else 0.5)
    else:
        raise TraceError(
            f"quantile with interpolation={interpolation!r} is none of linear, lower, higher, nearest, midpoint"
        )
    if not keepdim:
        return found
    return found.reshape([1] * rank) if whole else found.unsqueeze(dim)


@composite("cov")
def cov(x: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariances of the rows of a matrix."""
    if fweights is not None or aweights is not None:
        raise TraceError(
            "cov with weights is not in the table; weight the columns and divide by the sum of the weights"
        )
    rows = x.reshape(1, -1) if x.dim() < 2 else x
    single = x.dim() < 2 or x.shape[0] == 1
    centred = rows - rows.mean(1, keepdim=True)
    out = centred @ centred.mT / (rows.shape[1] - correction)
    return out.reshape(()) if single else out


@composite("corrcoef")
def corrcoef(x: Any) -> Any:
    """Covariances over the product of both standard deviations, within -1 and 1."""
    c = torch.cov(x)
    if c.dim() < 2:
        return c / c
    deviation = c.diagonal().sqrt()
    return (c / deviation[:, None] / deviation[None, :]).clamp(-1, 1)
