"""DistributedDataParallel in two processes: the emitted module trains as the original does, and as one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.ecosystem import ddp

ROOT = Path(__file__).parents[2]
SECONDS = 240


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """The state of every model after training, in either process."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ecosystem.ddp", str(rank), str(folder)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            printed, _ = worker.communicate(timeout=SECONDS)
            assert worker.returncode == 0, printed
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()  # waits, and closes its pipe
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_without_statistics_two_processes_are_one_with_the_joined_batch(
    states: list[dict[str, dict[str, Tensor]]],
) -> None:
    alone = ddp.train(ddp.models()["plain emitted"], slice(None))
    for rank in range(2):
        close(states[rank]["plain emitted"], alone)
        close(states[rank]["plain"], alone)


def test_with_statistics_they_are_those_of_autograd(states: list[dict[str, dict[str, Tensor]]]) -> None:
    for rank in range(2):
        close(states[rank]["norm emitted"], states[rank]["norm"])
    parameters = ("fc1.weight", "bn.weight", "fc2.weight")
    for name in parameters:
        assert torch.equal(states[0]["norm emitted"][name], states[1]["norm emitted"][name])
    alone = ddp.train(ddp.models()["norm emitted"], slice(None))
    assert not torch.allclose(alone["fc1.weight"], states[0]["norm emitted"]["fc1.weight"], rtol=1e-6)
