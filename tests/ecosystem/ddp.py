"""One of two processes: trains under DistributedDataParallel and writes what became of the state.

python -m tests.ecosystem.ddp RANK FOLDER
"""

import gc
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import codegen
from tests.ecosystem.models import WithBatchNorm

STEPS, ROWS = 6, 8


class Plain(nn.Module):
    """No statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.fc2(F.gelu(self.norm(self.fc1(x)))), y)


def models() -> dict[str, nn.Module]:
    """Originals and emitted ones in the same state."""
    torch.manual_seed(0)
    found: dict[str, nn.Module] = {}
    x, y = batch(0)
    for name, original in (("plain", Plain().double()), ("norm", WithBatchNorm().double())):
        found[name] = original
        found[f"{name} emitted"] = codegen.generate(original, x, y).module.Module(**original.state_dict())
    return found


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The rows of both processes."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(2 * ROWS, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (2 * ROWS,), generator=generator)


def train(model: nn.Module, rows: slice) -> dict[str, Tensor]:
    """Some steps of gradient descent on these rows of every batch; the state afterwards."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        model(x[rows], y[rows]).backward()
        optimizer.step()
    return {name.removeprefix("module."): t.clone() for name, t in model.state_dict().items()}


def main(rank: int, folder: Path) -> None:
    """Train every model under DistributedDataParallel."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    rows = slice(rank * ROWS, (rank + 1) * ROWS)
    states = {name: train(DistributedDataParallel(m), rows) for name, m in models().items()}
    torch.save(states, folder / f"{rank}.pt")
    gc.collect()  # the reducers stand in cycles and hold the group
    dist.destroy_process_group()
    # Threads of gloo may free the last messages while an interpreter ends, which aborts the process (pytorch#179291): this one just stops.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
