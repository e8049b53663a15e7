"""Floats in front of a size: `1.0 / n` holds for every n, wherever the float was written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codegen import generate
from engine import trace
from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 0.25


def literal(x: Tensor) -> Tensor:
    return x.sum(0) * (1.0 / x.shape[0])


def added(x: Tensor) -> Tensor:
    return 0.85 * x.tanh() + (1 - 0.85) / len(x)


def subtracted(x: Tensor) -> Tensor:
    return x.exp() * (1.5 - x.shape[0]) + 2.0 ** -len(x)


def computed(x: Tensor) -> Tensor:
    scale = 2 * (0.3 + 0.1) ** 0.5
    return x.tanh() * (-scale / x.numel())


def default(x: Tensor, share: float = 0.1, *, other: float = 0.7) -> Tensor:
    return x.tanh() * (share / len(x)) + other / len(x)


def of_math(x: Tensor) -> Tensor:
    return x.sin() * (math.pi / len(x)) + math.sqrt(2.0) / len(x)


def global_float(x: Tensor) -> Tensor:
    return x.sin() * (SHARE / len(x))


def called(x: Tensor) -> Tensor:
    return literal(x) + (lambda n: 0.5 / n)(len(x))


def closed_over() -> Callable[[Tensor], Tensor]:
    share = 0.35
    return lambda x: x.cos() * (share / x.shape[0])


class Scaled(nn.Module):
    """A number of its own in front of a size."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.3

    def forward(self, x: Tensor) -> Tensor:
        """A share of the sum."""
        return x.sum(0) * self.scale(x)

    def scale(self, x: Tensor) -> Any:
        """What it is multiplied by."""
        return self.share / x.shape[0]


def logarithm(x: Tensor) -> Tensor:
    return x.sin() * math.log2(len(x)) + math.log10(x.shape[0] * 0.5)


FORWARDS = [
    logarithm,
    literal,
    added,
    subtracted,
    computed,
    default,
    of_math,
    global_float,
    called,
    closed_over(),
    Scaled(),
]


def draw(n: int) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_floats_in_front_of_sizes_hold_for_all_sizes(forward: Callable[[Tensor], Tensor]) -> None:
    program = generate(forward, draw(24))
    for n in (2, 5, 24):
        x = draw(n).requires_grad_()
        expected = forward(x)
        out, grads = program.value_and_grad(x.detach())
        (dx,) = torch.autograd.grad(expected.sum(), x)
        assert torch.allclose(out, expected)
        assert torch.allclose(grads["x"], dx)


def test_a_number_that_is_given_is_a_float_in_front_of_a_size_too() -> None:
    def forward(x: Tensor, share: float) -> Tensor:
        return x.tanh() * (share / len(x))

    graph = trace(forward, draw(24), 0.15)
    assert "0.00625" not in repr(graph)


def test_a_comparison_with_a_float_fixes_the_size() -> None:
    def forward(x: Tensor) -> Tensor:
        limit = 4.5
        return x.tanh() if limit < len(x) else x

    program = generate(forward, draw(24))
    with pytest.raises(InputError, match="fixed"):
        program.forward(draw(3))


def root(x: Tensor) -> Tensor:
    return x * math.pow(0.5 * len(x), 0.5)


def turned(x: Tensor) -> Tensor:
    return x * math.cos(math.pi / len(x))


def squashed(x: Tensor) -> Tensor:
    return x * math.tanh(0.1 * x.shape[0])


@pytest.mark.parametrize("forward", [root, turned, squashed])
def test_what_math_computes_of_a_size_holds_for_that_size(forward: Callable[[Tensor], Tensor]) -> None:
    program = generate(forward, draw(24))
    assert torch.allclose(program.forward(draw(24))[0], forward(draw(24)))
    with pytest.raises(InputError, match="fixed"):
        program.forward(draw(3))


def test_afterwards_all_is_as_it_was() -> None:
    module = Scaled()
    code, pi, sqrt = default.__code__, math.pi, math.sqrt
    for forward in (default, of_math, global_float, module):
        trace(forward, draw(24))
    assert default.__code__ is code
    assert math.pi is pi
    assert math.sqrt is sqrt
    assert [type(v) for v in (SHARE, module.share, *(default.__defaults__ or ()))] == [float, float, float]
    assert type((default.__kwdefaults__ or {})["other"]) is float


class Counted(nn.Module):
    """A number that the forward itself changes."""

    def __init__(self) -> None:
        super().__init__()
        self.average = 4.0
        self.share = 0.5

    def forward(self, x: Tensor) -> Tensor:
        """A share of the sum."""
        self.average = 0.5 * self.average + 1.5
        return x.sum(0) * (self.share / x.shape[0])


def test_what_the_forward_changes_stays_changed() -> None:
    module = Counted()
    trace(module, draw(24))
    assert module.average == 3.5
    assert [type(v) for v in (module.average, module.share)] == [float, float]


@pytest.mark.parametrize("file", ["<stdin>", "<string>", "<ipython-input-1-ab>"])
def test_floats_of_what_was_typed_at_a_prompt(file: str) -> None:
    space: dict[str, Any] = {}
    exec(compile("def forward(x):\n    h = x.tanh() * (0.5 / len(x))\n    return h.sum()\n", file, "exec"), space)
    program = generate(space["forward"], torch.ones(4, 3), mode="steps")
    assert program.graph["h"].source is not None
    torch.testing.assert_close(program.forward(torch.ones(9, 3))[0], space["forward"](torch.ones(9, 3)))


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_numbers_of_numpys_are_written_as_pythons(mode: str) -> None:
    def forward(x: Tensor) -> Tensor:
        return (x / np.sqrt(2.0)).sum(np.int64(0)) * np.float32(0.5)

    x = torch.randn(4, 3, dtype=torch.float64)
    program = generate(forward, x, mode=mode)
    torch.testing.assert_close(program.forward(x)[0], forward(x))
