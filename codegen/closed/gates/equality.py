# pyright: basic
"""Equality with the unsimplified chain of local derivatives of the same cells, at random points in 50-digit arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np

from codegen.closed.gates.points import DIGITS, SEEDS, TOLERANCE, boxed, point, relate, rewritten, run
from codegen.closed.gates.sizes import small_sizes
from codegen.closed.gates.verdict import Verdict
from codegen.closed.plan.backward import Backward, Statement, cot_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region


def equal(
    region: Region,
    cells: Sequence[Cell],
    plan: Sequence[Statement],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> Verdict:
    """Equality with the unsimplified derivation, at random points."""
    sizes = small_sizes(cells, values)
    backward = Backward(list(region.cells), region.seeds, region.wanted, cast("Any", None))
    naive = backward.chain()
    with mpmath.workdps(DIGITS):
        for seed in range(SEEDS):
            tensors = point(region, region.cells, sizes, seed)
            if tensors is None:
                continue
            relate(region, cells, tensors, sizes)
            ours, theirs = dict(tensors), dict(tensors)
            run(naive, theirs, sizes)
            if not all(mpmath.isfinite(x) for s in naive for x in theirs[s.name].flat):
                continue
            changed = rewritten(cells, ours, sizes)
            if changed:
                return Verdict(False, f"{changed} was rewritten into something else")
            run(plan, ours, sizes)
            for cell, name in gradients:
                a, b = ours[name], theirs[cot_name(cell)]
                scale = max([abs(x) for x in b.flat] + [mpmath.mpf(1)])
                worst = max(
                    (abs(x - y) for x, y in zip(np.broadcast_to(boxed(a), b.shape).flat, b.flat, strict=True)),
                    default=mpmath.mpf(0),
                )
                if not worst <= TOLERANCE * scale:
                    return Verdict(
                        False, f"the cotangent of {cell} differs from the derivation by {mpmath.nstr(worst, 3)}"
                    )
            return Verdict(True)
    return Verdict(False, "no point was found where the forward is finite")


__all__ = ["equal"]
