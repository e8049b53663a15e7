"""The op table's rows by name, with the torch callables they stand for and the samples that apply to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.table import TABLE, Row
from tests.ops.samples import SAMPLES, Call

if TYPE_CHECKING:
    from collections.abc import Callable

SPACES = (
    (torch.Tensor, "Tensor"),
    (torch.nn.functional, "functional"),
    (torch.linalg, "linalg"),
    (torch.special, "special"),
)


def qualified(target: Any) -> str:
    """`torch.add`, `Tensor.add`, `functional.relu`: which of several callables of a name one is."""
    name = getattr(target, "__name__", str(target))
    if name == "__get__":
        return f"Tensor.{target.__self__.__name__}"
    return next((f"{title}.{name}" for space, title in SPACES if getattr(space, name, None) is target), f"torch.{name}")


def rows() -> dict[str, tuple[Row, list[Callable[..., Any]]]]:
    """The bundled rows in the order of their names; other tests may have added rows of their own."""
    found: dict[str, tuple[Row, list[Callable[..., Any]]]] = {}
    for target, row in TABLE.items():
        if not row.bundled:
            continue
        found.setdefault(row.name, (row, []))[1].append(target)
    return dict(sorted(found.items()))


def cases(name: str) -> list[tuple[str, Callable[..., Any], Call]]:
    """Every callable of a row with every sample that applies to it."""
    targets = rows()[name][1]
    return [(qualified(f), f, c) for c in SAMPLES[name] for f in targets if c.applies(qualified(f))]
