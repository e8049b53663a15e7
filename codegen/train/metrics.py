"""The loss log: one row per line that was printed."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


class Row(NamedTuple):
    """After `step` steps: the mean training loss of the steps since the row before, and the validation loss."""

    step: int
    train_loss: float
    val_loss: float


def metrics_file(rows: Sequence[Row]) -> bytes:
    """The rows as JSON lines. Numbers are written so that they read back exactly; a loss that is none is null."""
    finite = ({k: v if math.isfinite(v) else None for k, v in row._asdict().items()} for row in rows)
    return "".join(json.dumps(row) + "\n" for row in finite).encode()


def rows_to_tensor(rows: Sequence[Row]) -> Tensor:
    """(rows, 3) float64."""
    return torch.tensor([list(row) for row in rows], dtype=torch.float64).reshape(-1, 3)


def rows_from_tensor(table: Tensor) -> list[Row]:
    """Inverse of `rows_to_tensor`."""
    return [Row(int(step), train, val) for step, train, val in (floats(row) for row in table)]


def floats(values: Tensor) -> list[float]:
    """A tensor (n,) as Python numbers."""
    return cast("list[float]", cast("Any", values).tolist())
