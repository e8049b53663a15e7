"""What `math` makes of sizes: in emitted text as in the forward, and a number where the size is fixed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from codegen import generate
from tests.codegen.compare import assert_matches

if TYPE_CHECKING:
    from collections.abc import Callable


def of_a_fixed_size(x: Any) -> Any:
    n = x.shape[0]
    return x * math.log(n + 1) + math.exp(-n) if n > 2 else x


FORWARDS: dict[str, Callable[..., Any]] = {
    "logarithm": lambda x: x.logsumexp(1) - math.log(x.shape[1]) * x.sum(1),
    "exponential": lambda x: (x * math.exp(-x.shape[1])).tanh() * math.log2(x.shape[0] + 1),
    "scaled by one": lambda x: (x * (math.log(x.shape[1] + 1) / x.shape[0])).softmax(1),
    "filled": lambda x: x * torch.full((x.shape[1],), math.log(x.shape[0] + 1), dtype=x.dtype),
    "fixed": of_a_fixed_size,
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_logarithms_of_sizes(name: str, mode: str) -> None:
    g = torch.Generator().manual_seed(0)
    program = generate(FORWARDS[name], torch.randn(4, 3, generator=g, dtype=torch.float64), mode=mode)
    for n in (4,) if name == "fixed" else (4, 2, 7):
        assert_matches(program, FORWARDS[name], (torch.randn(n, 3, generator=g, dtype=torch.float64),))
    assert program.source.count("import math") == int("math.log(" in program.source or "math.exp(" in program.source)
