"""Images read at the places of a grid, between their entries: gathers, weighted by distances that have derivatives too."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import TraceError
from engine.ops.resampling import SHARPNESS
from engine.table import composite

if TYPE_CHECKING:
    from collections.abc import Sequence

F = torch.nn.functional
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


def place(g: Any, n: int, aligned: bool) -> Any:
    """-1 to 1 as a place among n entries: of their centres (aligned), or of their outer edges."""
    return (g + 1) / 2 * (n - 1) if aligned else ((g + 1) * n - 1) / 2


def reflected(p: Any, n: int, aligned: bool) -> Any:
    """A place thrown back at the centres of the first and last entry (aligned), or at their outer edges."""
    low, span = (0.0, float(n - 1)) if aligned else (-0.5, float(n))
    if span == 0:
        return p * 0
    away = (p - low).abs()
    flips = (away / span).detach().floor()
    rest = away - flips * span
    return torch.where(flips % 2 == 0, rest, span - rest) + low


def inside(p: Any, n: int, padding: str, aligned: bool) -> Any:
    """A place as the padding has it: unchanged, or held within the entries."""
    if padding == "zeros":
        return p
    return (reflected(p, n, aligned) if padding == "reflection" else p).clamp(0, n - 1)


def read(x: Any, places: Sequence[Any], padding: str, aligned: bool) -> Any:
    """The entries (batch, channels, ...) at whole places (batch, ...), one tensor of them a dimension; 0 beyond the edges."""
    sizes = [int(n) for n in x.shape[2:]]
    flat: Any = 0
    known: Any = None
    for p, n in zip(places, sizes, strict=True):
        p = inside(p, n, padding, aligned)
        here = (p >= 0) & (p <= n - 1)
        known = here if known is None else known & here
        flat = flat * n + p.clamp(0, n - 1).long()
    shape = [x.shape[0], x.shape[1], *flat.shape[1:]]
    where = flat.reshape(x.shape[0], 1, -1).expand(-1, x.shape[1], -1)
    found = x.reshape(x.shape[0], x.shape[1], -1).gather(2, where).reshape(shape)
    return torch.where(known.unsqueeze(1), found, 0) if padding == "zeros" else found


def taps(p: Any, mode: str) -> list[tuple[Any, Any]]:
    """What a place is read as along one dimension: whole places, and their weights."""
    if mode == "nearest":
        return [(p.detach().round(), None)]
    below = p.detach().floor()
    t = p - below
    if mode == "bilinear":
        return [(below, 1 - t), (below + 1, t)]
    a = SHARPNESS

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
    return [(below + k - 1, w) for k, w in enumerate(weights)]


@composite(targets=(F.grid_sample,))
def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: Any = None
) -> Any:
    """`input` (batch, channels, ..., height, width) at places (x, y, ...) from -1 to 1 in the last dimension of `grid`."""
    if mode not in MODES or padding_mode not in PADDINGS:
        raise TraceError(f"grid_sample with mode={mode!r}, padding_mode={padding_mode!r} is not in the table")
    aligned = bool(align_corners)
    sizes = [int(n) for n in input.shape[2:]]
    given = [place(grid.select(-1, len(sizes) - 1 - d), n, aligned) for d, n in enumerate(sizes)]
    if mode != "bicubic":  # whose neighbours are held inside each for themselves
        given = [inside(p, n, padding_mode, aligned) for p, n in zip(given, sizes, strict=True)]
    total: Any = None
    for chosen in product(*[taps(p, mode) for p in given]):
        term = read(input, [p for p, _ in chosen], padding_mode, aligned)
        for _, weight in chosen:
            term = term if weight is None else term * weight.unsqueeze(1)
        total = term if total is None else total + term
    return total


@composite("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sampler(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:
    """The same with numbers for the modes."""
    return grid_sample(input, grid, MODES[interpolation_mode], PADDINGS[padding_mode], align_corners)


@composite("affine_grid", "affine_grid_generator")
def affine_grid(theta: Any, size: Any, align_corners: bool | None = False) -> Any:
    """The places of an affine map of a regular grid: of the entries' centres, -1 and 1 being the outer ones or their outer edges."""
    sizes = [int(n) for n in size[2:]]
    rank = len(sizes)
    total = theta[..., -1].reshape(theta.shape[0], *[1] * rank, rank)
    for k in range(rank):
        d = rank - 1 - k  # x is the last dimension
        n = sizes[d]
        line = torch.linspace(-1, 1, n, dtype=theta.dtype) if n > 1 else torch.zeros(1, dtype=theta.dtype)
        line = line if align_corners else line * ((n - 1) / n)
        along = line.reshape([n if a == d + 1 else 1 for a in range(rank + 2)])
        total = total + along * theta[..., k].reshape(theta.shape[0], *[1] * rank, rank)
    return total
