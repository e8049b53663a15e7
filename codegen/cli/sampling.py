"""What `codegen sample` does."""

from pathlib import Path

from torch import Generator

from codegen.targets import bundled_names, load_target
from codegen.train.checkpoint import read_checkpoint
from codegen.train.recipe import recipe_of
from codegen.train.sample import sample_names
from codegen.train.state import check_model
from engine.errors import CheckpointError


def names_from(checkpoint: Path, count: int, seed: int, target: str | None) -> list[str]:
    """`count` names from a checkpoint of a bundled model, or of the recipe `target`; nothing a checkpoint names is run.

    Raises CheckpointError for one that cannot be read or is of another model.
    """
    loaded = read_checkpoint(checkpoint)
    if target is None and loaded.model not in bundled_names():
        raise CheckpointError(
            f"{checkpoint} is of the model {loaded.model!r}, which is not bundled. "
            f"Name its recipe: --target path/to/file.py."
        )
    recipe = recipe_of(load_target(target or loaded.model))
    check_model(loaded, recipe, str(checkpoint))
    params, buffers, generator = loaded.group("params"), loaded.group("buffers"), Generator().manual_seed(seed)
    return sample_names(recipe, params, buffers, loaded.vocabulary, count, generator)
