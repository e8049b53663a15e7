"""From a closed module to its training loop at given sizes: record, tidy, select kernels, lay out, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.loop.apart import BLOCKED, STATISTICS
from codegen.loop.blocks import NoBlocksError, block_size, priced, statistics_apart, sums_apart
from codegen.loop.cost import price
from codegen.loop.emit import loop_source
from codegen.loop.folds import averages
from codegen.loop.graph import copied
from codegen.loop.kernels import PLAIN, RULES
from codegen.loop.layout import laid_out
from codegen.loop.padding import widened
from codegen.loop.plan import Plan, Rows, inputs_of, rows_of
from codegen.loop.record import recorded
from codegen.loop.rules import apply
from codegen.loop.tidy import tidied

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from torch import Tensor

    from codegen.loop.layout import Layout
    from codegen.loop.rules import Applied


WORTH = 0.8
"""What blocks must cost at most, relative to the step as it is: prices are rough, and blocks make more calls."""


@dataclass(frozen=True)
class Loop:
    """An emitted loop and the identities it uses."""

    source: str
    trained: tuple[str, ...]
    applied: Applied
    layout: Layout


def make_loop(
    module: ModuleType,
    batch: Mapping[str, Rows],
    params: Mapping[str, Tensor],
    size: int,
    plan: Plan,
    target: str,
    name: str,
) -> Loop:
    """The loop for batches of `size` rows and parameters of these shapes and dtypes."""
    names = inputs_of(module)
    rows = {k: (r.shape, r.dtype, r.bound) for k, r in batch.items()}
    step = recorded(module, names, rows, params, size, plan.outputs, plan.key, plan.renew, plan.keep)
    tidied(step)
    applied = apply(step, PLAIN if plan.plain else RULES)
    trained = tuple(n for n in names if f"grad.{n}" in step.results)
    if not plan.plain:
        widened(step, trained)
    averaged = averages(step)
    layout = laid_out(step, trained, averaged, plan.plain)
    used = tuple(r.text for r in RULES if r.name in applied.used)
    source = loop_source(in_blocks_where_cheaper(layout, trained, plan), trained, target, name, used, plan.momentum)
    return Loop(source, trained, applied, layout)


def in_blocks_where_cheaper(layout: Layout, trained: tuple[str, ...], plan: Plan) -> Layout:
    """The step in blocks of rows if that is possible and costs less, else as it is."""
    rows = layout.step.inputs[layout.step.batch[0]].shape[0]
    size = None if plan.plain else block_size(layout.step, rows)
    if size is None:
        return layout
    step, averaged = copied(layout.step, layout.averages)
    try:
        apply(step, STATISTICS)
        statistics_apart(step, rows // size)
        sums_apart(step)
        apply(step, BLOCKED)
        made = laid_out(step, trained, averaged, block=size)
    except NoBlocksError:
        return layout
    assert made.blocks is not None
    return made if priced(made.blocks) < WORTH * price(layout.step) else layout


__all__ = ["Loop", "Plan", "Rows", "inputs_of", "make_loop", "rows_of"]
