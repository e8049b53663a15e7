"""x log x of a softmax: no logarithm of an underflow, no exponential that overflows, no choice that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.algebra.vanishing import opened
from engine.notation import Equal, Index, Less, Where, base

if TYPE_CHECKING:
    from collections.abc import Callable


def divergence(v, w):
    return F.kl_div(v.log_softmax(-1), w.softmax(-1), reduction="batchmean")


def xlogy(v, w):
    p = w.softmax(-1)
    return (torch.xlogy(p, p) - p * v.log_softmax(-1)).sum()


def entropy(v, w):
    return torch.special.entr(v.softmax(-1)).sum() + torch.special.entr(w.softmax(-1)).mean()


def chosen(v, w):
    p = w.softmax(-1)
    return (torch.where(p == 0, 0.0, p * p.log()) - p * v.log_softmax(-1)).sum()


FORWARDS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (divergence, xlogy, entropy, chosen)}


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("scale", [1.0, 30.0, 800.0])
def test_gradients_are_finite_and_right_where_exponentials_overflow(name: str, scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, 4, 5, generator=g, dtype=torch.float64)
    program = codegen.generate(FORWARDS[name], v, w)
    assert ".exp().sum(" not in program.source
    report = codegen.check(program, scale * v, scale * w)
    assert report.ok, report.failures


def test_the_divergence_closes() -> None:
    """What a softmax passes back, as for a cross entropy whose targets have a gradient."""
    source = codegen.generate(divergence, *torch.randn(2, 4, 5)).source
    backward = source[source.index("def backward") : source.index("def step")]
    assert ".sum(" not in backward
    assert backward.count("softmax_backward(") == 1
    assert ".exp()" not in backward
    assert ".log(" not in backward


def test_what_a_choice_says_by_itself() -> None:
    i = Index("i")
    p, q = base("p")[i], base("q")[i]
    positive = base("s", positive=True)[i]
    assert opened(Where(Equal(p, 0), 0, p * q)) == p * q
    assert opened(Where(Equal(p, 0), 0, q * p**2)) == q * p**2
    assert opened(p * Where(Equal(p, 0), 0, q)) == p * q
    assert opened(Where(Less(0, positive), positive * q, 0)) == positive * q
    for kept in (
        Where(Equal(p, 0), 0, q),
        Where(Equal(p, 0), 0, p / (p + q)),
        Where(Equal(p, 0), q, p * q),
        Where(Less(0, p), p * q, 0),
        Where(Equal(p, 1), 0, p * q),
        q * Where(Equal(p, 0), 0, q),
    ):
        assert opened(kept) is kept
