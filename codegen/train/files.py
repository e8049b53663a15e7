"""Files that survive a kill, and a folder that only one run writes to."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import TrainingError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


DAMAGED = "It is truncated or damaged: put back a copy, or train anew with --overwrite or in another --out."


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by its new content, whole or not at all. Raises OSError; the previous file is then as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def exists(path: Path) -> bool:
    """Whether the path exists, as far as this user may see."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where a folder can be opened for that."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class FolderLock:
    """Exclusive use of a folder, released by the operating system however the process ends.

    Entering raises TrainingError when another process has it, or when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> Self:
        path = self._folder / ".lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self._folder}: {_reason(error)}. Choose a writable folder with --out."
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise TrainingError(
                f"another run is writing to {self._folder}. Wait for it, or choose another --out."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def in_use(folder: Path) -> bool:
    """Whether another process has the folder."""
    if not exists(folder / ".lock"):
        return False
    try:
        with FolderLock(folder):
            return False
    except TrainingError:
        return True


def _reason(error: OSError) -> str:
    """Why a folder could not be made or written to; the system's word for a file in its place is "File exists"."""
    return "it is a file" if isinstance(error, FileExistsError) else str(error.strerror)


def _lock(descriptor: int) -> None:
    """Take the lock without waiting; OSError if it is taken."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
