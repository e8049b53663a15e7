"""Writes into parts of a tensor that a forward made, against autograd, at other sizes as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from engine import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TEN = torch.float64


def written(y: Tensor, item: Any, value: Any) -> None:
    y[item] = value


def added(y: Tensor, item: Any, value: Any) -> None:
    y[item] += value


FIRST, SECOND = torch.tensor([0, 3, 1]), torch.tensor([0, 2, 1])
MASK = torch.tensor([True, False, True, True])
EVERY = slice(None)
PLACES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "x[:, i]": ((EVERY, "i"), (-1, 3, 5)),
    "x[:, i] of a row": ((EVERY, "i"), (5,)),
    "x[:, i] of a column": ((EVERY, "i"), (3, 1)),
    "x[:, i] of a number": ((EVERY, "i"), ()),
    "x[..., i]": ((..., "i"), (-1, 4, 3)),
    "x[:, :, i]": ((EVERY, EVERY, "i"), (-1, 4, 3)),
    "x[1:, i]": ((slice(1, 3), "i"), (2, 3, 5)),
    "x[0, i]": ((0, "i"), (3, 5)),
    "x[:, i, j]": ((EVERY, "i", "j"), (-1, 3)),
    "x[:, i, 1:3]": ((EVERY, "i", slice(1, 3)), (-1, 3, 2)),
    "x[i - 1, ..., j]": (("j", ..., "j"), (3, 4)),
    "x[:, [0, 2]]": ((EVERY, [0, 2]), (-1, 2, 5)),
    "x[:, ::2, i]": ((EVERY, slice(None, None, 2), "i"), (-1, 2, 3)),
    "x[:, i of a square]": ((EVERY, "s"), (-1, 2, 2, 5)),
    "x[:, m]": ((EVERY, "m"), (5,)),
    "x[:, m] of a number": ((EVERY, "m"), ()),
    "x[:, mask]": ((EVERY, MASK), (-1, 3, 5)),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("write", [written, added])
@pytest.mark.parametrize("name", PLACES)
def test_integers_and_masks_beside_slices(name: str, write: Callable[..., None], mode: str) -> None:
    item, shape = PLACES[name]
    if write is added and "m" in item:
        pytest.skip("x[mask] += 1 reads x[mask]")

    def forward(x: Tensor, v: Tensor, i: Tensor, j: Tensor, s: Tensor, m: Tensor) -> Tensor:
        tensors = {"i": i, "j": j, "s": s, "m": m}
        y = x.sin()
        write(y, tuple(tensors[e] if isinstance(e, str) else e for e in item), v * 2)
        return y.exp() * y

    def inputs(n: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(n)
        x = torch.randn(n, 4, 5, dtype=TEN, generator=generator)
        v = torch.randn([n if k < 0 else k for k in shape], dtype=TEN, generator=generator)
        return [x, v, FIRST, SECOND, torch.tensor([[0, 3], [1, 2]]), MASK]

    program = codegen.generate(forward, *inputs(4), mode=mode)
    for n in (4, 3, 6):
        given = inputs(n)
        leaves = [t.clone().requires_grad_() for t in given[:2]]
        wanted = forward(*leaves, *given[2:])
        seed = torch.linspace(-1, 2, wanted.numel(), dtype=TEN).reshape(wanted.shape)
        gradients = torch.autograd.grad(wanted, leaves, seed)
        out, saved = program.forward(*given)
        torch.testing.assert_close(out, wanted.detach())
        found = program.backward(saved, seed)
        torch.testing.assert_close((found["x"], found["v"]), gradients)


@pytest.mark.parametrize(
    ("item", "remedy"),
    [
        ((EVERY, "m"), "in the order of the mask"),
        (("m", "i"), "a mask beside another tensor"),
        ((None, 0), "without new dimensions"),
    ],
)
def test_what_is_refused(item: tuple[Any, ...], remedy: str) -> None:
    def forward(x: Tensor, v: Tensor, i: Tensor, m: Tensor) -> Tensor:
        y = x.sin()
        y[tuple({"i": i, "m": m}.get(e, e) if isinstance(e, str) else e for e in item)] = v
        return y

    with pytest.raises(TraceError, match=remedy):
        codegen.generate(forward, torch.randn(4, 4, 5), torch.randn(4, 3, 5), FIRST, MASK)
