"""Images made larger or smaller: every new entry is a weighted sum of old ones, one dimension after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.errors import TraceError
from engine.table import composite, each_of

if TYPE_CHECKING:
    from collections.abc import Callable

F = torch.nn.functional
SHARPNESS = -0.75
"""The parameter of the cubic kernel, as torch has it (Keys, 1981)."""


@composite(targets=(F.interpolate,))
def interpolate(
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    """The spatial dimensions (from the third on) in new sizes; the old and the new sizes are fixed."""
    spatial = x.dim() - 2
    if antialias:
        raise TraceError("interpolate with antialias=True is not in the table; only without it")
    old = [int(n) for n in x.shape[2:]]
    factors: list[Any] = each_of(scale_factor, spatial)
    sizes = each_of(size, spatial) if scale_factor is None else [int(n * f) for n, f in zip(old, factors, strict=True)]
    known = scale_factor is not None and not recompute_scale_factor
    ratios = [1 / f for f in factors] if known else [n / m for n, m in zip(old, map(int, sizes), strict=True)]
    if mode == "area":
        return getattr(F, f"adaptive_avg_pool{spatial}d")(x, [int(s) for s in sizes])
    if mode not in RESAMPLINGS:
        raise TraceError(f"interpolate with mode={mode!r} is none of {', '.join([*RESAMPLINGS, 'area'])}")
    for d, (n, m, ratio) in enumerate(zip(old, map(int, sizes), ratios, strict=True)):
        if align_corners:
            ratio = (n - 1) / (m - 1) if m > 1 else 0.0
        if n != m or ratio != 1:
            x = RESAMPLINGS[mode](x, 2 + d, n, m, ratio, bool(align_corners))
    return x


def nearest(x: Any, dim: int, old: int, new: int, ratio: float, shift: float) -> Any:
    """The entry whose place, found in float32 as torch does, lies at or below."""
    if new % old == 0 and ratio == old / new:
        return x.repeat_interleave(new // old, dim)
    places = torch.arange(new, dtype=torch.float32)
    places = (places + shift if shift else places) * ratio
    return x.index_select(dim, places.floor().clamp(max=old - 1).long())


def lower(x: Any, dim: int, old: int, new: int, ratio: float, aligned: bool) -> Any:
    """`mode="nearest"`."""
    return nearest(x, dim, old, new, ratio, 0.0)


def closest(x: Any, dim: int, old: int, new: int, ratio: float, aligned: bool) -> Any:
    """`mode="nearest-exact"`."""
    return nearest(x, dim, old, new, ratio, 0.5)


def positions(x: Any, new: int, ratio: float, aligned: bool) -> Any:
    """Where the new entries lie among the old ones: of their centres, or (aligned) with the corners in place."""
    places = torch.arange(new, dtype=x.dtype)
    return places * ratio if aligned else (places + 0.5) * ratio - 0.5


def weighted(x: Any, dim: int, weight: Any) -> Any:
    """`x` times one weight per entry of a dimension."""
    return x * weight.reshape([-1 if d == dim else 1 for d in range(x.dim())])


def linear(x: Any, dim: int, old: int, new: int, ratio: float, aligned: bool) -> Any:
    """Between two neighbours in proportion to their distances."""
    places = positions(x, new, ratio, aligned).clamp(min=0)
    below = places.floor().clamp(max=old - 1)
    share = (places - below).clamp(0, 1)
    above = (below + 1).clamp(max=old - 1)
    return weighted(x.index_select(dim, below.long()), dim, 1 - share) + weighted(
        x.index_select(dim, above.long()), dim, share
    )


def cubic(x: Any, dim: int, old: int, new: int, ratio: float, aligned: bool) -> Any:
    """Four neighbours, weighted by the cubic convolution kernel of their distances."""
    places = positions(x, new, ratio, aligned)
    below = places.floor()
    share = places - below
    a = SHARPNESS
    near: Callable[[Any], Any] = lambda t: ((a + 2) * t - (a + 3)) * t * t + 1  # noqa: E731
    far: Callable[[Any], Any] = lambda t: ((a * t - 5 * a) * t + 8 * a) * t - 4 * a  # noqa: E731
    weights = (far(share + 1), near(share), near(1 - share), far(2 - share))
    taps = [
        weighted(x.index_select(dim, (below + k - 1).clamp(0, old - 1).long()), dim, w) for k, w in enumerate(weights)
    ]
    return taps[0] + taps[1] + taps[2] + taps[3]


RESAMPLINGS: dict[str, Callable[..., Any]] = {
    "nearest": lower, "nearest-exact": closest, "linear": linear, "bilinear": linear, "trilinear": linear, "bicubic": cubic,
}  # fmt: skip
