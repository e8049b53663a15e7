"""The outer loop: log lines, checkpoints, stopping. How steps are taken is the trainer's business."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from codegen.train.folder import RunFolder
from codegen.train.metrics import Row
from codegen.train.settings import Settings
from codegen.train.state import Training
from codegen.train.trainer import NonFiniteLossError
from engine.errors import TrainingError

if TYPE_CHECKING:  # importing it would import torch.distributed, which a process alone does not need
    from codegen.train.team import Team

QUICK = 0.05  # seconds: how long the steps between two looks at the clock and at Ctrl-C should take, at most twice that
MOST = 512


class Report(Protocol):
    """What wants to be told about a run."""

    def progress(self, step: int, loss: float) -> None:
        """After a few steps: how many in all, and the last one's loss."""
        ...

    def row(self, row: Row, difference: float) -> None:
        """At a log line; in lockstep with the largest difference of losses so far."""
        ...


class Stop(Protocol):
    """Says whether somebody asked for an end."""

    @property
    def requested(self) -> bool:
        """True from then on."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after all its steps, or at a request."""

    interrupted: bool
    steps_taken: int
    seconds: float


def run(training: Training, folder: RunFolder, report: Report, stop: Stop, team: "Team | None" = None) -> Outcome:
    """Train to the settings' last step, saving at every log line, at the end, and at a requested stop.

    Of a team, the first process evaluates and saves; all take the same steps.

    Raises TrainingError when the loss stops being finite (at which step, and what went bad first) or the folder cannot
    be written; the checkpoint before that is intact, and the message says where.
    """
    settings, first, began = training.settings, training.step, time.perf_counter()
    chunk, stopped = 1, False
    first_of_all = team is None or team.first

    def save() -> None:
        if first_of_all:
            folder.save(training.checkpoint(), training.rows)

    def note() -> None:
        if first_of_all:
            report.row(training.evaluate(), training.difference)
        save()

    save()
    while training.step < settings.steps:
        chunk, stopped = team.agree(chunk, stop.requested) if team else (chunk, stop.requested)
        if stopped:
            break
        steps = min(chunk, steps_to_boundary(training.step, settings))
        started = time.perf_counter()
        try:
            loss = training.advance(steps)
        except NonFiniteLossError as error:
            raise TrainingError(
                f"the loss became {error.loss} in step {training.step + error.offset + 1:,}, and training stopped. "
                f"The first value that is not finite is {error.culprit}. {folder.describe()} "
                f"A lower --lr or a larger --batch usually helps."
            ) from error
        chunk = next_chunk(chunk, time.perf_counter() - started)
        report.progress(training.step, loss)
        if training.step % settings.log_every == 0 and training.step < settings.steps:
            note()
    if training.step == settings.steps and (not training.rows or training.rows[-1].step < training.step):
        note()
    if folder.saved_step != training.step:
        save()
    return Outcome(training.step < settings.steps, training.step - first, time.perf_counter() - began)


def steps_to_boundary(step: int, settings: Settings) -> int:
    """Steps until the next log line, the change of the learning rate, or the end."""
    boundaries = [step + settings.log_every - step % settings.log_every, settings.steps]
    if step < settings.steps // 2:
        boundaries.append(settings.steps // 2)
    return min(boundaries) - step


def next_chunk(chunk: int, seconds: float) -> int:
    """Twice as many steps while they are quick, half as many when they are slow. Results do not depend on it."""
    if seconds > 2 * QUICK:
        return max(1, chunk // 2)
    return min(MOST, chunk * 2) if seconds < QUICK else chunk
