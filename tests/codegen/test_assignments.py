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


@pytest.mark.sampled("name")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("write", [written, added])
@pytest.mark.parametrize("name", PLACES)
def test_integers_and_masks_beside_slices(name: str, write: Callable[..., None], mode: str) -> None:
    item, shape = PLACES[name]

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


def chain(y: Tensor, v: Tensor) -> Tensor:
    y.unsqueeze(0).transpose(1, 2)[0][1].mul_(v[:, 0])
    return y


def two_views(y: Tensor, v: Tensor) -> Tensor:
    row, column = y[0], y[:, 1]
    row.mul_(2)
    column.add_(v[:, 0])
    row.add_(1)
    return y + row


def read_before(y: Tensor, v: Tensor) -> Tensor:
    """What was taken before the write shows what was written."""
    first, turned = y[0], y.T
    y[0] = v[0]
    return y * first + turned.sum(1)


def kept(y: Tensor, v: Tensor) -> Tensor:
    first = y[0]
    y[0] = v[0]
    return y * first.detach()


def of_the_whole(y: Tensor, v: Tensor) -> Tensor:
    flat = y.view(-1)
    y.mul_(v.mean())
    return y + flat.view(y.shape)


def of_a_constant(y: Tensor, v: Tensor) -> Tensor:
    z = torch.zeros_like(y)
    first = z[0]
    z[0] = v[0]
    return y * first


def rows(y: Tensor, v: Tensor) -> Tensor:
    out = torch.empty_like(y)
    for k in range(2):
        row = out[k]
        row.copy_(y[k] * v[k])
        row.add_(out[0])
    out[2:] = 0
    return out


def again_and_again(y: Tensor, v: Tensor) -> Tensor:
    turned = y.T
    for k in range(2):
        y.T[k].mul_(v[:, 0])
        turned[0].add_(1)
        y.view(-1)[k] = v[0, k]
        y[0][1].sub_(turned[2, 1])
    return y * turned.T


def squeezed(y: Tensor, v: Tensor) -> Tensor:
    y.unsqueeze(1).squeeze(1)[1] = v[1]
    torch.diagonal(y, 1).add_(v[0, 0])
    return y


WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "x[0][1]": lambda y, v: y[0][1:3].copy_(v[0, :2]),
    "x[0][1] +=": lambda y, v: added(y[0], 1, v[0, 0]),
    "x.view": lambda y, v: written(y.view(-1), slice(None, None, 6), v.mean()),
    "x.view[:, 0]": lambda y, v: written(y.view(y.shape[0], 1, 5), (EVERY, 0), v),
    "x.t()[0]": lambda y, v: y.t()[0].add_(v[:, 0]),
    "x.T[0] =": lambda y, v: written(y.T, 0, v[:, 0]),
    "x.mT": lambda y, v: y.mT.mul_(v.T),
    "x[:, 0]": lambda y, v: y[:, 0].mul_(v[:, 1]),
    "x.select": lambda y, v: y.select(1, -1).mul_(v[:, 1]),
    "x.narrow": lambda y, v: y.narrow(1, -2, 2).copy_(v[:, :2]),
    "x.narrow by name": lambda y, v: y.narrow(dim=1, start=1, length=2).zero_(),
    "x.permute": lambda y, v: y.unsqueeze(1).permute(2, 0, 1)[1].mul_(v[:, :1]),
    "x.movedim": lambda y, v: written(y.unsqueeze(1).movedim((0, 1), (2, 0)), (0, 1), v[:, 0]),
    "one after the other": lambda y, v: y[..., :2].sub_(v[:, :2]).clamp_(min=0),
    "torch.relu of a part": lambda y, v: torch.nn.functional.relu(y[0], inplace=True),
}


def after(write: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    def forward(y: Tensor, v: Tensor) -> Tensor:
        write(y, v)
        return y

    return forward


VIEWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: after(write) for name, write in WRITES.items()},
    **{
        f.__name__: f
        for f in (again_and_again, chain, two_views, read_before, kept, of_the_whole, of_a_constant, rows, squeezed)
    },
}


@pytest.mark.sampled("name")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", VIEWS)
def test_writes_through_views(name: str, mode: str) -> None:
    def forward(x: Tensor, v: Tensor) -> Tensor:
        return VIEWS[name](x.sin(), v * 2).square()

    def inputs(n: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(n)
        return [torch.randn(n, 5, dtype=TEN, generator=generator) for _ in range(2)]

    program = codegen.generate(forward, *inputs(5), mode=mode)
    for n in (5,) if name in ("read_before", "squeezed") else (5, 3, 7):
        leaves = [t.requires_grad_() for t in inputs(n)]
        wanted = forward(*leaves)
        seed = torch.linspace(-1, 2, wanted.numel(), dtype=TEN).reshape(wanted.shape)
        gradients = torch.autograd.grad(wanted, leaves, seed, materialize_grads=True)
        out, saved = program.forward(*inputs(n))
        torch.testing.assert_close(out, wanted.detach())
        found = program.backward(saved, seed)
        torch.testing.assert_close((found["x"], found["v"]), gradients)


@pytest.mark.parametrize(
    ("item", "remedy"),
    [
        ((EVERY, "m"), "more dimensions than x has behind the mask"),
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
