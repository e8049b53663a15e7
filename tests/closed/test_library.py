"""Layers and losses as torch's library spells them, and as people do: they close, with no more operations than is said here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen
from examples import attention
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


def images(g: torch.Generator) -> list[torch.Tensor]:
    """Images, and a weight and a bias for each channel."""
    return [normal(g, 4, 3, 6, 6), normal(g, 3), normal(g, 3)]


def batch_norm(x: Any, w: Any, b: Any) -> Any:
    return F.batch_norm(x, None, None, w, b, training=True)


def instance_norm(x: Any, w: Any, b: Any) -> Any:
    return F.instance_norm(x, weight=w, bias=b)


def group_norm(x: Any, w: Any, b: Any) -> Any:
    return F.group_norm(x, 3, w, b)


def clipped_cross_entropy(x: Any, y: Any) -> Any:
    p = x.sigmoid().clamp(1e-7, 1 - 1e-7)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def of_two_views(a: Any, b: Any) -> Any:
    """SimCLR's loss: row i of 2n is to be told from all by row i + n, counted around."""
    n = a.shape[0]
    z = F.normalize(torch.cat([a, b]), dim=1)
    alike = (z @ z.T / 0.5).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(alike, (torch.arange(2 * n) + n) % (2 * n))


CASES = {
    "cross entropy with targets left out": Case(padded_cross_entropy, padded, 31),
    "the same with a mask": Case(masked_nll, padded, 27),
    "contrastive loss of two views": Case(of_two_views, lambda g: [normal(g, 5, 6), normal(g, 5, 6)], 64),
    "binary cross entropy, clipped": Case(
        clipped_cross_entropy, lambda g: [normal(g, 20), normal(g, 20).sigmoid()], 29
    ),
    "batch norm of images": Case(batch_norm, images, 25, refused=2),
    "instance norm": Case(instance_norm, images, 28, refused=2),
    "group norm": Case(group_norm, images, 26, 1),
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
    refused = [reason for region in program.writer.regions.values() for reason in region.code.refused]
    assert len(refused) == case.refused, refused
    inputs = case.inputs(torch.Generator().manual_seed(0))
    grad_out = torch.ones_like(program.forward(*inputs)[0])
    counted = count(lambda: program.backward(program.forward(*inputs)[1], grad_out))
    assert counted.ops <= case.ops, counted.log


def test_what_is_clipped_has_the_slope_of_what_is_not() -> None:
    """Where nothing is clipped the slope is `p - y`, however near to one p is."""
    program = program_of("binary cross entropy, clipped")
    assert "(p_sigmoid - y)" in program.source
    x = torch.tensor([-20.0, -10.0, 0.0, 10.0, 20.0], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    _, grads = program.value_and_grad(x, y)
    inside = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(grads["x"], (x.sigmoid() - y) * inside / 5)


def test_targets_left_out_keep_large_scores_finite() -> None:
    scores, targets = padded(torch.Generator().manual_seed(1))
    _, grads = program_of("cross entropy with targets left out").value_and_grad(scores * 1e4, targets)
    assert grads["x"].isfinite().all()


@pytest.mark.parametrize("name", ["batch norm of images", "instance norm"])
@pytest.mark.parametrize("offset", [0, 100, 1000])
def test_a_rounded_mean_is_not_in_the_gradients(name: str, offset: float) -> None:
    """The mean of what has an offset is off by its last digits, by which a sum over `x - mean` multiplies the cotangent's sum."""
    case, program = CASES[name], program_of(name)
    errors: list[torch.Tensor] = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        x, *rest = (t.float() for t in case.inputs(g))
        given = [x + offset, *rest]
        grad_out = torch.randn(x.shape, generator=g)
        exact = [t.double().requires_grad_() for t in given]
        true = torch.autograd.grad(case.forward(*exact), exact, grad_out.double())
        leaves = [t.clone().requires_grad_() for t in given]
        theirs = torch.autograd.grad(case.forward(*leaves), leaves, grad_out)
        found = program.backward(program.forward(*given)[1], grad_out).values()
        pairs = zip((*found, *theirs), (*true, *true), strict=True)
        errors.append(torch.stack([(a - t).square().mean() / t.square().mean() for a, t in pairs]))
    ours, autograds = torch.stack(errors).mean(0).sqrt().chunk(2)
    assert (ours <= 1.2 * autograds + 2e-7).all(), (ours, autograds)


def test_attention_over_few_tokens_is_as_accurate_as_autograds() -> None:
    """The row sum over `dP * P` takes dP's rounding with it; `dO * O` does not, and is no shorter for five tokens."""
    program = codegen.generate(attention.forward, *attention.example_inputs(torch.Generator().manual_seed(0)).values())
    ratios: list[torch.Tensor] = []
    for seed in range(60):
        inputs = list(attention.example_inputs(torch.Generator().manual_seed(seed)).values())
        exact, leaves = ([t.to(d).requires_grad_() for t in inputs] for d in (torch.float64, torch.float32))
        out, reference = attention.forward(*exact), attention.forward(*leaves)
        true = torch.autograd.grad(out, exact, torch.ones_like(out))
        theirs = torch.autograd.grad(reference, leaves, torch.ones_like(reference))
        found = program.backward(program.forward(*inputs)[1]).values()
        errors = [
            torch.stack([torch.linalg.vector_norm(a - t) for a, t in zip(side, true, strict=True)])
            for side in (found, theirs)
        ]
        ratios.append((errors[0] / errors[1]).log())
    middle = torch.stack(ratios).nanmedian(0).values.exp()  # autograd's overflows at some
    assert (middle <= 1.1).all(), middle
