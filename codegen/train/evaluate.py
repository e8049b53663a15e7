"""Mean cross entropy of a model over a split."""

import torch
from torch import Tensor
from torch.nn import functional

from codegen.train.data import Split
from codegen.train.recipe import Recipe, Tensors
from codegen.train.settings import EvalMode

ROWS = 16_384  # at a time, so that memory does not grow with the data


def mean_loss(recipe: Recipe, split: Split, params: Tensors, buffers: Tensors, mode: EvalMode) -> float:
    """Mean negative log-likelihood of every pair of `split`.

    `EvalMode.running` goes through the split in blocks with the running statistics; `EvalMode.batch` takes the
    statistics of the whole split, which therefore is one batch.
    """
    batch_stats = mode is EvalMode.batch
    rows = len(split.x) if batch_stats else ROWS
    with torch.inference_mode():
        total = 0.0
        for at in range(0, len(split.x), rows):
            total += _summed(
                recipe.logits(split.x[at : at + rows], params, buffers, batch_stats), split.y[at : at + rows]
            )
    return total / len(split.x)


def _summed(logits: Tensor, y: Tensor) -> float:
    return functional.cross_entropy(logits, y, reduction="sum").item()
