"""Running sums of exponentials and their logarithms: finite where autograd of the same forward is not, right there, and no triangle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import codegen
from tests.closed.forms import Draw


def partial_likelihood(s: Tensor, w: Tensor) -> Tensor:
    return -((s - s.flip(0).exp().cumsum(0).log().flip(0)) * w).mean()


def in_order(s: Tensor, w: Tensor) -> Tensor:
    return ((s - s.exp().cumsum(0).log()) * w).sum()


def unweighted(s: Tensor, w: Tensor) -> Tensor:
    return (s.exp().cumsum(0).log() - s).mean() + w.square().sum()


def at_risk(s: Tensor, w: Tensor) -> Tensor:
    return -((s - ((w <= w[:, None]) * s.exp()).sum(1).log()) * w).mean()


def at_risk_by_product(s: Tensor, w: Tensor) -> Tensor:
    mask = (w <= w[:, None]).to(s.dtype)
    return -((s - (mask @ s.exp()).log()) * w).mean()


def of_rankings(s: Tensor, w: Tensor) -> Tensor:
    places = w.argsort(descending=True)
    e = torch.stack([s, 2 * s, w])[:, places].exp()
    return -(e / e.flip(1).cumsum(1).flip(1)).log().sum(1).mean()


def of_columns(s: Tensor, w: Tensor) -> Tensor:
    pairs = s[:, None] * w
    return (pairs.exp().cumsum(0).log() * w).sum()


def sequence_step(s: Tensor, w: Tensor) -> Tensor:
    return (s.exp() @ w.exp()).log() + torch.einsum("ij,j->i", (s[:, None] * w).exp(), w.exp()).log().sum()


def later(s: Tensor) -> Tensor:
    return s.flip(0).logcumsumexp(0).flip(0)


def within(s: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, s, -torch.inf).logsumexp(-1)


def rankings(s: Tensor, w: Tensor) -> Tensor:
    e = torch.stack([s, 2 * s, w])[:, w.argsort(descending=True)]
    return (e.flip(1).logcumsumexp(1).flip(1) - e).sum(1).mean()


SAME: dict[Any, Any] = {
    partial_likelihood: lambda s, w: -((s - later(s)) * w).mean(),
    in_order: lambda s, w: ((s - s.logcumsumexp(0)) * w).sum(),
    unweighted: lambda s, w: (s.logcumsumexp(0) - s).mean() + w.square().sum(),
    at_risk: lambda s, w: -((s - within(s, w <= w[:, None])) * w).mean(),
    at_risk_by_product: lambda s, w: -((s - within(s, w <= w[:, None])) * w).mean(),
    of_rankings: rankings,
    of_columns: lambda s, w: ((s[:, None] * w).logcumsumexp(0) * w).sum(),
    sequence_step: lambda s, w: (s + w).logsumexp(0) + (s[:, None] * w + w).logsumexp(1).sum(),
}
"""Each forward as it is written by somebody who minds."""


@pytest.mark.parametrize("forward", SAME, ids=lambda f: f.__name__)
def test_logarithms_of_running_sums(forward: Any) -> None:
    inputs = [Draw(0).normal(7), Draw(1).normal(7)]
    program = codegen.generate(forward, *inputs)
    assert codegen.check(program, *inputs).ok
    lost = False
    for count in (7, 1, 12):
        given = [Draw(0).normal(count), Draw(1).normal(count)] if forward is not of_rankings else inputs
        for factor in (1e4, -1e4, 1.0):
            for which in (0, 1, None):
                large = [t * factor if which in (k, None) else t for k, t in enumerate(given)]
                leaves = [t.clone().requires_grad_() for t in large]
                true = SAME[forward](*leaves)
                out, saved = program.forward(*large)
                torch.testing.assert_close(out, true)
                wanted = torch.autograd.grad(true, leaves)
                for ours, theirs in zip(program.backward(saved).values(), wanted, strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
                naive = torch.autograd.grad(forward(*leaves), leaves)
                lost = lost or not all(bool(g.isfinite().all()) for g in naive)
    assert lost


@pytest.mark.parametrize("forward", [partial_likelihood, in_order, unweighted, of_rankings, of_columns])
def test_no_triangle_is_made(forward: Any) -> None:
    source = codegen.generate(forward, Draw(0).normal(7), Draw(1).normal(7)).source
    head = source[: source.index("class ")]
    body = head[head.index("def forward") :]
    assert "logcumsumexp" in body
    assert "triu" not in body
    assert "tril" not in body
    assert ".exp().cumsum" not in body


def test_one_running_sum_more_where_all_are_passed_the_same() -> None:
    program = codegen.generate(unweighted, Draw(0).normal(7), Draw(1).normal(7))
    assert "((-out_log).flip(0).logcumsumexp(0).flip(0) + s).exp()" in program.source
    assert "logcumsumexp_backward" not in program.source


def test_twice_where_some_are_passed_nothing() -> None:
    s, w = Draw(0).normal(5), Draw(1).normal(5) * torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    function = codegen.generate(in_order, s, w).function
    leaves = [s.clone().requires_grad_(), w.clone().requires_grad_()]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_the_rules_are_named() -> None:
    rules = {
        s.rule for s in codegen.generate(partial_likelihood, Draw(0).normal(5), Draw(1).normal(5)).derivation.trail
    }
    assert any("turned round, turned round again" in r for r in rules)
    assert any("the logarithm of a running sum of exponentials" in r for r in rules)


def test_what_is_turned_is_turned_where_others_read_it() -> None:
    def forward(s: Tensor) -> Tensor:
        turned = s.flip(0)
        sums = turned.square().cumsum(0)
        return (sums.flip(0) * s).sum() + (turned * s).sum() + sums.sum()

    program = codegen.generate(forward, Draw(0).normal(6))
    s = Draw(1).normal(6)
    leaf = s.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(forward(leaf), leaf)
    torch.testing.assert_close(program.value_and_grad(s)[1]["s"], theirs)


def test_sums_from_the_end_are_not_turned() -> None:
    def forward(s: Tensor, w: Tensor) -> Tensor:
        returns = s.square().flip(1).cumsum(1).flip(1)
        return (returns.sqrt() * w).sum()

    s, w = Draw(0).normal(3, 6), Draw(1).normal(3, 6)
    program = codegen.generate(forward, s, w)
    assert codegen.check(program, s, w).ok
    assert any("turned round" in step.rule for step in program.derivation.trail)
