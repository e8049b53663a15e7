# pyright: basic
"""Where exponentials overflow: whether a plan's results and gradients are finite there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
import torch

from codegen.closed.backward import cot_name
from codegen.closed.gates.errors import inputs_at
from codegen.closed.gates.execute import execute, scope_of
from codegen.closed.gates.sizes import small_sizes
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.cells import Cell
    from codegen.closed.line import Line
    from codegen.closed.region import Region

HUGE = 1e4
"""What inputs are multiplied by so that exponentials of them overflow."""


def finite_at_large(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> bool:
    """Whether a plan's results and gradients stay finite where inputs of both signs are so large that exponentials of them are not."""
    sizes = small_sizes(cells, values)
    scope = scope_of(sizes)
    wide = in_exponents(region.cells)
    ours: dict[str, Any] = inputs_at(region, cells, sizes, 0.0, kind=1)
    ours |= {
        k: v * HUGE for k, v in inputs_at(region, cells, sizes, 0.0).items() if k in wide and v.is_floating_point()
    }
    for name in region.seeds:
        ours[f"{cot_name(name)}_out"] = ours[cot_name(name)]
    with torch.no_grad():
        for line in (*forward, *backward):
            execute(line, ours, scope, sizes, torch.float64)
    told = [ours[name] for name in (*region.needed, *[g for _, g in gradients])]
    return all(bool(torch.as_tensor(t).isfinite().all()) for t in told)


def in_exponents(cells: Sequence[Cell]) -> set[str]:
    """The cells that exponents are made of."""
    found: set[str] = set()
    for c in reversed(cells):
        if c.expr is not None:
            found |= {name_of(a) for e in c.expr.atoms(sp.exp) for a in accesses(e)}
            found |= set(c.reads) if c.name in found else set()
    return found


__all__ = ["finite_at_large"]
