# pyright: basic
"""The gates of another order: one value in 50 digits, and float32 errors of both orders and of their gradients at offsets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from codegen.closed.gates.accuracy import FLOOR, SLACK
from codegen.closed.gates.errors import autograd, inputs_at
from codegen.closed.gates.execute import scope_of
from codegen.closed.gates.points import given_to, one_value
from codegen.closed.gates.sizes import sizes_to_measure
from codegen.closed.regions.region import Region
from engine.notation import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regroup.among import Among

OFFSETS = (0.0, 10.0, 100.0, 1000.0)
DRAWS = 3


def as_accurate(old: Sequence[Cell], new: Sequence[Cell], given: Sequence[Cell], example: Mapping[Any, int]) -> bool:
    """Whether the cells that both orders have, and the gradients of what is `given`, are about as accurate in the new one.

    Nothing is asked of what is not finite in the old one.
    """
    leaves = [replace(c, expr=None) for c in given]
    names = {c.name for c in new}
    kept = tuple(c.name for c in old if c.name in names)
    wanted = tuple(c.name for c in leaves if c.kind == "float")
    one, other = (
        Region((*leaves, *[replace(c, text=None, call=False) for c in cells]), kept, wanted, kept)
        for cells in (old, new)
    )
    sizes = sizes_to_measure([*one.cells, *other.cells], example)
    scope = scope_of(sizes) | {str(s.whole): n * s.count for s, n in sizes.items() if isinstance(s, Part)}
    for offset in OFFSETS:
        lost: dict[str, float] = {}
        for draw in range(DRAWS):
            values = inputs_at(one, one.cells, sizes, offset, draw)
            truth, theirs, ours = (
                autograd(region, values, scope, sizes, dtype)
                for region, dtype in ((one, torch.float64), (one, torch.float32), (other, torch.float32))
            )
            for k, name in (*[(0, n) for n in wanted], *[(1, n) for n in kept]):
                exact = truth[k][name]
                if bool(exact.isfinite().all()):
                    mine, other_error = (error(x[k][name], exact) for x in (ours, theirs))
                    if not math.isfinite(other_error):  # as exp(100) in float32: whatever the new order has is no worse
                        continue
                    lost[name] = lost.get(name, 0.0) + math.log(max(mine, FLOOR) / max(other_error, FLOOR))
        if not all(x <= DRAWS * math.log(SLACK) for x in lost.values()):
            return False
    return True


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The root mean square of a difference, as a part of what is exact."""
    return float((found - exact).square().mean().sqrt()) / (float(exact.square().mean().sqrt()) + 1e-30)


def passes_gates(old: Sequence[Cell], new: Sequence[Cell], among: Among) -> bool:
    """Whether cells in another order have the values that they had, at a random point and in float32 around several offsets.

    A gate that cannot be evaluated lets nothing pass.
    """
    given = given_to([*old, *new], among.known)
    try:
        return one_value(old, new, given) and as_accurate(old, new, given, among.example)
    except Exception:  # noqa: BLE001  # whatever went wrong in it
        return False


__all__ = ["as_accurate", "passes_gates"]
