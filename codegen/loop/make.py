"""From a closed module to its training loop at given sizes: record, tidy, select kernels, lay out, write."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.loop.emit import loop_source
from codegen.loop.folds import averages
from codegen.loop.kernels import RULES
from codegen.loop.layout import laid_out
from codegen.loop.padding import widened
from codegen.loop.record import recorded
from codegen.loop.rules import apply
from codegen.loop.tidy import tidied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from torch import Tensor

    from codegen.loop.layout import Layout
    from codegen.loop.rules import Applied


@dataclass(frozen=True)
class Rows:
    """A batch input: the shape of one row, its dtype, and a bound above its integers."""

    shape: tuple[int, ...]
    dtype: Any
    bound: int = 2


@dataclass(frozen=True)
class Plan:
    """What a loop is made from besides the closed module.

    `outputs` is how many tensors the forward returns, the loss first; `buffers` are inputs that the forward changes, and
    `renew` computes what they become from the inputs; `key` is the name under which an input's gradient is returned;
    `keep` are named values to be handed out; `wanted` are the inputs that have a gradient, None for all of floating point.
    """

    outputs: int = 1
    buffers: tuple[str, ...] = ()
    renew: Callable[[Sequence[Tensor]], Mapping[str, Tensor]] | None = None
    key: Callable[[str], str] = str
    keep: tuple[str, ...] = ()
    momentum: bool = False
    plain: bool = False
    wanted: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Loop:
    """An emitted loop and the identities it uses."""

    source: str
    trained: tuple[str, ...]
    applied: Applied
    layout: Layout


def rows_of(data: Sequence[Tensor]) -> list[Rows]:
    """The rows that data has."""
    return [
        Rows(tuple(t.shape[1:]), t.dtype, 2 if t.dtype.is_floating_point or not t.numel() else int(t.max()) + 1)
        for t in data
    ]


def inputs_of(module: ModuleType) -> tuple[str, ...]:
    """The names that the closed forward takes."""
    given = inspect.signature(module.forward).parameters.values()
    return tuple(p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD)


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
    applied = apply(step, () if plan.plain else RULES)
    trained = tuple(n for n in names if f"grad.{n}" in step.results)
    if not plan.plain:
        widened(step, trained)
    layout = laid_out(step, trained, averages(step), plan.plain)
    used = tuple(r.text for r in RULES if r.name in applied.used)
    return Loop(loop_source(layout, trained, target, name, used, plan.momentum), trained, applied, layout)
