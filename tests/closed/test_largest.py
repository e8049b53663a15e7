"""A maximum that is subtracted for its value alone, detached or not: it divides no region, and what is detached stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

import codegen
from codegen.closed.regions.largest import DETACHED, LARGEST
from tests.closed.trail import gaps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program


def rand(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def scores(q: Tensor, k: Tensor) -> Tensor:
    s = q @ k.T / q.shape[1] ** 0.5
    return s.masked_fill(torch.ones(q.shape[0], k.shape[0]).tril() == 0, float("-inf"))


def shares(s: Tensor, largest: Tensor) -> Tensor:
    e = (s - largest).exp()
    return e / e.sum(1, keepdim=True)


def by_values(q: Tensor, k: Tensor) -> Tensor:
    s = scores(q, k)
    return shares(s, s.max(1, keepdim=True).values) @ k


def by_detached(q: Tensor, k: Tensor) -> Tensor:
    s = scores(q, k)
    return shares(s, torch.max(s, dim=-1, keepdim=True)[0].detach()) @ k


def of_a_part(q: Tensor, k: Tensor) -> Tensor:
    s = (2 * q @ k.T)[:, :3].T
    return shares(s, s.max(1, keepdim=True)[0].detach()).square().sum()


def plain(q: Tensor, k: Tensor) -> Tensor:
    return scores(q, k).softmax(1) @ k


def with_its_place(q: Tensor, k: Tensor) -> Tensor:
    s = scores(q, k)
    largest, place = s.max(1, keepdim=True)
    return shares(s, largest) @ k * (place + 1)


def shared(q: Tensor, k: Tensor) -> Tensor:
    z = 2 * k
    return ((q - z.detach()) ** 2).sum() + (z**3).sum()


def alone(q: Tensor, k: Tensor) -> Tensor:
    return ((q - (2 * k + q.sin()).detach()) ** 2 * k).sum()


def not_subtracted(q: Tensor, k: Tensor) -> Tensor:
    s = q @ k.T
    return (s / s.max(1, keepdim=True)[0]).square().sum()


def rules(program: Program) -> set[str]:
    assert program.writer is not None
    return {n.rule for n in program.writer.structure.notes}


def backward_of(program: Program) -> str:
    return program.source[program.source.index("def backward(") : program.source.index("# What follows")]


@pytest.mark.parametrize("forward", [by_values, by_detached])
def test_the_softmax_is_that_of_one_region(forward: Callable[..., Tensor]) -> None:
    q, k = rand(6, 4), rand(6, 4)
    program, other = (codegen.generate(f, q, k, mode="closed") for f in (forward, plain))
    assert LARGEST in rules(program)
    assert (DETACHED in rules(program)) == (forward is by_detached)
    lines, expected = (backward_of(p).replace("p_1", "p").count("\n") for p in (program, other))
    assert lines == expected
    assert "tril" not in backward_of(program)
    assert ".max(" not in program.source[: program.source.index("def backward(")]


@pytest.mark.parametrize("forward", [with_its_place, not_subtracted, shared])
def test_what_is_read_otherwise_stays(forward: Callable[..., Tensor]) -> None:
    q, k = rand(6, 4), rand(6, 4)
    program = codegen.generate(forward, q, k, mode="closed")
    assert not {LARGEST, DETACHED} & rules(program)


def test_what_only_a_detached_copy_reads_has_no_gradient() -> None:
    q, k = rand(6, 4), rand(6, 4)
    program = codegen.generate(alone, q, k, mode="closed")
    assert DETACHED in rules(program)
    assert "detach" not in program.source[: program.source.index("def backward(")]


FORWARDS = [by_values, by_detached, of_a_part, with_its_place, shared, alone, not_subtracted]


@pytest.mark.parametrize("forward", FORWARDS)
def test_gradients_are_autograds(forward: Callable[..., Tensor]) -> None:
    program = codegen.generate(forward, rand(6, 4), rand(6, 4), mode="closed")
    assert not gaps_of(program)
    for n, scale in ((6, 1.0), (3, 1.0), (9, 1e3)):
        q, k = (scale * rand(n, 4)).detach().requires_grad_(), rand(n, 4)
        expected = torch.autograd.grad(forward(q, k).square().sum(), (q, k))
        found = torch.autograd.grad(program.function(q, k).square().sum(), (q, k))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    report = codegen.check(program, rand(5, 4), rand(5, 4))
    assert report.ok, report.failures
