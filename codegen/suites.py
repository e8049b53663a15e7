"""Inputs that are not comfortable: edges, offsets, a batch of one and of none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAGNITUDES = (0.0, 1.0, 100.0, 300.0)
OFFSETS = (10.0, 100.0, 1000.0)
SEED = 7


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs by name, and what is special about them."""

    name: str
    inputs: dict[str, Tensor]


def edge_cases(inputs: Mapping[str, Tensor], with_batch: Callable[[int], dict[str, Tensor]]) -> Iterator[Case]:
    """Every floating-point input at 0, ±1, ±100, ±300 and at a mix of these; the first with a common offset; batches of 1 and 0.

    `with_batch` makes inputs of a given batch size.
    """
    for magnitude in MAGNITUDES:
        title = f"all ±{magnitude:g}" if magnitude else "all 0"
        yield Case(title, _replaced(inputs, lambda t, g, m=magnitude: m * _signs(t, g)))
    yield Case("mixed 0, ±1, ±100, ±300", _replaced(inputs, _mixed))
    first = next((name for name, t in inputs.items() if t.is_floating_point()), None)
    for offset in OFFSETS if first is not None else ():
        yield Case(f"{first} + {offset:g}", {n: t + offset if n == first else t for n, t in inputs.items()})
    for batch in (1, 0):
        yield Case(f"batch {batch}", with_batch(batch))


def _replaced(inputs: Mapping[str, Tensor], make: Callable[[Tensor, Generator], Tensor]) -> dict[str, Tensor]:
    generator = Generator().manual_seed(SEED)
    return {name: make(t, generator).to(t.dtype) if t.is_floating_point() else t for name, t in inputs.items()}


def _signs(t: Tensor, generator: Generator) -> Tensor:
    return torch.randint(2, t.shape, generator=generator) * 2.0 - 1.0


def _mixed(t: Tensor, generator: Generator) -> Tensor:
    return torch.tensor(MAGNITUDES)[torch.randint(len(MAGNITUDES), t.shape, generator=generator)] * _signs(t, generator)
