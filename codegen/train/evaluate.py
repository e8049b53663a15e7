"""What a recipe measures, over a split."""

import torch

from codegen.train.data import Split
from codegen.train.recipe import Recipe, Tensors
from codegen.train.settings import EvalMode
from engine.errors import TargetError

ROWS = 1_024  # at a time, so that memory does not grow with the data, and what is computed stays in the cache


def means(recipe: Recipe, split: Split, params: Tensors, buffers: Tensors, mode: EvalMode) -> dict[str, float]:
    """The mean of every metric over the examples of `split`, by name; the first is the loss.

    `EvalMode.running` goes through the split in blocks with the running statistics; `EvalMode.batch` takes the
    statistics of the whole split, which therefore is one batch.
    """
    batch_stats = mode is EvalMode.batch
    rows = len(split.x) if batch_stats else ROWS
    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    with torch.inference_mode():
        for at in range(0, len(split.x), rows):
            found = recipe.metrics(split.x[at : at + rows], split.y[at : at + rows], params, buffers, batch_stats)
            for name, values in found.items():
                totals[name] = totals.get(name, 0.0) + values.sum().item()
                counts[name] = counts.get(name, 0) + values.numel()
    if "loss" not in totals:
        raise TargetError(
            f"{recipe.name}: metrics gives {', '.join(totals) or 'nothing'}, and 'loss' must be among it."
        )
    return {name: totals[name] / max(1, counts[name]) for name in ("loss", *(n for n in totals if n != "loss"))}


def mean_loss(recipe: Recipe, split: Split, params: Tensors, buffers: Tensors, mode: EvalMode) -> float:
    """The mean loss alone."""
    return means(recipe, split, params, buffers, mode)["loss"]
