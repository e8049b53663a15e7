"""Training under fault: the last checkpoint is always whole, and resuming gives the run that was not disturbed."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codegen.train.checkpoint import read_checkpoint, write_checkpoint
from codegen.train.files import FolderLock, write_atomically
from codegen.train.folder import default_folder
from engine.errors import TrainingError

Command = Callable[..., Any]

# Forks runs of `codegen train` that are killed: at a time after training began, or at the n-th call that writes to
# the disk. torch is imported once, in the parent. Then one run that is left alone. Prints how each run ended.
KILLER = """
import os, signal, sys
import codegen.cli.training
from codegen.cli import main
from codegen.train import loop, state

def child(kill):
    if os.fork() == 0:
        kill()
        sys.stdout = open(os.devnull, "w")
        main()
        os._exit(0)
    _, status = os.wait()
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None

def at_time(seconds):
    original = loop.run
    def run(*args):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return original(*args)
    codegen.cli.training.run = run

def at_call(number):
    count = 0
    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink")):
        def dying(*args, original=getattr(module, name), **kw):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kw)
        setattr(module, name, dying)

mode, values, sys.argv = sys.argv[1], sys.argv[2].split(","), ["codegen", *sys.argv[3:]]
for value in values:
    killed = child((lambda: at_time(float(value))) if mode == "time" else (lambda: at_call(int(value))))
    print("killed" if killed else "ended", flush=True)
child(lambda: None)
"""


def killed(mode: str, values: list[Any], *args: object) -> list[str]:
    """Run KILLER; how each run with a kill ended."""
    command = [sys.executable, "-c", KILLER, mode, ",".join(map(str, values)), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.split()


def same_run(a: Path, b: Path) -> None:
    first, second = read_checkpoint(a), read_checkpoint(b)
    assert first.step == second.step
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


OPTIONS = ("--steps", 240, "--log-every", 20, "--backward", "autograd", "--samples", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_time(train: Command, names: Path, tmp_path: Path, seed: int) -> None:
    train(*OPTIONS, "--out", tmp_path / "whole")
    generator = torch.Generator().manual_seed(seed)
    times = [f"{0.002 + 0.12 * t:.4f}" for t in torch.rand(12, generator=generator).tolist()]
    args = ("train", "mlp", *OPTIONS, "--data", names, "--out", tmp_path / "killed", "--resume")
    assert killed("time", times, *args).count("killed") >= 1
    same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
def test_killed_at_every_write(train: Command, names: Path, tmp_path: Path) -> None:
    """The n-th run dies at its n-th write to the disk; together the kills meet every point of writing a checkpoint."""
    train(*OPTIONS, "--out", tmp_path / "whole")
    args = ("train", "mlp", *OPTIONS, "--data", names, "--out", tmp_path / "killed", "--resume")
    assert killed("call", list(range(1, 22)), *args).count("killed") >= 12
    same_run(tmp_path / "whole", tmp_path / "killed")
    assert list((tmp_path / "killed").glob("*.tmp")) == []
    assert len(list((tmp_path / "killed").glob("*.safetensors"))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to a process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(names: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from codegen.cli import main; main()", "train", "--steps", "10000000"]
    command += ["--data", str(names), "--out", str(out), "--log-every", "50", "--backward", "autograd"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes() != b"")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (128 + number, "")
    said = re.search(r"The checkpoint of step ([\d,]+) is whole: (.*)\.\n", stdout)
    assert said is not None
    assert said[2] == str(out / "checkpoint.json")
    assert read_checkpoint(out).step == int(said[1].replace(",", "")) >= 50


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_disk_full(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of a run fails in turn; each time the checkpoint is the one before."""
    train("--out", tmp_path / "whole", "--backward", "autograd")
    run, fsync = tmp_path / "run", os.fsync
    saved = -1
    for failing in range(1, 60):
        calls = 0

        def full(descriptor: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            result = train("--resume")
        if calls < failing:
            break
        assert result.code == 2
        assert "No space left on device" in result.err
        assert list(run.glob("*.tmp")) == []
        if (run / "checkpoint.json").exists():
            assert str(run / "checkpoint.json") in result.err
            assert read_checkpoint(run).step >= saved
            saved = read_checkpoint(run).step
    assert result.code == 0
    same_run(tmp_path / "whole", run)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_file_too_large(train: Command, names: Path, tmp_path: Path) -> None:
    """A limit that the operating system enforces: writing stops in the middle of the tensors."""
    train()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    code = (
        "import resource, signal; from codegen.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); main()"
    )
    args = ["train", "--steps", "60", "--data", str(names), "--out", str(tmp_path / "run"), "--resume"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "cannot write the checkpoint of step 40" in done.stderr
    assert f"is intact: {tmp_path / 'run' / 'checkpoint.json'}" in done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_two_runs_in_one_folder(train: Command, tmp_path: Path) -> None:
    train()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with FolderLock(tmp_path / "run"):
        for option in ("--resume", "--overwrite"):
            result = train(option, "--steps", 80)
            assert result.code == 2
            assert f"another run is writing to {tmp_path / 'run'}" in result.err
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    assert train("--resume", "--steps", 80).code == 0


def test_the_next_free_folder_is_one_that_no_run_is_at(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with FolderLock(tmp_path / "runs" / "mlp"):
        assert default_folder("mlp", resume=False) == Path("runs/mlp-2")
    assert default_folder("mlp", resume=False) == Path("runs/mlp")


def test_an_out_that_cannot_be_a_folder(train: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = train("--out", out)
        assert result.code == 2
        assert (
            f"cannot write to {out}: {'it is a file' if out == tmp_path / 'file' else 'Not a directory'}" in result.err
        )
        assert "--out" in result.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_read_only_out(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """As root no folder is read-only, so the operating system's answer is given here."""
    train()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}

    def refuse(*args: object, **kw: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refuse)
    for option in ("--resume", "--overwrite"):
        result = train(option)
        assert result.code == 2
        assert f"cannot write to {tmp_path / 'run'}: {os.strerror(error)}" in result.err
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_a_folder_without_write_permission(train: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    result = train()
    assert result.code == 2
    assert f"cannot write to {folder}: Permission denied" in result.err


@pytest.mark.parametrize("pattern", ["checkpoint.json", "*.safetensors"])
def test_a_truncated_checkpoint_is_refused_and_kept(
    train: Command, command: Command, tmp_path: Path, pattern: str
) -> None:
    train()
    (path,) = (tmp_path / "run").glob(pattern)
    path.write_bytes(path.read_bytes()[:300])
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    for result in (train("--resume"), command("sample", tmp_path / "run"), train()):
        assert result.code == 2
        assert "Traceback" not in result.err
    assert "truncated" in train("--resume").err
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("missing", ["generator", "losses", "rows", "twin.params.w1"])
def test_a_checkpoint_without_a_part(train: Command, stand_in: Command, tmp_path: Path, missing: str) -> None:
    stand_in()
    train("--backward", "both")
    found = read_checkpoint(tmp_path / "run")
    del found.tensors[missing]
    write_checkpoint(tmp_path / "run", found)
    result = train("--resume", "--backward", "both")
    assert result.code == 2
    assert "damaged" in result.err


def test_a_loss_that_is_not_a_number(train: Command, tmp_path: Path) -> None:
    """A batch of one has no variance: the loss is 0/0 from the start."""
    result = train("--batch", 1)
    assert result.code == 2
    assert "the loss became nan in step 1, and training stopped" in result.err
    assert "The first value that is not finite is the node hpreact_bn (nan)" in result.err
    assert f"The checkpoint of step 0 is whole: {tmp_path / 'run' / 'checkpoint.json'}" in result.err
    assert read_checkpoint(tmp_path / "run").step == 0


def test_a_loss_that_explodes_later_keeps_the_last_checkpoint(train: Command, tmp_path: Path) -> None:
    train("--steps", 10, "--lr", 1e4)
    result = train("--steps", 100000, "--lr", 1e4, "--resume")
    step = read_checkpoint(tmp_path / "run").step
    assert result.code == 2
    assert re.search(r"the loss became (nan|inf) in step [\d,]+", result.err)
    assert f"The checkpoint of step {step:,} is whole" in result.err


def test_an_atomic_write_that_fails_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_lock_is_released(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "a" / "b"), pytest.raises(TrainingError), FolderLock(tmp_path / "a" / "b"):
        pass
    with FolderLock(tmp_path / "a" / "b"):
        pass
