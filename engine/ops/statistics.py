"""Order statistics and covariances, in terms of sorting and sums."""

from __future__ import annotations

import math
from typing import Any

import torch

from engine.errors import TraceError
from engine.table import composite

ROUNDINGS = {"lower": "floor", "higher": "ceil", "nearest": "round"}
BETWEEN = ("linear", "midpoint")


def between(ordered: Any, places: Any, interpolation: str) -> Any:
    """Sorted entries (in the last dimension) around places, which differ from row to row."""
    if interpolation in ROUNDINGS:
        return ordered.gather(-1, getattr(places.clamp(min=0), ROUNDINGS[interpolation])().long())
    below = places.clamp(min=0).floor()
    share = places - below if interpolation == "linear" else torch.full_like(places, 0.5)
    low, high = ordered.gather(-1, below.long()), ordered.gather(-1, places.clamp(min=0).ceil().long())
    return low.lerp(high, share)


def quantiles(x: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, skips: bool) -> Any:
    """Between the two sorted entries around place q (n - 1), where n counts all entries, or (`skips`) those that are no nan."""
    if interpolation not in (*ROUNDINGS, *BETWEEN):
        known = ", ".join((*BETWEEN, *ROUNDINGS))
        raise TraceError(f"quantile with interpolation={interpolation!r} is none of {known}")
    number = isinstance(q, (int, float))
    several = not number and q.dim() > 0
    whole, rank = dim is None, x.dim()
    if whole:
        x, dim = x.reshape(-1), 0
    d = dim % max(x.dim(), 1)
    x = x.reshape(1) if x.dim() == 0 else x
    n = int(x.shape[d])
    ordered = x.sort(d).values.movedim(d, -1)
    if number and not skips:
        place = q * (n - 1)
        low = ordered[..., math.floor(place)]
        if interpolation in ROUNDINGS:
            rounded = {"lower": math.floor, "higher": math.ceil, "nearest": round}[interpolation](place)
            found = ordered[..., int(rounded)].unsqueeze(-1)
        else:
            share = place - math.floor(place) if interpolation == "linear" else 0.5
            found = low.lerp(ordered[..., math.ceil(place)], share).unsqueeze(-1)
    else:
        counts = (~x.isnan()).sum(d).unsqueeze(-1) if skips else torch.full_like(ordered[..., :1], n)
        places = (q if number else q.reshape(-1)) * (counts.to(x.dtype) - 1)
        found = between(ordered, places, interpolation)
    found = found.movedim(-1, 0)
    if keepdim:
        found = found.reshape([found.shape[0], *[1] * rank]) if whole else found.unsqueeze(1 + d) if rank else found
    return found if several else found[0] if number else found.reshape(found.shape[1:])


@composite("quantile")
def quantile(x: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
    return quantiles(x, q, dim, keepdim, interpolation, skips=False)


@composite("nanquantile")
def nanquantile(x: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
    return quantiles(x, q, dim, keepdim, interpolation, skips=True)


@composite("cov")
def cov(x: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariances of the rows of a matrix; columns may count several times (`fweights`) or as a part (`aweights`)."""
    rows = x.reshape(1, -1) if x.dim() < 2 else x
    single = x.dim() < 2 or x.shape[0] == 1
    if fweights is None and aweights is None:
        centred = rows - rows.mean(1, keepdim=True)
        out = centred @ centred.mT / (rows.shape[1] - correction)
        return out.reshape(()) if single else out
    weight: Any = fweights if aweights is None else aweights if fweights is None else fweights * aweights
    weight = weight.reshape(-1)
    total = weight.sum()
    centred = rows - ((rows * weight).sum(1) / total).unsqueeze(1)
    count = total if aweights is None or correction == 0 else total - correction * (weight * aweights).sum() / total
    count = total - correction if aweights is None else count
    out = (centred * weight) @ centred.mT / count.clamp(min=0)
    return out.reshape(()) if single else out


@composite("corrcoef")
def corrcoef(x: Any) -> Any:
    """Covariances over the product of both standard deviations, within -1 and 1."""
    c = torch.cov(x)
    if c.dim() < 2:
        return c / c
    deviation = c.diagonal().sqrt()
    return (c / deviation[:, None] / deviation[None, :]).clamp(-1, 1)
