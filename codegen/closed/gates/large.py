# pyright: basic
"""Where exponentials overflow: whether a plan's results and gradients are finite there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import sympy as sp
import torch

from codegen.closed.gates.errors import inputs_at
from codegen.closed.gates.points import SEEDS
from codegen.closed.gates.sizes import shape_at
from codegen.closed.plan.backward import cot_name
from engine.indexed import Indexed
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.gates.errors import Trial
    from codegen.closed.regions.cells import Cell

HUGE = 1e4
"""What inputs are multiplied by so that exponentials of them overflow."""


def not_finite(trial: Trial) -> Counter[str]:
    """How many numbers of a plan's results and gradients are not finite, by the input that alone is so large that exponentials of it are not.

    Such inputs have both signs then, and all others are positive; "" stands for all of them at once, of any sign. Where the
    logarithm of a difference is not finite, they are drawn anew. What gets no gradient is zeros and ones, too, where all is finite then.
    """
    wide = in_exponents(trial.region.cells)
    any_sign = defined(trial, 0)
    values = defined(trial, 1)
    values |= beyond(trial, values)
    large = {k: v * HUGE for k, v in any_sign.items() if k in wide and v.is_floating_point()}
    found = {k: lost(trial, values | {k: v}) for k, v in large.items()} | {"": lost(trial, values | large)}
    labels = truths(trial, values, wide)
    if labels and not lost(trial, values | labels):
        found |= {f"{k} beside labels": lost(trial, values | labels | {k: v}) for k, v in large.items()}
    return +Counter(found)


def truths(trial: Trial, values: Mapping[str, torch.Tensor], wide: set[str]) -> dict[str, torch.Tensor]:
    """Zeros and ones for the inputs that get no gradient, and that no exponent is made of: they may be labels or masks."""
    given = (c for c in trial.region.cells if c.expr is None and c.kind == "float" and c.name in values)
    weights = (c.name for c in given if c.name not in trial.region.wanted and c.name not in wide)
    return {n: (values[n] > values[n].mean()).to(values[n].dtype) for n in weights}


def defined(trial: Trial, kind: int) -> dict[str, torch.Tensor]:
    """Inputs of a kind, or of the first one for which all results are finite where the logarithm of a difference is taken."""
    drawn = inputs_at(trial.region, trial.cells, trial.sizes, 0.0, kind=kind)
    values = drawn
    for other in range(SEEDS) if logarithm_of_difference(trial.region.cells) else ():
        if not lost(trial, values | beyond(trial, values)):
            return values
        values = inputs_at(trial.region, trial.cells, trial.sizes, 0.0, other, other)
    return drawn


def logarithm_of_difference(cells: Sequence[Cell]) -> bool:
    """Whether a logarithm is taken of what something is subtracted in."""
    known = {c.name: c.expr for c in cells}
    for x in (x for c in cells if c.expr is not None for x in c.expr.atoms(sp.log)):
        e: Any = x.args[0]
        while isinstance(e, Indexed) and known.get(name_of(e)) is not None:
            e = known[name_of(e)]
        if isinstance(e, sp.Add) and any(t.could_extract_minus_sign() for t in e.args):
            return True
    return False


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
