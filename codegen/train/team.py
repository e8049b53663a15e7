"""Processes that train one model together: each takes its share of every batch, and gradients are averaged in one flat bucket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor
from torch import distributed as _distributed

from codegen.train.trainer import StepTrainer
from engine.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.train.backward import Backward
    from codegen.train.recipe import Tensors


dist = cast("Any", _distributed)  # parts of it have no types


@dataclass(frozen=True)
class Team:
    """This process among those that train together. A process alone is a team of one, and exchanges nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process evaluates, prints and saves."""
        return self.rank == 0

    def agree(self, chunk: int, stop: bool) -> tuple[int, bool]:
        """How many steps everybody takes next: the fewest that anybody proposes; and whether anybody was asked to stop."""
        if self.size == 1:
            return chunk, stop
        proposals = torch.tensor([-chunk, int(stop)])
        dist.all_reduce(proposals, dist.ReduceOp.MAX)
        return -int(proposals[0]), bool(proposals[1])

    def average(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of every tensor over the team, by one exchange of all of them in a row."""
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [t.numel() for t in tensors])
        return [p.view(t.shape) for p, t in zip(parts, tensors, strict=True)]

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            dist.barrier()

    def share(self, batch: int) -> int:
        """Rows of a batch for each process. Raises TrainingError where they cannot be equal."""
        if batch % self.size:
            raise TrainingError(
                f"a batch of {batch} cannot be shared equally by {self.size} processes. Give a --batch that is a multiple "
                f"of --nproc."
            )
        return batch // self.size


def joined_team() -> Team:
    """The team that torchrun started this process for."""
    dist.init_process_group("gloo")
    return Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


class TeamTrainer(StepTrainer):
    """A `StepTrainer` whose every step is taken by a team.

    All draw the same rows and each takes its own run of them. Loss and gradients are means over the team: those of the
    whole batch, where the loss is a mean over rows that do not influence one another. Statistics of a batch are those of
    a process's own rows, as under DistributedDataParallel.
    """

    def __init__(
        self,
        team: Team,
        backward: Backward,
        params: Tensors,
        buffers: Tensors,
        update_buffers: Callable[[Tensors, object], None],
        batch: int,
    ) -> None:
        super().__init__(backward, params, buffers, update_buffers, batch)
        self._team = team
        self._share = team.share(batch)

    def rows(self, count: int, generator: Generator) -> Tensor:
        """This process's rows of the batch."""
        drawn = super().rows(count, generator)
        return drawn[self._team.rank * self._share :][: self._share]

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
        """Means over the team."""
        loss, grads, saved = super().gradients(x, y)
        loss, *found = self._team.average([loss, *[grads[name] for name in self.params]])
        return loss, dict(zip(self.params, found, strict=True)), saved
