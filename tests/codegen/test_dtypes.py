"""One file serves float32 and float64: a dtype that the forward reads from an input is read from it in emitted code as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from codegen import generate
from tests.codegen.compare import assert_matches

if TYPE_CHECKING:
    from collections.abc import Callable

FORWARDS: dict[str, Callable[..., Any]] = {
    "a mask as numbers": lambda x, y: (x * (y > 0).to(x.dtype)).sum(1) / (y > 0).to(x.dtype).sum(1).clamp(min=1),
    "a penalty on places": lambda x, y: (x + (1 - (y > 0).to(x.dtype)) * -1e9).softmax(1) @ x.T,
    "a constant": lambda x, y: torch.maximum(torch.tensor([0.1, 0.5, 0.9], dtype=x.dtype)[:, None, None] * x, x).mean(),
    "a range": lambda x, y: x * torch.arange(x.shape[1], dtype=x.dtype),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_casts_follow_the_inputs(name: str, mode: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 4, generator=g, dtype=torch.float64), torch.randint(-2, 3, (5, 4), generator=g)
    for traced in (torch.float64, torch.float32):
        program = generate(FORWARDS[name], x.to(traced), y, mode=mode)
        for dtype in (torch.float32, torch.float64):
            assert_matches(program, FORWARDS[name], (x.to(dtype), y))
            out, saved = program.forward(x.to(dtype), y)
            assert out.dtype == program.backward(saved)["x"].dtype == dtype


def test_a_rounded_constant_is_written_as_it_was_meant() -> None:
    program = generate(lambda x: x * torch.tensor([0.1, 1e-3, 1 / 3]), torch.ones(2, 3))
    assert "[0.1, 0.001, 0.33333334]" in program.source
