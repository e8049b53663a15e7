"""A run's folder: its lock, its checkpoint, its metrics, and which folder that is when none is named."""

from pathlib import Path

from codegen.train.checkpoint import JSON_NAME, Checkpoint, read_checkpoint, write_checkpoint
from codegen.train.files import FolderLock, exists, in_use, write_atomically
from codegen.train.metrics import Row, metrics_file
from engine.errors import TrainingError

METRICS_NAME = "metrics.jsonl"


class RunFolder:
    """Where a run keeps its checkpoint and metrics. Enter `lock()` before reading or writing through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_step: int | None = None

    @property
    def checkpoint_path(self) -> Path:
        """The JSON."""
        return self.path / JSON_NAME

    def lock(self) -> FolderLock:
        """Exclusive use of the folder, which is made if need be."""
        return FolderLock(self.path)

    def holds_checkpoint(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return self.checkpoint_path.exists()

    def read(self) -> Checkpoint:
        """The folder's checkpoint. Raises CheckpointError."""
        checkpoint = read_checkpoint(self.path)
        self.saved_step = checkpoint.step
        return checkpoint

    def save(self, checkpoint: Checkpoint, rows: list[Row]) -> None:
        """Replace checkpoint and metrics. Raises TrainingError; the previous checkpoint is then intact."""
        write_checkpoint(self.path, checkpoint)
        self.saved_step = checkpoint.step
        try:
            write_atomically(self.path / METRICS_NAME, metrics_file(rows))
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path / METRICS_NAME}: {error.strerror}. {self.describe()} "
                f"Make room, or choose another --out."
            ) from error

    def describe(self) -> str:
        """Where the last whole checkpoint is."""
        if self.saved_step is None:
            return "No checkpoint has been written."
        return f"The checkpoint of step {self.saved_step:,} is whole: {self.checkpoint_path}."


def default_folder(name: str, resume: bool) -> Path:
    """`runs/NAME`, or `runs/NAME-2` and so on: the first without a checkpoint that no run is at; to resume, the last with."""
    taken: Path | None = None
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not exists(path / JSON_NAME) and (resume or not in_use(path)):
            return taken if resume and taken else path
        taken, number = path, number + 1
