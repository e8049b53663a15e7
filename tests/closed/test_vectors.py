"""Vector products, called or written out: what is passed back to both vectors is one, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable


def by_places(x, y):
    return torch.stack(
        [
            x[..., 1] * y[..., 2] - x[..., 2] * y[..., 1],
            x[..., 2] * y[..., 0] - x[..., 0] * y[..., 2],
            x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0],
        ],
        dim=-1,
    )


def unbound(x, y):
    a, b, c = x.unbind(0)
    d, e, f = y.unbind(0)
    return torch.stack([b * f - c * e, c * d - a * f, a * e - b * d])


def with_a_sum(x, y):
    return torch.stack([x[1] * y[2] - x[2] * y[1], x[2] * y[0] + x[0] * y[2], x[0] * y[1] - x[1] * y[0]])


def checked(forward: Callable[..., Any], *shapes: tuple[int, ...], mode: str = "closed") -> str:
    """The source of a program whose result and gradients are those of autograd."""
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]
    out = forward(*leaves)
    true = torch.autograd.grad(out, leaves)
    given = [x.detach() for x in leaves]
    program = codegen.generate(forward, *given, mode=mode)
    value, grads = program.value_and_grad(*given)
    torch.testing.assert_close(value, out.detach())
    for name, slope in zip(program.graph.inputs, true, strict=True):
        torch.testing.assert_close(grads[name], slope)
    return program.source


WRITTEN = [(by_places, (4, 5, 3)), (by_places, (3,)), (unbound, (3, 7))]


@pytest.mark.parametrize(("product", "shape"), WRITTEN)
def test_one_that_is_written_out_is_called(product: Callable[..., Any], shape: tuple[int, ...]) -> None:
    source = checked(lambda x, y: product(x, y).sin().sum(), shape, shape)
    assert source.count("torch.linalg.cross(") == 3
    assert "new_zeros" not in source


@pytest.mark.parametrize(("product", "shape"), [(with_a_sum, (3, 4)), (by_places, (5, 4))])
def test_another_stack_stays_one(product: Callable[..., Any], shape: tuple[int, ...]) -> None:
    assert "torch.linalg.cross" not in checked(lambda x, y: product(x, y).sin().sum(), shape, shape)


def test_a_size_that_was_taken_for_three_is_checked() -> None:
    x = torch.randn(5, 3)
    program = codegen.generate(lambda x, y: by_places(x, y).square().sum(), x, x + 1)
    with pytest.raises(ValueError, match=r"fixed x.shape\[1\] = 3"):
        program.module.forward(torch.randn(5, 4), torch.randn(5, 4))


@pytest.mark.filterwarnings("ignore:Using torch.cross without specifying the dim")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (3, 3)])
def test_the_first_dimension_of_three_is_taken_where_none_is_named(shape: tuple[int, ...], mode: str) -> None:
    checked(lambda x, y: (torch.cross(x, y) * x.exp()).sum(), shape, shape, mode=mode)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_vectors_that_are_broadcast_and_places_that_are_read(mode: str) -> None:
    checked(lambda x, y: torch.linalg.cross(x, y, dim=1).square().sum(), (4, 3, 1), (1, 3, 2), mode=mode)
    checked(lambda x, y: torch.linalg.cross(x, y)[..., 2].exp().sum(), (4, 3), (4, 3), mode=mode)
    checked(lambda x, y: (x * torch.linalg.cross(y, torch.linalg.cross(x, y))).sum(), (1, 3), (1, 3), mode=mode)


def test_steps_are_those_of_autograd_bit_for_bit() -> None:
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    program = codegen.generate(lambda x, y: torch.linalg.cross(x, y).square().sum(), x, y, mode="steps")
    assert all(row.exact for row in codegen.check(program, x, y).rows)
