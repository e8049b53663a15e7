"""A size of one in the trace is broadcast, so that the emitted file by itself refuses any other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from codegen import generate
from codegen.program import load

FORWARDS: dict[str, Callable[..., Any]] = {
    "a row": lambda x, y: (x * y).sum(),
    "a mean": lambda x, y: (x - x.mean(0)).square().sum() + y.sum(),
    "a result for each": lambda x, y: (x.view(x.shape[0], -1) * y).exp().sum(1),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_a_batch_of_one(name: str, mode: str) -> None:
    forward = FORWARDS[name]
    x, y = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    emitted = load(generate(forward, x, y, mode=mode).source, "ones")
    torch.testing.assert_close(emitted.forward(x, y)[0], forward(x, y))
    for inputs in ((x.expand(4, 3), y), (x, y.expand(4, 3)), (x.expand(4, 3), y.expand(4, 3))):
        with pytest.raises(ValueError, match=r"the trace had [xy].shape\[0\] = 1"):
            emitted.forward(*inputs)
