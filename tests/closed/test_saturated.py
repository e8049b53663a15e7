"""Where a function is flat its slope is a small difference of large numbers, which a closed form must not lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

FLAT: dict[str, Callable[..., Any]] = {
    "tanh of tanh of a sum": lambda x, w: ((x - w) ** 2).sum().tanh().tanh(),
    "three times tanh": lambda x, w: (x * w).tanh().tanh().tanh(),
    "sigmoid of sigmoid": lambda x, w: (-(x**2) - w**2).sigmoid().sigmoid(),
    "squares of slopes": lambda x, w: (1 - x.tanh() ** 2) ** 2 * (1 - w.tanh() ** 2),
}


@pytest.mark.parametrize("name", FLAT)
def test_gradients_are_as_accurate_as_autograds(name: str) -> None:
    def inputs(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(k)
        x, w = torch.randn(2, 2, 3, generator=g, dtype=torch.float64)
        return 3 * x, w

    program = codegen.generate(FLAT[name], *inputs(0))
    for k in range(8):
        report = codegen.check(program, *inputs(k))
        assert report.ok, report.failures
