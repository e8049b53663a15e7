"""What a loop is made from. Light to import: a loop that is there already needs nothing else of this package."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from torch import Tensor


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
    `keep` are named values to be handed out; `wanted` are the inputs that have a gradient, None for all of floating point;
    `compiled` steps are handed to a compiler.
    """

    outputs: int = 1
    buffers: tuple[str, ...] = ()
    renew: Callable[[Sequence[Tensor]], Mapping[str, Tensor]] | None = None
    key: Callable[[str], str] = str
    keep: tuple[str, ...] = ()
    momentum: bool = False
    plain: bool = False
    compiled: bool = False
    wanted: tuple[str, ...] | None = None


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
