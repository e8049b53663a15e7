"""How many threads torch gets for a run: one, where the calls of a step are too small to be shared.

Threads that share a product of some microseconds mostly wait for each other, and on a busy machine for their turn: a step
then takes milliseconds.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from codegen.train.trainer import default_dtype

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from codegen.train.state import Training

SMALL = 10_000_000
"""Multiply-adds that take one core some half of a millisecond."""

ELEMENT = 16
"""Multiply-adds that take as long as one element of anything but a product."""

CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Who has set one of these has chosen."""

PRODUCTS = frozenset(
    {
        "__matmul__",
        "__rmatmul__",
        "matmul",
        "mm",
        "bmm",
        "mv",
        "addmm",
        "addmv",
        "baddbmm",
        "addbmm",
        "linear",
        "einsum",
    }
    | {"tensordot", "conv1d", "conv2d", "conv3d"}
)
"""Names of the calls that contract tensors, each element of the result over many terms."""


@contextlib.contextmanager
def fitting_threads(training: Training) -> Generator[int]:
    """Run with one thread where no call of the forward has the work of `SMALL` multiply-adds, else with torch's own number; gives it.

    The choice depends on the model and the batch alone, never on timing, so that a run can be repeated.
    """
    before = torch.get_num_threads()
    if before > 1 and not any(os.environ.get(name) for name in CHOSEN) and largest_work(training) < SMALL:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def largest_work(training: Training) -> float:
    """The most work of a call in the forward of the first rows, in multiply-adds; infinite if the forward cannot be run."""
    split, count = training.dataset.train, training.settings.batch
    watched, state = Watched(), torch.get_rng_state()
    try:
        with torch.no_grad(), default_dtype(training.dtype), watched:
            training.recipe.forward(split.x[:count], split.y[:count], *training.trainer.params.values())
    except Exception:  # noqa: BLE001  # the first step says what is wrong
        return math.inf
    finally:
        torch.set_rng_state(state)
    return watched.most


class Watched(TorchFunctionMode):
    """Watches calls of torch; `most` is the work of the largest one."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and measure."""
        out = func(*args, **(kwargs or {}))
        if not isinstance(out, Tensor):
            return out
        if getattr(func, "__name__", "") in PRODUCTS:
            self.most = max(self.most, multiply_adds(tensors(args), out))
        elif not out._is_view():  # a view does no work
            self.most = max(self.most, ELEMENT * out.numel())
        return out


def tensors(args: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, those of a list included."""
    flat = [a for v in args for a in (cast("list[Any]", v) if isinstance(v, list) else [v])]
    return [a for a in flat if isinstance(a, Tensor)]


def multiply_adds(read: Sequence[Tensor], out: Tensor) -> float:
    """Those of a contraction of two of the tensors that it reads.

    A product of (n, k) and (k, m) has n k m = sqrt(nk km nm); one with more dimensions in common has fewer.
    """
    sizes = sorted((t.numel() for t in read), reverse=True)[:2]
    return math.sqrt(math.prod(sizes) * out.numel())
