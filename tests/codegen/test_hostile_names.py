"""Names of a forward that mean something in the emitted file, and graphs that are large: both modes still agree with autograd."""

import cProfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from codegen import generate
from codegen.helpers import FUNCTIONS
from engine import Value
from engine.naming import RESERVED
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


def test_names_of_what_the_file_brings_along() -> None:
    """The slope of silu is a function in the emitted file, beside tensors that are called as it is."""
    assert {*FUNCTIONS, "followed"} <= RESERVED

    def forward(followed: Tensor, silu_backward: Tensor) -> Tensor:
        mish_backward = followed * followed.sigmoid()
        return (mish_backward * silu_backward).sum()

    inputs = [torch.randn(3, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(2)]
    program = generate(forward, *inputs)
    assert "silu_backward(" in program.source
    leaves = [t.clone().requires_grad_() for t in inputs]
    true = torch.autograd.grad(forward(*leaves), leaves)
    torch.testing.assert_close([*program.value_and_grad(*inputs)[1].values()], [*true])


def test_a_tensor_that_is_read_a_thousand_times() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(1000):
            x = x * w
        return x.sum()

    inputs: tuple[Any, ...] = (torch.randn(3, dtype=torch.float64), torch.full((3,), 0.999, dtype=torch.float64))
    assert_matches(generate(forward, *inputs, mode="steps"), forward, inputs)


def chain(length: int, elementwise: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A forward of `length` equal lines, each reading the input and the line before."""

    def forward(x: Tensor, w: Tensor) -> Tensor:
        h = x
        for _ in range(length):
            h = ((h * w if elementwise else h @ w) + x).tanh()
        return h.sum()

    return forward


@pytest.mark.parametrize(("elementwise", "mode"), [(True, "steps"), (False, "steps"), (False, "closed")])
def test_twice_the_chain_takes_twice_the_calls(elementwise: bool, mode: str) -> None:
    inputs: tuple[Any, ...] = (torch.randn(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64) * 0.3)
    calls: list[int] = []
    for length in (50, 100, 200):  # the first fills what is remembered
        forward = chain(length, elementwise)
        profile = cProfile.Profile()
        with profile:
            program = generate(forward, *inputs, mode=mode)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert_matches(program, forward, inputs)
    assert calls[2] < 2.4 * calls[1]


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_a_long_scalar_expression_becomes_code(mode: str) -> None:
    x, w = Value(0.5), Value(0.3)
    y = x
    for _ in range(200):
        y = (y * w + x).tanh()
    y.backward()
    program = generate(y.trace({"x": x, "w": w}), mode=mode)
    _, saved = program.forward(*(torch.tensor(v, dtype=torch.float64) for v in (0.5, 0.3)))
    grads = program.backward(saved)
    assert float(grads["x"]) == pytest.approx(x.grad, rel=1e-12)
    assert float(grads["w"]) == pytest.approx(w.grad, rel=1e-12)
