"""`codegen train --nproc N`: torchrun's launcher starts N processes, each of which runs `python -m codegen.cli.team`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
import typer
from rich.console import Console
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from codegen.cli.progress import say
from codegen.cli.training import TrainingRequest, run_training
from codegen.targets import load_target
from codegen.train.folder import RunFolder, default_folder
from codegen.train.settings import Settings
from codegen.train.team import joined_team
from engine.errors import CheckpointError, SymgradError, TrainingError

ERRORS = "SYMGRAD_ERRORS"  # the folder where a process says why it ends
SECONDS = 5.0  # in which the first process has said it too
ERROR = 2


def run_team(request: TrainingRequest, size: int) -> None:
    """Train with `size` processes on this machine. Raises the package's errors, and typer.Exit(130) after Ctrl-C, 143 after SIGTERM."""
    path = request.out or default_folder(load_target(request.target).name, request.resume)
    request = replace(request, out=path.resolve())
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    here = str(Path(__file__).parents[2])  # whoever is started imports this very package
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=size, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        local_addr="localhost", max_restarts=0, run_id=f"symgrad-{os.getpid()}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as errors:
        os.environ[ERRORS] = errors
        try:
            launch: Any = elastic_launch(config, sys.executable)
            launch("-m", "codegen.cli.team", packed(request))
        except SignalException as error:
            say(Console(soft_wrap=True), f"Interrupted. {described(path)}")
            say(Console(soft_wrap=True), f"Continue with: codegen train {request.target} --out {path} --resume")
            raise typer.Exit(128 + error.sigval) from error
        except ChildFailedError as error:
            raise TrainingError(reason(error, Path(errors), size, path)) from error


def reason(error: ChildFailedError, errors: Path, size: int, path: Path) -> str:
    """Why a team ended: what its first process said, or which one died of what."""
    said = sorted(errors.iterdir())
    if said:
        return said[0].read_text(encoding="utf-8")
    rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
    code = failure.exitcode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return (
        f"process {rank + 1} of {size} died {how}, and training stopped. {described(path)} "
        f"Continue with the same command and --resume."
    )


def described(path: Path) -> str:
    """Which checkpoint is there."""
    folder = RunFolder(path)
    try:
        folder.read()
    except CheckpointError:
        return "No checkpoint has been written."
    return folder.describe()


def packed(request: TrainingRequest) -> str:
    """A request as text."""
    fields = {k: str(v) if isinstance(v, Path) else v for k, v in vars(request).items()}
    return json.dumps(fields | {"settings": {k: str(v) for k, v in request.settings.items()}})


def unpacked(text: str) -> TrainingRequest:
    """The inverse of `packed`."""
    fields = cast("dict[str, Any]", json.loads(text))
    kinds = vars(Settings())
    fields["settings"] = {k: type(kinds[k])(v) for k, v in fields["settings"].items()}
    for name in ("data", "out", "curve"):
        fields[name] = None if fields[name] is None else Path(fields[name])
    return TrainingRequest(**fields)


def work(request: TrainingRequest) -> int:
    """One process's part; its exit code."""
    team = joined_team()
    try:
        run_training(request, team)
    except SymgradError as error:
        if not team.first:
            time.sleep(SECONDS)
        (Path(os.environ[ERRORS]) / f"{team.rank:04}").write_text(str(error), encoding="utf-8")
        return ERROR
    except typer.Exit as end:
        return end.exit_code
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(work(unpacked(sys.argv[1])))
