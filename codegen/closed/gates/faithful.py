"""What every regenerated forward must pass, a fallback's too: its statements give what the forward's own lines give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from codegen.closed.gates.execute import DTYPES, by_the_forward, execute, scope_of
from codegen.closed.gates.points import counts
from codegen.closed.gates.sizes import LARGE, shape_at, size_symbols, small_sizes
from codegen.closed.gates.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.code import RegionCode
    from codegen.closed.regions.region import Region

TOLERANCE = 1e-8
"""Of the largest entry; statements in another order differ by rounding."""


def faithful(region: Region, code: RegionCode, values: Mapping[Any, int]) -> Verdict:
    """Whether the statements give the region's own cells their values, in float64, at inputs of both signs and at positive ones.

    An entry where the forward itself is not finite says nothing.
    """
    sizes = sizes_of(region, values)
    scope = scope_of(sizes)
    kinds = {c.name: c.kind for c in code.cells}
    for positive in (False, True):
        given = drawn(region, sizes, positive)
        own = by_the_forward(region, given, scope, sizes, torch.float64)
        ours = dict[str, Any](given)
        for line in code.forward:
            like = own[line.name].dtype if line.name in own else None
            with torch.no_grad():
                execute(line, ours, scope, sizes, DTYPES.get(kinds[line.name], torch.float64), like)
            if line.name in own and not alike(ours[line.name], own[line.name], shape_at(line.shape, sizes)):
                return Verdict(False, f"{line.name} is computed as something else")
    return Verdict(True)


def sizes_of(region: Region, values: Mapping[Any, int]) -> dict[Any, int]:
    """The example's sizes, which the forward may have fixed, or small ones where tensors would be large."""
    sizes = {s: values.get(s, 3) for s in size_symbols(region.cells)}
    fits = all(math.prod(shape_at(c.shape, sizes)) <= LARGE for c in region.cells)
    return sizes if fits else small_sizes(region.cells, values)


def drawn(region: Region, sizes: dict[Any, int], positive: bool) -> dict[str, torch.Tensor]:
    """Random values for what the region reads from outside."""
    g = torch.Generator().manual_seed(int(positive))
    out: dict[str, torch.Tensor] = {}
    for c in region.cells:
        if c.expr is not None:
            continue
        shape = shape_at(c.shape, sizes)
        if c.kind == "float":
            x = torch.randn(shape, generator=g, dtype=torch.float64)
            out[c.name] = x.abs().clamp(0.1, 0.9) if positive else x
        else:
            x = counts(torch.randint(0, 2, shape, generator=g), c, region.cells)
            out[c.name] = x.bool() if c.kind == "bool" else x
    return out | {one: out[other] for one, other in region.copies}


def alike(ours: torch.Tensor, own: Any, shape: tuple[int, ...]) -> bool:
    """Whether two values are the same up to rounding, wherever the forward's own is finite."""
    a, b = (torch.as_tensor(x).to(torch.float64).expand(shape) for x in (ours, own))
    told = b.isfinite()
    a, b = a[told], b[told]
    return bool(((a - b).abs() <= TOLERANCE * b.abs().clamp(min=1).amax(0, keepdim=True)).all()) if b.numel() else True
