"""Drawing names from a trained model."""

import torch
from torch import Generator

from codegen.train.data import Vocabulary
from codegen.train.recipe import Recipe, RowKind, Tensors
from engine.errors import CheckpointError, TrainingError

LONGEST = 64  # characters; a name that has not ended by then is cut


def sample_names(
    recipe: Recipe, params: Tensors, buffers: Tensors, vocabulary: Vocabulary, count: int, generator: Generator
) -> list[str]:
    """`count` names, one character at a time from the model's distribution, with the running statistics.

    The first k names are the same for every count >= k. Raises TrainingError when the model's scores are not finite,
    CheckpointError for a model of something else than names.
    """
    if recipe.logits is None or not vocabulary.symbols:
        raise CheckpointError(f"the model {recipe.name} does not make names: there is nothing to sample from it.")
    with torch.inference_mode():
        return [_sample_name(recipe, params, buffers, vocabulary, generator) for _ in range(count)]


def _sample_name(
    recipe: Recipe, params: Tensors, buffers: Tensors, vocabulary: Vocabulary, generator: Generator
) -> str:
    logits = recipe.logits
    assert logits is not None
    words = recipe.rows is RowKind.words
    window = [vocabulary.end] * (1 if words else recipe.context)
    name = ""
    while len(name) < (recipe.context if words else LONGEST):
        scores = logits(torch.tensor([window]), params, buffers, False)
        if not scores.isfinite().all():
            raise TrainingError(
                f"cannot sample: the model {recipe.name} gives scores that are not finite. Train it with a lower --lr."
            )
        drawn = int(torch.multinomial(scores.softmax(dim=-1), 1, generator=generator).item())
        if drawn == vocabulary.end:
            break
        name += vocabulary.symbols[drawn]
        window = [*window, drawn] if words else [*window[1:], drawn]
    return name
