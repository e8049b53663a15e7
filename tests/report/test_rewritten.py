"""The forward's trail: which rules it names, in which order, and that none is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from codegen.closed import code as closed_code
from codegen.closed.regions import structure
from codegen.closed.regions.region import Region
from codegen.closed.write import region as write_region
from codegen.formula import text_formula
from codegen.worked.rewritten import rewritten_steps, states_of
from codegen.worked.story import forward_story
from tests.closed.trail import gaps_of

if TYPE_CHECKING:
    from codegen.program import Program
    from codegen.worked.story import Part

X = torch.linspace(-2, 3, 20).reshape(4, 5)
Y = torch.tensor([0, 3, 1, 4])


def cross_entropy(x):
    counts = x.exp()
    probs = counts / counts.sum(1, keepdim=True)
    return -probs[torch.arange(4), Y].log().mean()


def shifted(x):
    e = (x - x.amax(1, keepdim=True)).exp()
    return (e / e.sum(1, keepdim=True)).square().sum()


def softplus(x):
    return (1 + x.exp()).log()


def sigmoid(x):
    return x.exp() / (1 + x.exp())


def layernorm(x):
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


def softshrink(x):
    return torch.sign(x) * torch.relu(x.abs() - 0.5)


def huber(x):
    return torch.where(x.abs() <= 1, x * x / 2, x.abs() - 0.5).mean()


def pooled(x):
    e = x.exp()
    return (x * e).sum(1) / (1 + e.sum(1))


def divided_last(x):
    e = x.exp()
    return (e @ x.T[:, :2]) / e.sum(1, keepdim=True)


def quantile(x):
    return torch.where(x >= 0, 0.9 * x, -0.1 * x).sum()


RULES = {
    cross_entropy: (
        "The logarithm of a product is a sum of logarithms, in which log and exp cancel",
        "The logarithm of shares is computed once, and they are its exponential",
        "Torch computes f - log Σ exp(f) by `log_softmax`, which does not overflow",
    ),
    shifted: (
        "Shares do not change when every exponent is shifted, so that what is subtracted from all of them is dropped",
    ),
    softplus: ("Torch computes log(1 + exp(f)) by `softplus`, which does not overflow",),
    sigmoid: ("A quotient of linear functions of exp(f) is sigmoid or tanh, which do not overflow",),
    softshrink: (
        "A function of one number is written by its pieces between the places where it changes",
        "Torch computes f less a number beyond it, else 0, by `softshrink`",
    ),
    huber: ("A choice by the size of x is a polynomial in x and its clamp",),
    pooled: ("The largest exponent is taken out, exp(f) = exp(m) exp(f - m), so that nothing overflows",),
    divided_last: (
        "Rows of a product over the sums of what made them are a product with shares, (Σ e v) / Σ e = Σ (e / Σ e) v",
    ),
}


def parts_of(program: Program) -> list[Part]:
    assert program.writer is not None
    return [p for p in forward_story(program.writer) if p.stages]


def states(program: Program) -> list[str]:
    return [f"{text_formula(s.equation[1], s.ranks)} by: {s.rule}" for p in parts_of(program) for s in p.stages]


@pytest.mark.parametrize("forward", RULES, ids=lambda f: f.__name__)
def test_the_rules_are_named(forward: Any) -> None:
    program = codegen.generate(forward, X)
    told = [s.rule for p in parts_of(program) for s in p.stages]
    assert [r for r in RULES[forward] if r in told] == list(RULES[forward]), states(program)
    trail = {s.rule for s in program.derivation.trail if s.result}
    assert {r.replace("`", "").lower() for r in RULES[forward]} <= {r.lower() for r in trail}


def test_what_is_centred_twice_says_so() -> None:
    """The mean of many numbers with an offset is rounded: the sums over an instance's places are autograd's then."""
    x, w, b = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3), torch.zeros(3)
    program = codegen.generate(lambda x, w, b: torch.nn.functional.instance_norm(x, None, None, w, b), x, w, b)
    made, part = [p for p in parts_of(program) if any("subtracted once more" in s.rule for s in p.stages)]
    assert made.name == f"{part.name}_rounded"
    shown = [text_formula(s.equation[1], s.ranks) for s in part.stages]
    assert any(f"{made.name}[" in s and "Σ_" in s for s in shown), shown


def test_before_and_after_stand_one_below_the_other() -> None:
    (part,) = [p for p in parts_of(codegen.generate(cross_entropy, X)) if p.name == "probs"]
    assert [text_formula(s.equation[1], s.ranks) for s in part.stages] == [
        "counts[i,j] / probs_sum[i,0]",
        "exp(x[i,j]) / (Σ_k exp(x[i,k]))",
        "exp(probs_log[i,j])",
    ]
    assert part.lines == ("probs = probs_log.exp()",)


def test_what_a_rule_made_and_another_did_without_is_not_told() -> None:
    """Distances are differences of rows less one mean, until they are one call: no mean is computed."""

    def smoothed(x, y):
        d2 = (x[:, None] - x[None]).square().sum(-1)
        return ((-d2).exp() @ y).square().sum()

    program = codegen.generate(smoothed, X, X[:, 0])
    assert program.writer is not None
    emitted = {b.name for b in program.writer.emitted}
    assert states_of(program.writer).keys() <= emitted
    assert {s.node for s in rewritten_steps(program.writer)} <= {c.name for c in program.writer.structure.traced}


def test_a_forward_that_stays_as_it_is_has_no_states() -> None:
    assert parts_of(codegen.generate(lambda x: x.tanh(), X)) == []


@pytest.mark.parametrize("forward", RULES, ids=lambda f: f.__name__)
def test_a_rewrite_without_a_note_is_found(forward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_code, "_codes", {})
    assert gaps_of(codegen.generate(forward, X)) == []
    silent = lambda self, rule, change: replace(self, cells=tuple(change(list(self.cells))))  # noqa: E731
    monkeypatch.setattr(closed_code, "_codes", {})
    monkeypatch.setattr(Region, "by", silent)
    monkeypatch.setattr(write_region, "rewritten", lambda *_: None)
    monkeypatch.setattr(write_region, "compared", lambda *_: ())
    monkeypatch.setattr(structure, "compared", lambda *_: ())
    assert gaps_of(codegen.generate(forward, X)) != []
