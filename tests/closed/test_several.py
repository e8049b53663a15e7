"""Sums of several exponentials, each a tensor of its own: nothing overflows, and shares keep their digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import codegen
from tests.closed.forms import Draw


def logarithm(a: Any, b: Any, c: Any) -> Any:
    return (a.exp() + b.exp() + c.exp()).log()


def weighted(a: Any, b: Any, c: Any) -> Any:
    return (0.2 * a.exp() + 0.3 * b.exp() + 0.5 * c.exp()).log()


def shares(a: Any, b: Any, c: Any) -> Any:
    x, y, z = a.exp(), b.exp(), c.exp()
    total = x + y + z
    return x / total * a + y / total * b + z / total * c


def soft_minimum(a: Any, b: Any, c: Any) -> Any:
    """A cell of soft dynamic time warping (Cuturi and Blondel 2017)."""
    return a * b - 0.1 * ((-a / 0.1).exp() + (-b / 0.1).exp() + (-c / 0.1).exp()).log()


def of_rows(a: Any, b: Any, c: Any) -> Any:
    return (a[:, None].exp() + b[None].exp() + (c[:, None] - b).exp() + a.exp()[:, None]).log()


def exact(a: Any, b: Any, c: Any) -> Any:
    return torch.stack([a, b, c]).logsumexp(0)


FORWARDS = [logarithm, weighted, shares, soft_minimum, of_rows]


def gradients(forward: Any, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    return torch.autograd.grad(forward(*leaves).sum(), leaves)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_gradients_are_those_of_autograd(forward: Any) -> None:
    inputs = [Draw(k).normal(5) for k in range(3)]
    program = codegen.generate(forward, *inputs)
    out, saved = program.forward(*inputs)
    torch.testing.assert_close(out, forward(*inputs))
    grads = program.backward(saved)
    for ours, theirs in zip(grads.values(), gradients(forward, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert program.writer is not None
    assert all(r.code.simplified for r in program.writer.regions.values())


@pytest.mark.parametrize("forward", [logarithm, shares], ids=lambda f: f.__name__)
def test_nothing_overflows(forward: Any) -> None:
    inputs = [Draw(k).normal(50) * 1e4 for k in range(3)]
    program = codegen.generate(forward, *inputs)
    out, saved = program.forward(*inputs)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in program.backward(saved).values())
    assert not gradients(forward, inputs)[0].isfinite().all()
    if forward is logarithm:
        torch.testing.assert_close(out, exact(*inputs))
        for ours, theirs in zip(program.backward(saved).values(), gradients(exact, inputs), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("offset", [0.0, 10.0, 80.0])
def test_shares_keep_their_digits(offset: float) -> None:
    inputs = [Draw(k, torch.float32).normal(200) + offset for k in range(3)]
    program = codegen.generate(logarithm, *inputs)
    grads = program.backward(program.forward(*inputs)[1])
    for ours, true in zip(grads.values(), gradients(exact, [t.double() for t in inputs]), strict=True):
        assert float(((ours.double() - true) / true).abs().max()) < 1e-6


def test_the_rule_is_named() -> None:
    program = codegen.generate(logarithm, *[Draw(k).normal(5) for k in range(3)])
    assert "logaddexp" in program.source
    assert any("several exponentials" in s.rule for s in program.derivation.trail)
