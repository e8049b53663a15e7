"""Integer tensors without dimensions in brackets: torch selects by them as by an int, and what it selects is a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from codegen import generate
from tests.codegen.compare import assert_matches

if TYPE_CHECKING:
    from collections.abc import Callable


def written(x: Any, w: Any, i: Any, k: Any) -> Any:
    y = x * 2
    y[k] += w[0]
    y[:, k] = x[:, 1]
    row = y[k]
    row *= 3
    y[k, k] = w[1, 1]
    return y**2


FORWARDS: dict[str, Callable[..., Any]] = {
    "a column": lambda x, w, i, k: x[:, k] * x[:, i[0]],
    "an entry": lambda x, w, i, k: w[k, i[1]] * x[k, -1] + w[k].sum(),
    "beside a gather": lambda x, w, i, k: w[k, i].sum() + (w[i, k] ** 2).sum() + w[None, k, i].tanh().sum(),
    "around a slice": lambda x, w, i, k: x.expand(2, *x.shape)[k, :, i] * x[:, None, :][i, :, k],
    "one example's loss": lambda x, w, i, k: -w[0].log_softmax(0)[k],
    "written": written,
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_a_number_of_the_data_selects(name: str, mode: str) -> None:
    g = torch.Generator().manual_seed(0)

    def inputs(n: int, k: int) -> tuple[torch.Tensor, ...]:
        x, w = (torch.randn(s, 4, generator=g, dtype=torch.float64) for s in (n, 4))
        return x, w, torch.randint(0, 2, (n,), generator=g), torch.tensor(k)

    program = generate(FORWARDS[name], *inputs(5, 1), mode=mode)
    for n, k in ((5, 1), (3, 0), (2, 1)):
        assert_matches(program, FORWARDS[name], inputs(n, k))
    ends = inputs(5, -1)
    assert_matches(generate(FORWARDS[name], *ends, mode=mode), FORWARDS[name], ends)
