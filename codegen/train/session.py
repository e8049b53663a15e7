"""From what the command line was given to a training run: a new one, or the one a folder holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codegen.targets import Target, located
from codegen.train.checkpoint import Checkpoint
from codegen.train.data import Dataset, Vocabulary, bundled_path, load_dataset, made_dataset
from codegen.train.emitted import trainer_makers
from codegen.train.files import exists
from codegen.train.folder import RunFolder
from codegen.train.recipe import Recipe, recipe_of
from codegen.train.settings import Settings, fresh_settings, resumed_settings
from codegen.train.state import Training, check_model, restore, start, torch_dtype
from engine.errors import DataError, TrainingError

if TYPE_CHECKING:
    from codegen.train.team import Team


def open_training(
    target: Target,
    given: Mapping[str, Any],
    data: Path | None,
    folder: RunFolder,
    resume: bool,
    overwrite: bool,
    team: "Team | None" = None,
) -> Training:
    """A run in `folder`, which must be locked. `given` are the settings named explicitly, `data` the file if one was.

    With `resume` the folder's checkpoint goes on, or step 0 begins if it has none yet. A checkpoint is only replaced by
    a new run with `overwrite`. Raises TargetError, DataError, CheckpointError, TrainingError.
    """
    recipe = recipe_of(target)
    if resume and folder.holds_checkpoint():
        return _resumed(target, recipe, given, data, folder, team)
    if folder.holds_checkpoint() and not overwrite:
        raise TrainingError(
            f"{folder.path} already holds a checkpoint. Continue it with --resume, replace it with --overwrite, "
            f"or choose another --out."
        )
    settings = fresh_settings(recipe.defaults, given)
    if recipe.data is not None:
        dataset = _own_data(target, recipe, settings, data)
    else:
        dataset = load_dataset((data or bundled_path()).absolute(), recipe.context, settings.seed, rows=recipe.rows)
    return start(recipe, dataset, settings, *trainer_makers(target, recipe, settings, team))


def _resumed(
    target: Target,
    recipe: Recipe,
    given: Mapping[str, Any],
    data: Path | None,
    folder: RunFolder,
    team: "Team | None",
) -> Training:
    checkpoint = folder.read()
    where = str(folder.checkpoint_path)
    check_model(checkpoint, recipe, where)
    settings = resumed_settings(checkpoint.settings, given, where)
    if settings.steps < checkpoint.step:
        raise TrainingError(
            f"{where} is at step {checkpoint.step:,}, beyond --steps {settings.steps:,}. Give more, or leave it out."
        )
    dataset = _same_data(target, checkpoint, recipe, settings, data, where)
    return restore(checkpoint, recipe, dataset, settings, *trainer_makers(target, recipe, settings, team), where)


def _own_data(target: Target, recipe: Recipe, settings: Settings, data: Path | None) -> Dataset:
    """What the recipe itself makes. Raises DataError where a file was named for it."""
    if data is not None:
        raise DataError(f"{recipe.name} makes its own data and takes none from {data}. Leave --data out.")
    with located(target, "the data"):
        return made_dataset(recipe, settings.seed, torch_dtype(settings), target.path or Path(recipe.name))


def _same_data(
    target: Target, checkpoint: Checkpoint, recipe: Recipe, settings: Settings, data: Path | None, where: str
) -> Dataset:
    """The data a checkpoint was trained on, from the file given or else the one it remembers."""
    if recipe.data is not None:
        dataset = _own_data(target, recipe, settings, data)
        if dataset.digest != checkpoint.data_digest:
            raise DataError(
                f"{recipe.name} makes other data than {where} was trained on, and resuming must repeat them exactly. "
                f"Train anew in another --out."
            )
        return dataset
    path = data.absolute() if data else Path(checkpoint.data_path)
    if not data and not exists(path) and path.name == bundled_path().name:
        path = bundled_path()  # the bundled list of another installation
    dataset = load_dataset(path, recipe.context, settings.seed, Vocabulary(checkpoint.vocabulary.symbols), recipe.rows)
    if dataset.digest != checkpoint.data_digest:
        raise DataError(
            f"{path} is not the data {where} was trained on (SHA-256 differs), and resuming must repeat it exactly. "
            f"Give that file with --data, or train anew in another --out."
        )
    return dataset
