"""Names of a forward that mean something in the emitted file, and graphs that are large: both modes still agree with autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from codegen import generate
from tests.codegen.compare import assert_matches
from tests.codegen.random_forwards import RandomForward

NAMES = (
    "torch", "saved", "grad_out", "forward", "backward", "Function", "Saved", "Tensor", "NamedTuple", "len", "range", "float", "dx", "n0",
    "größe", "变量", "__x__", "_", "self", "ctx", "out", "grads", "print", "d", "None_", "n1", "annotations", "math", "exec", "function",
)  # fmt: skip


def as_local(name: str) -> str:
    """The name for a tensor inside of the forward; what the forward itself needs keeps its meaning there."""
    return f"def forward(x, w):\n    h = x @ w\n    {name} = h.sigmoid()\n    y = {name} * h\n    return y.log_softmax(1).mean()\n"


def as_input(name: str) -> str:
    """The name for an input."""
    return f"def forward({name}, w):\n    h = {name} @ w\n    return (h * h.sigmoid()).log_softmax(1).sum(0)\n"


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("make", [as_local, as_input])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_gives_the_same_gradients(name: str, make: Callable[[str], str], mode: str) -> None:
    function = RandomForward(make(name), ()).function()
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=generator, dtype=torch.float64) for s in [(5, 3), (3, 4)])
    assert_matches(generate(function, x, w, mode=mode), function, (x, w))


def test_a_tensor_that_is_read_a_thousand_times() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(1000):
            x = x * w
        return x.sum()

    inputs: tuple[Any, ...] = (torch.randn(3, dtype=torch.float64), torch.full((3,), 0.999, dtype=torch.float64))
    assert_matches(generate(forward, *inputs, mode="steps"), forward, inputs)
