"""`codegen sample`: names from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    checkpoint: Annotated[
        Path, typer.Argument(help="The folder that `codegen train --out` wrote, or its checkpoint.json.")
    ],
    count: Annotated[int, typer.Option(min=0, help="How many names.")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same names.")] = 42,
    target: Annotated[
        str | None,
        typer.Option(
            help="The recipe the checkpoint is of, path/to/file.py; a checkpoint of a bundled one needs none."
        ),
    ] = None,
) -> None:
    """Sample names from a trained model, one per line, using its running statistics.

    A checkpoint never executes code: the model's own code comes from the bundled recipes, or from --target.

        codegen sample runs/mlp --count 5 --seed 1
    """
    from codegen.cli.sampling import names_from  # torch, which --help does not need

    for name in names_from(checkpoint, count, seed, target):
        typer.echo(name)
