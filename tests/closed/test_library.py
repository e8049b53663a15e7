"""Layers and losses as torch's library spells them, and as people do: they close, with no more operations than is said here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen
from tests.closed.forms.counter import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program


@dataclass(frozen=True)
class Case:
    """A forward with its inputs for a seed, how many operations its closed form takes, and how many plans are refused before it."""

    forward: Callable[..., Any]
    inputs: Callable[[torch.Generator], list[torch.Tensor]]
    ops: int
    refused: int = 0


def normal(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def padded(g: torch.Generator) -> list[torch.Tensor]:
    """Scores of 5 classes, and targets of which some are to be left out."""
    return [normal(g, 8, 5), torch.tensor([1, -100, 3, 0, 2, -100, 4, 1])]


def padded_cross_entropy(x: Any, y: Any) -> Any:
    return F.cross_entropy(x, y, ignore_index=-100)


def masked_nll(x: Any, y: Any) -> Any:
    keep = y != -100
    safe = torch.where(keep, y, torch.zeros_like(y))
    nll = -x.log_softmax(1).gather(1, safe.unsqueeze(1)).squeeze(1)
    return (nll * keep).sum() / keep.sum()


CASES = {
    "cross entropy with targets left out": Case(padded_cross_entropy, padded, 31),
    "the same with a mask": Case(masked_nll, padded, 27),
}


@cache
def program_of(name: str) -> Program:
    case = CASES[name]
    return codegen.generate(case.forward, *case.inputs(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_autograd(name: str) -> None:
    case, program = CASES[name], program_of(name)
    inputs = case.inputs(torch.Generator().manual_seed(1))
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    out = case.forward(*leaves)
    grad_out = normal(torch.Generator().manual_seed(2), *out.shape)
    true = torch.autograd.grad(out, [t for t in leaves if t.requires_grad], grad_out)
    found, saved = program.forward(*inputs)
    torch.testing.assert_close(found, out.detach())
    for mine, theirs in zip(program.backward(saved, grad_out).values(), true, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", CASES)
def test_it_closes(name: str) -> None:
    case, program = CASES[name], program_of(name)
    assert program.writer is not None
    refused = [reason for code, _ in program.writer.codes.values() for reason in code.refused]
    assert len(refused) == case.refused, refused
    inputs = case.inputs(torch.Generator().manual_seed(0))
    grad_out = torch.ones_like(program.forward(*inputs)[0])
    counted = count(lambda: program.backward(program.forward(*inputs)[1], grad_out))
    assert counted.ops <= case.ops, counted.log


def test_targets_left_out_keep_large_scores_finite() -> None:
    scores, targets = padded(torch.Generator().manual_seed(1))
    _, grads = program_of("cross entropy with targets left out").value_and_grad(scores * 1e4, targets)
    assert grads["x"].isfinite().all()
