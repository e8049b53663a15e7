"""`codegen train --nproc 2`: the parameters of one process, resuming, and what is said when a process ends too early."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from codegen.train.checkpoint import Checkpoint, read_checkpoint

Command = Callable[..., Any]
SECONDS = 120
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, names: Path) -> Callable[..., tuple[Checkpoint, str]]:
    """Train some steps in float64 in a process of its own; the checkpoint and what was printed."""

    def training(out: str, *arguments: object, code: int = 0) -> tuple[Checkpoint, str]:
        done = subprocess.run(
            [*start(tmp_path / out), *map(str, arguments)], cwd=tmp_path, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return read_checkpoint(tmp_path / out), done.stdout

    return training


def start(out: Path) -> list[str]:
    main = "import sys; from codegen.cli import main; sys.argv = ['codegen', *sys.argv[1:]]; main()"
    return [sys.executable, "-c", main, "train", "--dtype", "float64", "--samples", "0", "--out", str(out)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}


def close(a: Checkpoint, b: Checkpoint, group: str = "params") -> None:
    torch.testing.assert_close(a.group(group), b.group(group), rtol=1e-9, atol=1e-12)


def test_two_processes_are_one_and_go_on_where_they_stopped(run: Callable[..., Any]) -> None:
    first, then = ("moons", "--steps", 20, "--log-every", 10), ("moons", "--steps", 30, "--resume")
    run("alone", *first)
    alone, _ = run("alone", *then)
    _, began = run("two", *first, "--nproc", 2)
    two, resumed = run("two", *then, "--nproc", 2)
    close(two, alone)
    torch.testing.assert_close(two.tensors["losses"], alone.tensors["losses"], rtol=1e-9, atol=1e-12)
    assert torch.equal(two.tensors["generator"], alone.tensors["generator"])
    assert began.count("step 10 ") == began.count("final validation accuracy") == 1
    assert "resumed at step 20" in resumed


def test_with_statistics_of_a_batch_the_emitted_code_is_autograd(run: Callable[..., Any], names: Path) -> None:
    given = ("mlp", "--steps", 12, "--data", names, "--nproc", 2, "--backward", "both")
    both, printed = run("both", *given)
    assert "largest difference of losses" in printed
    assert both.tensors["difference"] < 1e-12
    torch.testing.assert_close(both.group("params"), both.group("twin.params"), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(both.group("buffers"), both.group("twin.buffers"), rtol=1e-9, atol=1e-12)


def test_a_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    done = subprocess.run(
        [*start(tmp_path / "odd"), "moons", "--batch", "25", "--nproc", "2"], cwd=tmp_path, env=environment(), text=True,
        capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1].startswith("error: a batch of 25 cannot be shared equally by 2 processes.")
    )
    assert not (tmp_path / "odd" / "checkpoint.json").exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes without end, that has saved its first checkpoints."""
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*start(out), "moons", "--steps", "10000000", "--log-every", "50", "--nproc", "2"], cwd=tmp_path,
        env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until = time.monotonic() + SECONDS
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()


def worker(parent: int, rank: int) -> int:
    """The process of a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat[1]) == parent and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_all_and_is_named(running: subprocess.Popen[str], tmp_path: Path, rank: int) -> None:
    other = worker(running.pid, 1 - rank)
    os.kill(worker(running.pid, rank), signal.SIGKILL)
    printed, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 2
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert f"process {rank + 1} of 2 died by SIGKILL, and training stopped. The checkpoint of step" in line
    assert not Path(f"/proc/{other}").exists()
    assert read_checkpoint(tmp_path / "run").step % 50 == 0


def test_ctrl_c_saves_and_says_how_to_go_on(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    step = read_checkpoint(tmp_path / "run").step
    assert f"Interrupted. The checkpoint of step {step:,} is whole" in printed
    assert "Continue with: codegen train moons" in printed
