"""What `codegen train` does: announce, train, conclude."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from torch import Generator

from codegen.cli.progress import TrainingReport, say
from codegen.targets import load_target
from codegen.train.curve import check_curve_path, save_curve
from codegen.train.evaluate import means
from codegen.train.folder import RunFolder, default_folder
from codegen.train.interrupt import Interrupt
from codegen.train.loop import run
from codegen.train.recipe import RowKind
from codegen.train.sample import sample_names
from codegen.train.session import open_training
from codegen.train.threads import fitting_threads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from codegen.train.state import Training
    from codegen.train.team import Team


@dataclass(frozen=True)
class TrainingRequest:
    """The command's arguments. `settings` are those named explicitly."""

    target: str
    settings: Mapping[str, Any]
    data: Path | None
    out: Path | None
    curve: Path | None
    samples: int
    resume: bool
    overwrite: bool


def run_training(request: TrainingRequest, team: Team | None = None) -> None:
    """Train as asked, printing to stdout. Raises the package's errors, and typer.Exit(130) after Ctrl-C, 143 after SIGTERM.

    In a team every process comes here; the first holds the folder, prints and saves.
    """
    target = load_target(request.target)
    if request.curve is not None:
        check_curve_path(request.curve)
    folder = RunFolder(request.out or default_folder(target.name, request.resume))
    first = team is None or team.first
    console = Console(soft_wrap=True, quiet=not first)
    with folder.lock() if first else contextlib.nullcontext():
        training = open_training(
            target, request.settings, request.data, folder, request.resume, request.overwrite, team
        )
        if team is not None:
            team.wait()  # everybody has seen the folder as it was
        _announce(console, training, request.resume)
        with fitting_threads(training) as threads:
            stopped = _run(console, training, folder, team, threads)
        if stopped is not None:
            if team is None:  # whoever started a team says so
                say(console, f"Interrupted. {folder.describe()}")
                say(console, f"Continue with: codegen train {request.target} --out {folder.path} --resume")
            raise typer.Exit(stopped)
        if first:
            _conclude(console, training, folder, request.curve, request.samples)


def _announce(console: Console, training: Training, resume: bool) -> None:
    data, settings = training.dataset, training.settings
    sizes = " / ".join(f"{len(part.x):,}" for part in (data.train, data.val, data.test))
    say(console, f"data {data.text}, split {sizes}")
    count = sum(p.numel() for p in training.trainer.params.values())
    say(
        console,
        f"model {training.recipe.name}: {count:,} parameters, {settings.dtype}, backward {settings.backward}, "
        f"batch {settings.batch}, lr {settings.lr:g} then {settings.lr / 10:g}, {settings.steps:,} steps",
    )
    if training.step:
        say(console, f"resumed at step {training.step:,}")
    elif resume:
        say(console, "no checkpoint to resume: starting at step 0")


def _run(console: Console, training: Training, folder: RunFolder, team: Team | None, threads: int) -> int | None:
    """Train; the exit code if Ctrl-C or SIGTERM came before the last step."""
    lockstep = training.twin is not None
    stop = Interrupt(patient=team is not None)
    report = TrainingReport(console, training.settings.steps, training.step, lockstep)
    try:
        with stop, report:
            outcome = run(training, folder, report, stop, team)
    except KeyboardInterrupt:
        return stop.code
    if outcome.steps_taken:
        rate = outcome.steps_taken / outcome.seconds
        shared = "one thread" if threads == 1 else f"{threads} threads"
        say(
            console,
            f"{outcome.steps_taken:,} steps in {outcome.seconds:.1f} s ({rate:,.0f} a second) by {training.trainer.path}, {shared}",
        )
    return stop.code if outcome.interrupted else None


def _conclude(console: Console, training: Training, folder: RunFolder, curve: Path | None, samples: int) -> None:
    """The differences of a run in lockstep, the curve, the samples, and the final validation loss."""
    trainer, settings = training.trainer, training.settings
    if training.twin is not None:
        largest, name = training.parameter_difference()
        say(console, f"generated against autograd over {training.step:,} steps:")
        say(console, f"  largest difference of losses      {training.difference:.2e}")
        say(console, f"  largest difference of parameters  {largest:.2e} ({name})")
    if curve is not None:
        save_curve(curve, training.all_losses(), training.rows)
        say(console, f"loss curve: {curve}")
    if samples and training.recipe.logits is not None and training.dataset.vocabulary.symbols:
        generator = Generator().manual_seed(settings.seed)
        names = sample_names(
            training.recipe, trainer.params, trainer.buffers, training.dataset.vocabulary, samples, generator
        )
        say(console, f"samples: {', '.join(names)}")
    say(console, f"checkpoint: {folder.checkpoint_path}")
    val = training.dataset.val
    found = means(training.recipe, val, trainer.params, trainer.buffers, settings.eval)
    kind = "pairs" if training.recipe.data is None and training.recipe.rows is RowKind.characters else "rows"
    by = f" ({settings.eval} statistics)" if trainer.buffers else ""
    for name, value in found.items():
        say(console, f"final validation {name} {value:.4f} over {len(val.x):,} {kind}{by}")
