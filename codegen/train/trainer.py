"""The inner loop: draw a batch, take its gradients, update. Everything around it only sees `Trainer`."""

import contextlib
import math
from collections import abc
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from codegen.train.backward import Backward, first_non_finite
from codegen.train.data import Split
from codegen.train.recipe import Tensors
from engine.errors import TrainingError


class NonFiniteLossError(TrainingError):
    """A loss that is not a number, `offset` steps into a run. `culprit` says what went bad first."""

    def __init__(self, offset: int, loss: float, culprit: str) -> None:
        super().__init__(f"the loss became {loss}; the first value that is not finite is {culprit}.")
        self.offset = offset
        self.loss = loss
        self.culprit = culprit


class Trainer(Protocol):
    """Current parameters and buffers, and a way to take steps: the interface of `program.trainer(...)`."""

    @property
    def params(self) -> Tensors:
        """Current parameters by name, in the forward's order."""
        ...

    @property
    def buffers(self) -> Tensors:
        """Current running statistics by name."""
        ...

    @property
    def path(self) -> str:
        """How steps are taken, in words: by an emitted loop, or one at a time."""
        ...

    def run(self, data: Split, steps: int, lr: float, generator: Generator) -> Tensor:
        """Take `steps` steps of plain gradient descent and return their losses (steps,).

        Each step's rows are `torch.randint(0, len(data.x), (batch,), generator=generator)`, so that a run in pieces is
        the run. Raises NonFiniteLossError.
        """
        ...


class StepTrainer:
    """A `Trainer` that takes one step at a time through a `Backward`. Parameters and buffers are copied."""

    path = "one step at a time"

    def __init__(
        self,
        backward: Backward,
        params: Tensors,
        buffers: Tensors,
        update_buffers: Callable[[Tensors, object], None],
        batch: int,
    ) -> None:
        self._backward = backward
        self._update_buffers = update_buffers
        self._batch = batch
        self.params = {name: value.clone() for name, value in params.items()}
        self.buffers = {name: value.clone() for name, value in buffers.items()}

    def run(self, data: Split, steps: int, lr: float, generator: Generator) -> Tensor:
        """See `Trainer.run`."""
        losses = torch.empty(steps, dtype=torch.float64)
        with torch.no_grad():
            for i in range(steps):
                losses[i] = self._step(i, data, lr, generator)
        return losses

    def rows(self, count: int, generator: Generator) -> Tensor:
        """The rows of a step, of `count`."""
        return torch.randint(0, count, (self._batch,), generator=generator)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
        """Loss, gradients and named values for some rows. Raises TrainingError for a loss of several elements."""
        loss, grads, saved = self._backward.step(self.params, x, y)
        if loss.numel() != 1:
            raise TrainingError(
                f"the forward returned a tensor of shape {tuple(loss.shape)}; a loss to train on has one element."
            )
        return loss, grads, saved

    def _step(self, offset: int, data: Split, lr: float, generator: Generator) -> float:
        rows = self.rows(len(data.x), generator)
        loss, grads, saved = self.gradients(data.x[rows], data.y[rows])
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteLossError(offset, value, first_non_finite(self.params, saved))
        for name, p in self.params.items():
            p.sub_(lr * grads[name])
        self._update_buffers(self.buffers, saved)
        return value


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> abc.Generator[None]:
    """Make `torch.ones(n)` inside of a forward agree with its parameters."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)
