"""The places where a mask holds, `torch.where(mask)` and `mask.nonzero()`, against autograd at several sizes and for other masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from engine import TraceError, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def written_at(x: Tensor, m: Tensor) -> Tensor:
    y = x.clone()
    y[torch.where(m)] = 0.5
    i = m[:, 0].nonzero().squeeze(1)
    y[i] += x[i].exp()
    y[i, 1] = 2.0
    return y.sin()


def along_both(x: Tensor, m: Tensor) -> Tensor:
    i, j = torch.where(m)
    return (x[i, j] * (i + 1) * x.sin()[i, 0] * x.t()[j, i]).sum() + x[i].cos().sum()


FORWARDS: dict[str, Callable[..., Any]] = {
    "where": lambda x, m: x[torch.where(m)].tanh().mean(),
    "nonzero as a tuple": lambda x, m: x[m.nonzero(as_tuple=True)].exp().sum(),
    "torch's": lambda x, m: x[torch.nonzero(m, as_tuple=True)].exp().std(),
    "of a comparison": lambda x, m: x[torch.where(x > 0)].log().sum(),
    "of numbers": lambda x, m: x[torch.where(m.double())].square().sum(),
    "rows": lambda x, m: (x[torch.where(m[:, 0])[0]] @ x.T).sin().sum(),
    "columns": lambda x, m: x[:, torch.where(m[0])[0]].square().sum(1).mean(),
    "a matrix of them": lambda x, m: x[m[:, 0].nonzero().flatten()].square().sum(),
    "its column": lambda x, m: x[m[:, 0].nonzero()[:, 0]].square().sum(),
    "selected by": lambda x, m: x.index_select(0, m[:, 0].nonzero().squeeze(-1)).cos().sum(),
    "moved on": lambda x, m: x[(torch.where(m[:, 0])[0] + 1) % x.shape[0]].square().sum(),
    "the sum of them": lambda x, m: torch.argwhere(m).to(x.dtype).sum() * x.mean(),
    "written at": written_at,
    "along both": along_both,
}


def inputs(n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x, u = torch.rand(2, n, k, generator=generator, dtype=torch.float64)
    m = u > 0.5
    m[0, 0] = m[0, 1] = m[1, 0] = True
    return 2 * x - 1, m


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_what_is_read_and_written_at_places(name: str, mode: str) -> None:
    program = codegen.generate(FORWARDS[name], *inputs(4, 5), mode=mode)
    for n, k in ((4, 5), (7, 3)):
        x, m = inputs(n, k)
        found: list[Any] = []
        for f in (program.function, FORWARDS[name]):
            leaf = x.clone().requires_grad_()
            out = f(leaf, m)
            weights = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)
            found.append((out.detach(), torch.autograd.grad(out, leaf, weights)))
        torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "counted",
    [
        lambda x, m: x.sum() * len(torch.where(m)[0]),
        lambda x, m: x.sum() * m.nonzero().shape[0],
        lambda x, m: x[m.nonzero()[:3]].sum(),
        lambda x, m: x.sum() * torch.where(m.any())[0],
        lambda x, m: x.index_add(0, torch.where(m[:, 0])[0], x[:2]),
    ],
)
def test_how_many_there_are_is_refused(counted: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match=r"test_places\.py:\d+"):
        trace(counted, *inputs(4, 5))
