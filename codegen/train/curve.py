"""The loss curve as a PNG."""

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from codegen.train.files import write_atomically
from codegen.train.metrics import Row, floats
from engine.errors import TrainingError


def check_curve_path(path: Path) -> None:
    """Refuse, before any training, a curve that could not be written after it. Raises TrainingError."""
    _figure_class()
    if path.suffix.lower() != ".png":
        raise TrainingError(f"the loss curve is a PNG, and {path} is not named as one. Give --curve a name in .png.")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise TrainingError(
            f"cannot write the loss curve to {path}: {reason}. Give --curve a file in an existing folder."
        )


def save_curve(path: Path, losses: Tensor, rows: Sequence[Row]) -> None:
    """Draw the losses of all steps (steps,), their moving mean, and the validation losses. Raises TrainingError."""
    figure = _figure_class()(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps = range(1, len(losses) + 1)
    axes.plot(steps, floats(losses), color="0.85", linewidth=0.6, label="batch")
    width = max(1, len(losses) // 100)
    smooth = losses.unfold(0, width, 1).mean(dim=-1)
    axes.plot(steps[width - 1 :], floats(smooth), color="C0", label=f"batch, mean of {width}")
    axes.plot([r.step for r in rows], [r.val_loss for r in rows], color="C1", marker="o", label="validation")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    try:
        write_atomically(path, image.getvalue())
    except OSError as error:
        raise TrainingError(
            f"cannot write the loss curve to {path}: {error.strerror}. Choose another --curve."
        ) from error


def _figure_class() -> Any:
    """matplotlib's Figure, imported only when a curve is asked for: it draws to a file without a display."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise TrainingError(
            f"--curve needs matplotlib, which cannot be imported ({error}). Install it: pip install matplotlib."
        ) from error
