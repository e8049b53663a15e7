"""Trainers for a target: from its emitted code, from autograd over its forward, or both."""

import importlib
from typing import TYPE_CHECKING, Any, cast

from torch import Generator

from codegen.loop.recipe import recipe_trainer
from codegen.targets import Target
from codegen.train.backward import AutogradBackward, Backward, Emitted, GeneratedBackward
from codegen.train.recipe import Recipe, Tensors
from codegen.train.settings import BackwardMode, Settings
from codegen.train.state import MakeTrainer
from codegen.train.trainer import StepTrainer, Trainer
from engine.errors import TargetError

if TYPE_CHECKING:
    from codegen.train.team import Team


def trainer_makers(
    target: Target, recipe: Recipe, settings: Settings, team: "Team | None" = None
) -> tuple[MakeTrainer, MakeTrainer | None]:
    """The trainer of a run and, for `both`, its autograd twin; of a team, step by step, as gradients are exchanged.

    Raises TargetError when emitted code is missing.
    """
    if team is not None:
        return team_makers(target, recipe, settings, team)

    def maker(backward: Backward) -> MakeTrainer:
        def make(params: Tensors, buffers: Tensors) -> Trainer:
            return StepTrainer(backward, params, buffers, recipe.update_buffers, settings.batch)

        return make

    by_autograd = maker(AutogradBackward(recipe.forward))
    if settings.backward is BackwardMode.autograd:
        return by_autograd, None
    steps = emitted_code(target, recipe) if target.bundled else None

    def again(params: Tensors, buffers: Tensors) -> StepTrainer:
        backward = GeneratedBackward(steps or emitted_code(target, recipe))
        return StepTrainer(backward, params, buffers, recipe.update_buffers, settings.batch)

    by_emitted = recipe_trainer(target, recipe, settings.batch, again, settings.compile) or again
    return by_emitted, by_autograd if settings.backward is BackwardMode.both else None


def team_makers(
    target: Target, recipe: Recipe, settings: Settings, team: "Team"
) -> tuple[MakeTrainer, MakeTrainer | None]:
    """Trainers that take every step together with the other processes."""
    from codegen.train.team import TeamTrainer

    def maker(backward: Backward) -> MakeTrainer:
        def make(params: Tensors, buffers: Tensors) -> Trainer:
            return TeamTrainer(team, backward, params, buffers, recipe.update_buffers, settings.batch)

        return make

    by_autograd = maker(AutogradBackward(recipe.forward))
    if settings.backward is BackwardMode.autograd:
        return by_autograd, None
    by_emitted = maker(GeneratedBackward(emitted_code(target, recipe)))
    return by_emitted, by_autograd if settings.backward is BackwardMode.both else None


def emitted_code(target: Target, recipe: Recipe) -> Emitted:
    """The committed `generated/NAME/steps.py` of a bundled target; for any other the code is generated now."""
    if target.bundled:
        name = f"generated.{target.name}.steps"
        try:
            return cast("Emitted", importlib.import_module(name))
        except ModuleNotFoundError as error:
            raise TargetError(f"{name} is not there ({error}). Emit it with `codegen build {target.name}`.") from error
    generate: Any = importlib.import_module("codegen").generate  # here, as whatever trains otherwise needs no sympy
    inputs = recipe.example_inputs(Generator().manual_seed(0))
    return cast("Emitted", generate(recipe.forward, *inputs.values(), mode="steps"))
