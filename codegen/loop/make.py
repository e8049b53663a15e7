"""From a closed module to its training loop at given sizes: record, tidy, select kernels, lay out, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.loop.apart import BLOCKED, STATISTICS
from codegen.loop.biasrow import extended_and_stored, with_bias_rows
from codegen.loop.blocks import NoBlocksError, block_size, priced, statistics_apart, sums_apart
from codegen.loop.cost import cost, price
from codegen.loop.doubled import multiplied
from codegen.loop.file import loop_source
from codegen.loop.flat import flattened
from codegen.loop.folds import Update, averages
from codegen.loop.graph import copied
from codegen.loop.kernels import PLAIN, RULES
from codegen.loop.layout import at_the_end, from_batch, laid_out
from codegen.loop.names import named_where_computed, with_free_names
from codegen.loop.padding import widened
from codegen.loop.pixels import in_pixels
from codegen.loop.places import PLACES
from codegen.loop.plan import Plan, Rows, inputs_of, rows_of
from codegen.loop.record import recorded
from codegen.loop.rules import apply
from codegen.loop.tidy import tidied
from codegen.loop.turned import turned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from torch import Tensor

    from codegen.loop.graph import Step
    from codegen.loop.layout import Layout
    from codegen.loop.rules import Applied


WORTH = 0.85
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
    with_free_names(step)
    tidied(step)
    named_where_computed(step)
    if not plan.plain:
        step = step if plan.compiled else in_pixels(step)  # a compiler turns images itself
        flattened(step)
    applied = apply(step, PLAIN if plan.plain else RULES)
    named_where_computed(step)
    layout = in_order(step, plan)
    trained = trained_in(layout.step)
    used = tuple(r.text for r in RULES if r.name in applied.used) + of_updates(layout)
    source = loop_source(layout, trained, target, name, used, plan.momentum)
    return Loop(source, trained, applied, layout)


def of_updates(layout: Layout) -> tuple[str, ...]:
    """What the updates of a layout use, as text."""
    return tuple(
        r.text for r in PLACES if any(isinstance(x, Update) and x.method == "scatter_add_" for x in layout.order)
    )


def trained_in(step: Step) -> tuple[str, ...]:
    """The inputs that take steps."""
    return tuple(n for n in step.inputs if f"grad.{n}" in step.results)


def in_order(step: Step, plan: Plan) -> Layout:
    """The layout that costs least: in blocks of rows, or as it is, with its parameters kept as that is fastest.

    Steps for a compiler are not taken in blocks: it fuses what blocks keep in cache.
    """
    if plan.plain:
        return laid_out(step, trained_in(step), averages(step), plain=True)
    blocks = None if plan.compiled else in_blocks_where_cheaper(step)
    if blocks is not None:
        return blocks
    alone(step)
    step = turned(step, trained_in(step))
    step = multiplied(step, trained_in(step))
    widened(step, trained_in(step))
    if not plan.compiled:  # a compiler would copy what is computed in place here
        apply(step, PLACES)
        joined = with_bias_rows(step)
        layout = laid_out(joined, trained_in(joined), averages(joined))
        if joined is step or not extended_and_stored(layout):
            return layout
    return laid_out(step, trained_in(step), averages(step))


def alone(step: Step) -> None:
    """Constants read nothing: what they took their shape or dtype from may change."""
    for n in step.order:
        if n.constant is not None:
            n.op, n.args, n.kwargs = "constant", (), {}
    step.readers = None
    step.sort()


def in_blocks_where_cheaper(given: Step) -> Layout | None:
    """The step in blocks of rows if that is possible and costs less."""
    rows = given.inputs[given.batch[0]].shape[0]
    size = block_size(given, rows)
    if size is None:
        return None
    step, _ = copied(given)
    trained = trained_in(step)
    widened(step, trained)
    averaged = averages(step)
    late, _ = at_the_end(step, from_batch(step))  # which is computed there in blocks and without
    whole = price(step) - sum(map(cost, late))
    try:
        apply(step, STATISTICS)
        statistics_apart(step, rows // size)
        sums_apart(step)
        apply(step, BLOCKED)
        made = laid_out(step, trained, averaged, block=size)
    except NoBlocksError:
        return None
    assert made.blocks is not None
    return made if priced(made.blocks) < WORTH * whole else None


__all__ = ["Loop", "Plan", "Rows", "inputs_of", "make_loop", "rows_of"]
