# pyright: basic
"""Where exponentials overflow: whether a plan's results and gradients are finite there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import sympy as sp
import torch

from codegen.closed.gates.errors import inputs_at
from codegen.closed.gates.sizes import shape_at
from codegen.closed.plan.backward import cot_name
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.gates.errors import Trial
    from codegen.closed.regions.cells import Cell

HUGE = 1e4
"""What inputs are multiplied by so that exponentials of them overflow."""


def not_finite(trial: Trial) -> Counter[str]:
    """How many numbers of a plan's results and gradients are not finite, by the input that alone is so large that exponentials of it are not.

    Such inputs have both signs then, and all others are positive; "" stands for all of them at once, of any sign.
    """
    region, cells, sizes = trial.region, trial.cells, trial.sizes
    wide = in_exponents(region.cells)
    values = inputs_at(region, cells, sizes, 0.0, kind=1)
    any_sign = inputs_at(region, cells, sizes, 0.0)
    values |= beyond(trial, values)
    large = {k: v * HUGE for k, v in any_sign.items() if k in wide and v.is_floating_point()}
    found = {k: lost(trial, values | {k: v}) for k, v in large.items()} | {"": lost(trial, values | large)}
    return +Counter(found)


def beyond(trial: Trial, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cotangents that the relations name beyond the region: any will do, as only finiteness is asked for."""
    told = {name_of(a) for _, right in trial.region.relations for a in accesses(right)} - {*values}
    g = torch.Generator().manual_seed(0)
    shapes = {cot_name(c.name): shape_at(c.shape, trial.sizes) for c in trial.cells}
    return {n: torch.randn(shapes[n], generator=g, dtype=torch.float64) for n in sorted(told)}


def lost(trial: Trial, values: dict[str, torch.Tensor]) -> int:
    """How many numbers of the results and gradients are not finite for values of the inputs."""
    made = trial.run(values, torch.float64)
    told = [made[name] for name in (*trial.region.needed, *[g for _, g in trial.gradients])]
    return sum(int((~torch.as_tensor(t).isfinite()).sum()) for t in told)


def in_exponents(cells: Sequence[Cell]) -> set[str]:
    """The cells that exponents are made of."""
    found: set[str] = set()
    for c in reversed(cells):
        if c.expr is not None:
            found |= {name_of(a) for e in c.expr.atoms(sp.exp) for a in accesses(e)}
            found |= set(c.reads) if c.name in found else set()
    return found


__all__ = ["not_finite"]
