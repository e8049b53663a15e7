"""`codegen sample`: names from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    checkpoint: Annotated[Path, typer.Argument(help="The folder that `codegen train --out` wrote, or its checkpoint.json.")],
    count: Annotated[int, typer.Option(min=0, help="How many names.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same names.")] = 42,
    target: Annotated[
        str | None,
        typer.Option(help="The recipe the checkpoint is of, path/to/file.py; a checkpoint of a bundled one needs none."),
    ] = None,
) -> None:
    """Sample names from a trained model, one per line, using its running statistics.

    A checkpoint never executes code: the model's own code comes from the bundled recipes, or from --target.

        codegen sample runs/mlp --count 5 --seed 1
    """
    from torch import Generator

    from codegen.targets import bundled_names, load_target
    from codegen.train.checkpoint import read_checkpoint
    from codegen.train.recipe import recipe_of
    from codegen.train.sample import sample_names
    from codegen.train.state import check_model
    from engine.errors import CheckpointError

    loaded = read_checkpoint(checkpoint)
    if target is None and loaded.model not in bundled_names():
        raise CheckpointError(
            f"{checkpoint} is of the model {loaded.model!r}, which is not a bundled one. Name its recipe: --target path/to/file.py."
        )
    recipe = recipe_of(load_target(target or loaded.model))
    check_model(loaded, recipe, str(checkpoint))
    generator = Generator().manual_seed(seed)
    for name in sample_names(recipe, loaded.group("params"), loaded.group("buffers"), loaded.vocabulary, count, generator):
        typer.echo(name)
