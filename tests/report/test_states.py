"""The way from the chain rule to a closed form: every state is there, equal, and told with names that a reader knows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from matplotlib.mathtext import MathTextParser

import codegen
from codegen.build import closed_program, derivation_text, program_of
from codegen.targets import load_target
from codegen.worked import Stage, told, walked
from codegen.worked.story import backward_story, forward_story, memory
from codegen.worked.walk import Walk
from engine.notation import accesses, canonical, name_of
from tests.closed.forms import FORMS, Draw
from tests.report.test_report import TOLD

if TYPE_CHECKING:
    from codegen.derivation import Proof
    from codegen.program import Program
    from tests.closed.forms import Form

REFUSED = ("operatorname", "newcommand", "def", "mathclap", "underset")
"""Macros that GitHub's MathJax refuses."""


def closed_of(name: str) -> Program:
    return closed_program(program_of(load_target(name), name), name)


def proofs_of(name: str) -> tuple[Proof, ...]:
    return closed_of(name).derivation.proofs


@pytest.mark.parametrize("name", TOLD)
def test_the_states_lead_from_the_chain_rule_to_the_closed_form(name: str) -> None:
    for proof in proofs_of(name):
        states = told(proof)
        part = (
            "The gradient without its mean"
            if proof.name.endswith("_uncentred")
            else "A sum that several gradients need"
        )
        assert states[0].rule.startswith("Chain rule: " if proof.cell else part)
        assert canonical(states[-1].equation[1]) == canonical(proof.equation(avoid=())[1]) or len(states) > 1
        assert len(states) == 1 or all(s.rule for s in states)
        assert proof.origin is not None
        assert canonical(walked(proof.origin.code, proof.origin.statement)[-1].expr) == canonical(
            next(s.expr for s in proof.origin.code.statements if s.name == proof.origin.statement)
        )


@pytest.mark.parametrize("name", TOLD)
def test_every_name_is_defined(name: str) -> None:
    """What a state names is an input, a tensor with a formula, or a cotangent that a state before it puts in or introduces."""
    program = closed_of(name)
    assert program.writer is not None
    known = {p.name for p in forward_story(program.writer)} | set(program.graph.inputs)
    given = {"grad_out"} | {p.name for p in backward_story(program.writer)}
    for proof in program.derivation.proofs:
        introduced = given | {proof.name}
        for s in told(proof):
            for left, right in (*s.facts, s.equation):
                introduced |= {name_of(a) for a in accesses(left)}
                names = {name_of(a) for a in accesses(right)}
                unknown = names - known - introduced
                assert all(n.startswith("d") for n in unknown), unknown
                introduced |= unknown


def test_a_state_that_is_not_equal_is_dropped() -> None:
    (proof,) = proofs_of("cross_entropy")
    assert proof.origin is not None
    walk = Walk(proof.origin.code)
    s = next(s for s in walk.statements.values() if s.name == proof.origin.statement)
    right = list(walk.stages(s.name))
    wrong = Stage("a wrong rule", (), 2 * right[1].expr)
    assert [x.rule for x in walk._shown(s, [right[0], wrong, *right[1:]])] == [x.rule for x in right]


def test_without_a_point_nothing_but_the_closed_form_is_shown() -> None:
    (proof,) = proofs_of("cross_entropy")
    assert proof.origin is not None
    walk = Walk(proof.origin.code)
    walk.points.tensors = {}
    (only,) = walk.stages(proof.origin.statement)
    assert only.expr == walk.statements[proof.origin.statement].expr


@pytest.mark.parametrize(
    ("name", "cell", "facts"),
    [
        ("batchnorm_projection", "x", ("Σ_j v_matmul_t[j,i] = 0",)),
        ("cross_entropy", "logits", ("Σ_j probs[i,j] = 1",)),
        ("layernorm", "x", ("Σ_k xshift[i,j,k] = 0",)),
    ],
)
def test_the_facts_of_published_forms_are_shown(name: str, cell: str, facts: tuple[str, ...]) -> None:
    assert set(facts) <= facts_of(next(p for p in proofs_of(name) if p.cell == cell))


def facts_of(proof: Proof) -> set[str]:
    """The equations that the states of a proof come with."""
    from codegen.formula import text_formula

    return {f"{text_formula(a, s.ranks)} = {text_formula(b, s.ranks)}" for s in told(proof) for a, b in s.facts}


def test_a_sum_that_is_exchanged_is_shown() -> None:
    """In attention over many tokens, where the row sum over channels is the shorter one."""
    draw, form = Draw(0), next(f for f in FORMS if f.name == "attention")
    program = codegen.generate(form.forward, draw.normal(24, 4), draw.normal(24, 4), draw.normal(24, 4))
    assert "(out * grad_out).sum(1, keepdim=True)" in program.source
    found = {fact for proof in program.derivation.proofs for fact in facts_of(proof)}
    assert "Σ_j dp[i,j] p[i,j] = Σ_j grad_out[i,j] out[i,j]" in found


PUBLISHED = (
    *("focal", "clip", "batchnorm n-1", "bias before batchnorm", "groupnorm", "rmsnorm", "cosine similarity"),
    *("linear attention", "gelu tanh", "lstm cell", "transformer block"),
)


@pytest.mark.parametrize("form", [f for f in FORMS if f.name in PUBLISHED], ids=lambda f: f.name)
def test_published_forms_are_told(form: Form) -> None:
    """Forwards that the walk was not made with; a state that cannot be derived would be missing."""
    program = codegen.generate(form.forward, *form.inputs(Draw(0), form.batches[-1]), wrt=form.wrt or None)
    for proof in program.derivation.proofs:
        states = told(proof)
        changed = canonical(proof.naive) != canonical(proof.expr)
        assert len(states) >= (2 if proof.cell and changed else 1), proof.name


def test_equal_layers_are_told_once() -> None:
    import torch

    def stack(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        for w in weights:
            h = x @ w
            x = torch.tanh((h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt())
        return x.sum()

    program = codegen.generate(stack, torch.randn(5, 3), *[torch.randn(3, 3) for _ in range(6)])
    assert program.writer is not None
    parts = backward_story(program.writer)
    alike = [p for p in parts if p.like]
    assert len(alike) >= 4
    assert {p.like for p in alike} <= {p.name for p in parts if p.stages}
    assert all(p.equation is not None and not p.stages for p in alike)


@pytest.mark.sampled("name")
@pytest.mark.parametrize("name", TOLD)
def test_markdown_as_github_renders_it(name: str) -> None:
    text = derivation_text(program_of(load_target(name), name), name)
    parser = MathTextParser("path")
    blocks = re.findall(r"^```math\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"\$`(.*?)`\$", text)
    assert text.count("```") % 2 == 0
    assert len(blocks) > 5
    for formula in (*blocks, *inline):
        assert not any(rf"\{macro}" in formula for macro in REFUSED)
        assert formula.count("{") == formula.count("}")
        assert "\n\n" not in formula
        for line in re.sub(r"\\(begin|end)\{aligned\}", "", formula).split(r"\\" + "\n"):
            plain = line.replace("&", "").replace(r"\bmod", r"\;").replace(r"\partial\,", r"\partial").strip()
            if plain and "cases" not in plain and r"\text" not in plain:
                parser.parse(f"${plain}$")
    outside = re.sub(r"^```.*?^```$|`[^`]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "\\" not in outside
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", TOLD)
def test_what_is_saved_is_what_the_emitted_forward_saves(name: str) -> None:
    from codegen.inputs import example_inputs

    program = closed_of(name)
    assert program.writer is not None
    kept = memory(program.writer)
    _, saved = program.forward(*example_inputs(load_target(name)).values())
    assert [k.count for k in sorted((*kept.inputs, *kept.saved), key=lambda k: program.writer.saved.index(k.name))] == [
        t.numel() for t in saved
    ]
    assert kept.total == sum(k.count for k in kept.saved)
    assert not {k.name for k in kept.autograd} & set(program.graph.inputs)


def test_replaced_names_are_told() -> None:
    """A cotangent without a statement is called as the steps file calls it."""
    proof = next(p for p in proofs_of("batchnorm_projection") if p.cell == "x")
    names = {name_of(a) for s in told(proof) for a in accesses(s.equation[1])}
    assert "do_div" in names
    assert replace(proof, origin=None) == proof
    assert told(replace(proof, origin=None)) == ()
