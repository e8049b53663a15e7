"""Sizes that the forward divides without a rest: heads, groups, halves, patches. What is made holds at other sizes, as views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import codegen
from engine.errors import ShapeError


def groups(x: Tensor, w: Tensor) -> Tensor:
    """GroupNorm of two groups, whose size torch works out."""
    g = x.reshape(x.shape[0], 2, -1)
    centred = g - g.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal.reshape(x.shape) * w[:, None, None]


def heads(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    """Attention of two heads."""
    n, t, d = x.shape
    q, k, v = ((x @ w).view(n, t, 2, d // 2).transpose(1, 2) for w in (wq, wk, wv))
    weights = (q @ k.mT / (d // 2) ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(n, t, d)


def halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the halves of the last dimension are turned against each other."""
    d = x.shape[-1]
    left, right = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1).tanh()


def patches(x: Tensor, w: Tensor) -> Tensor:
    """Images cut into squares of two by two."""
    n, c, h, b = x.shape
    cut = x.reshape(n, c, h // 2, 2, b // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return (cut.reshape(n, (h // 2) * (b // 2), c * 4) @ w).tanh()


def gates(x: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """The cell of an LSTM, whose gates are the quarters of one product."""
    i, f, g, o = (x @ w).chunk(4, dim=1)
    return o.sigmoid() * (f.sigmoid() * c + i.sigmoid() * g.tanh()).tanh()


@dataclass(frozen=True)
class Case:
    """A forward, the shapes that it is derived at, others, and ones with a rest, which it refuses."""

    forward: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, ...], ...]
    rest: tuple[tuple[int, ...], ...]


CASES = {
    case.forward.__name__: case
    for case in (
        Case(groups, ((2, 4, 3, 3), (4,)), ((3, 6, 2, 5), (6,)), ((2, 5, 2, 2), (5,))),
        Case(heads, ((2, 3, 6), *[(6, 6)] * 3), ((1, 5, 8), *[(8, 8)] * 3), ((2, 3, 5), *[(5, 5)] * 3)),
        Case(halves, ((2, 3, 8), (3, 4), (3, 4)), ((4, 2, 6), (2, 3), (2, 3)), ((2, 3, 7), (3, 4), (3, 4))),
        Case(patches, ((2, 3, 4, 6), (12, 5)), ((1, 2, 8, 2), (8, 3)), ((2, 3, 5, 6), (12, 5))),
        Case(gates, ((4, 3), (4, 5), (3, 20)), ((2, 6), (2, 2), (6, 8)), ((4, 3), (4, 5), (3, 18))),
    )
}


def drawn(shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", CASES)
def test_it_holds_at_other_sizes(name: str, mode: str) -> None:
    case = CASES[name]
    program = codegen.generate(case.forward, *drawn(case.shapes), mode=mode)
    for shapes in (case.shapes, case.others):
        inputs = [t.requires_grad_() for t in drawn(shapes)]
        out = case.forward(*inputs)
        grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        true = torch.autograd.grad(out, inputs, grad_out)
        given = [t.detach() for t in inputs]
        result, saved = program.forward(*given)
        torch.testing.assert_close(result, out.detach())
        found = program.backward(saved, grad_out)
        torch.testing.assert_close([found[n] for n in program.graph.inputs], [*true])


@pytest.mark.parametrize("name", CASES)
def test_it_moves_views_about(name: str) -> None:
    """Nothing is gathered or scattered, no part is cut off, and no size is a number of the example's."""
    case = CASES[name]
    source = codegen.generate(case.forward, *drawn(case.shapes)).source
    source = source[: source.index("class Function")]
    assert "arange" not in source
    assert "index_put" not in source
    assert not any(f"shape[{d}] != {n}:" in source for s in case.shapes for d, n in enumerate(s))


@pytest.mark.parametrize("name", CASES)
def test_a_rest_is_refused(name: str) -> None:
    case = CASES[name]
    program = codegen.generate(case.forward, *drawn(case.shapes))
    with pytest.raises((ValueError, ShapeError), match="the forward fixed"):
        program.forward(*drawn(case.rest))


def test_the_second_derivative_knows_the_parts() -> None:
    """What is derived is derived again, with the same sizes."""
    inputs = [t.requires_grad_() for t in drawn(CASES["halves"].shapes)]
    program = codegen.generate(halves, *[t.detach() for t in inputs])
    assert torch.autograd.gradgradcheck(program.function, inputs)
