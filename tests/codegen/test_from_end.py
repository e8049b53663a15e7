"""Indices below zero count from the end: gathers, puts and what is gathered from a gather are autograd's in both modes."""

import pytest
import torch
from torch import Tensor

import codegen
from engine.errors import InputError

PLACES = [[0, -1, 2, -2], [-5, 4, -4, -2], [1, 0, 3, 2]]


def gathered(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[i] * v).sum()


def gathered_twice(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[i][:, i].tanh() * v[:, :4]).sum()


def shares_of_rows(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return -(x[i] + v).log_softmax(-1)[torch.arange(i.shape[0]), i].mean()


def mean_of_rows(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[i].mean(0) * x.mean(0)).sum() + v.sum()


def of_a_vector(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (v * x.sum(1)[i][:, None]).sum().tanh()


def of_shares(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x.softmax(0)[i].log() * v).sum()


def put(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return x.index_put((i,), v).exp().sum()


def put_in_pairs(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return x.index_put((i, i), v[:, 0]).exp().sum()


def added(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return x.index_put((i,), v, accumulate=True).exp().sum()


def assigned(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    y = x.clone()
    y[i] = v
    return (y**3).sum()


def filled(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x.index_fill(0, i, 0.5) ** 2).sum() + v.sum()


def computed(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[i % 5 - 1].exp() * v).sum() + x[-(i % 5) - 1].exp().mean(0).prod()


def of_constants(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[[0, -1]].softmax(0) * v[torch.tensor([-1, -2])]).sum() + x[i].sum()


def cast(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[(x.detach()[0, :4] * 2).clamp(-4, 4).long()] * v).sum() + x[i].sum()


FORWARDS = [
    gathered, gathered_twice, shares_of_rows, mean_of_rows, of_a_vector, of_shares, put, put_in_pairs, added, assigned, filled,
    computed, of_constants, cast,
]  # fmt: skip


@pytest.mark.sampled("forward")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_it_is_autograds(forward: object, places: list[int], mode: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, v = (torch.randn(n, 5, generator=g, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    i = torch.tensor(places)
    program = codegen.generate(forward, x.detach(), i, v.detach(), mode=mode)
    out, grads = program.value_and_grad(x.detach(), i, v.detach())
    true = forward(x, i, v)
    torch.testing.assert_close(out, true)
    for name, t in zip("xv", torch.autograd.grad(true, (x, v), materialize_grads=True, allow_unused=True), strict=True):
        torch.testing.assert_close(grads.get(name, torch.zeros_like(t)), t)
    assert codegen.check(program, x.detach(), i, v.detach()).ok


def of_places(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
    return (x[x.sum(1).topk(3).indices] * v).sum() + x[x.argmax(0)].sum() + x[i // 2].sum()


@pytest.mark.parametrize("forward", [gathered, of_places], ids=lambda f: f.__name__)
def test_an_index_that_does_not_count_from_the_end_is_read_as_it_is(forward: object) -> None:
    program = codegen.generate(forward, torch.randn(5, 4), torch.tensor([0, 1, 4]), torch.randn(3, 4))
    assert "where" not in program.source


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", [put, assigned])
def test_a_place_below_zero_that_the_example_had_not_is_refused(forward: object, mode: str) -> None:
    """What is written hides what was there by a comparison with the places as they are."""
    x, v = torch.randn(5, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    program = codegen.generate(forward, x, torch.tensor([0, 1, 3, 2]), v, mode=mode)
    program.forward(x, torch.tensor([4, 1, 3, 2]), v)
    with pytest.raises(InputError, match="i has places below zero, .* the example had none"):
        program.forward(x, torch.tensor([-1, 1, 3, 2]), v)
