"""What a training run shows: a progress bar on a terminal, plain lines anywhere else."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # importing it would import torch, which `--help` does not need
    from codegen.train.metrics import Row


class TrainingReport:
    """Prints log lines above a progress bar. `lockstep` adds the difference of losses to each line."""

    def __init__(self, console: Console, steps: int, done: int, lockstep: bool) -> None:
        self._console = console
        self._width = len(f"{steps:,}")
        self._lockstep = lockstep
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("step", total=steps, completed=done, loss="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def progress(self, step: int, loss: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, loss=f"{loss:.3f}")

    def row(self, row: "Row", difference: float) -> None:
        """Print a log line."""
        line = f"step {row.step:>{self._width},}  train loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}"
        if self._lockstep:
            line += f"  largest loss difference so far {difference:.1e}"
        say(self._console, line)


def say(console: Console, line: str) -> None:
    """One line, as it is: never wrapped, never read as markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
