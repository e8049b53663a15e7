"""Published backwards from naive primitives: gradients, second derivatives, extreme inputs, and what they cost."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from tests.closed.forms import FORMS, Draw
from tests.closed.forms.counter import measured
from tests.closed.trail import gaps_of

if TYPE_CHECKING:
    from codegen.program import Program
    from tests.closed.forms import Form

RATIO = 1.25
pytestmark = pytest.mark.sampled("form")
COUNTED = [f for f in FORMS if f.hand is not None]
EXTREME = [f for f in FORMS if f.extreme]
ALONE = [f for f in FORMS if 1 in f.batches][::3]
"""Those of which a program is made at a batch of one as well, where sizes are fixed at one."""


@cache
def program_of(form: Form, n: int) -> Program:
    """The program of a form, made at a batch of n and right at others; tests share it."""
    return codegen.generate(form.forward, *form.inputs(Draw(0), n), wrt=form.wrt or None)


def wanted(form: Form, program: Program) -> list[str]:
    graph = program.graph
    return [n for n in graph.inputs if graph[n].differentiable and (not form.wrt or n in form.wrt)]


def autograd(form: Form, program: Program, inputs: list[Any], grad_out: torch.Tensor) -> list[torch.Tensor]:
    names = wanted(form, program)
    leaves = {n: t.clone().requires_grad_() for n, t in zip(program.graph.inputs, inputs, strict=True) if n in names}
    out = form.forward(*[leaves.get(n, t) for n, t in zip(program.graph.inputs, inputs, strict=True)])
    found = torch.autograd.grad(out, list(leaves.values()), grad_out, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves.values(), found, strict=True)]


def assert_gradients(form: Form, program: Program, n: int) -> None:
    inputs = form.inputs(Draw(1), n)
    out, saved = program.forward(*inputs)
    torch.testing.assert_close(out, form.forward(*inputs), rtol=1e-9, atol=1e-11)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(n), dtype=out.dtype)
    given = [t.clone() for t in (grad_out, *inputs)]
    grads = program.backward(saved, grad_out)
    assert all(map(torch.equal, given, (grad_out, *inputs)))
    for name, true in zip(wanted(form, program), autograd(form, program, inputs, grad_out), strict=True):
        if name in form.exact_zero:
            assert not grads[name].any()
        torch.testing.assert_close(grads[name], true, rtol=1e-8, atol=1e-11 + 1e-9 * float(true.abs().max()))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_gradients_are_those_of_autograd(form: Form) -> None:
    program = program_of(form, form.large)
    for n in form.batches:
        assert_gradients(form, program, n)


@pytest.mark.parametrize("form", ALONE, ids=lambda f: f.name)
def test_programs_made_at_a_batch_of_one(form: Form) -> None:
    assert_gradients(form, program_of(form, 1), 1)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_every_rewrite_of_the_forward_is_in_the_trail(form: Form) -> None:
    assert gaps_of(program_of(form, form.large)) == []


@pytest.mark.parametrize("form", COUNTED, ids=lambda f: f.name)
def test_the_hand_derived_versions_are_right(form: Form) -> None:
    program = program_of(form, form.large)
    inputs = form.inputs(Draw(1), form.batches[-1])
    out = form.forward(*inputs)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype)
    assert form.hand is not None
    by_hand, grads = form.hand(*inputs, grad_out)
    torch.testing.assert_close(by_hand, out)
    for mine, true in zip(grads, autograd(form, program, inputs, grad_out), strict=True):
        torch.testing.assert_close(mine, true)


@pytest.mark.parametrize("form", [f for f in FORMS if not f.straight], ids=lambda f: f.name)
def test_the_function_can_be_differentiated_again(form: Form) -> None:
    n = form.batches[-1]
    program = program_of(form, form.large)
    names = wanted(form, program)
    inputs = [
        t.requires_grad_() if k in names else t
        for k, t in zip(program.graph.inputs, form.inputs(Draw(2), n), strict=True)
    ]
    assert torch.autograd.gradcheck(program.function, inputs, fast_mode=True)
    if form.twice:
        assert torch.autograd.gradgradcheck(program.function, inputs, fast_mode=True)


@pytest.mark.parametrize("form", EXTREME, ids=lambda f: f.name)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_inputs_stay_finite(form: Form, scale: float) -> None:
    program = program_of(form, form.large)
    first, *rest = form.inputs(Draw(1), form.batches[-1])
    out, grads = program.value_and_grad(first * scale, *rest)
    assert out.isfinite().all()
    assert all(grads[n].isfinite().all() for n in wanted(form, program))


@pytest.mark.parametrize("form", COUNTED, ids=lambda f: f.name)
def test_elements_moved(form: Form) -> None:
    ours, hand = measured(form, program_of(form, form.large))
    assert hand is not None
    assert ours.elements <= max(RATIO, form.ratio) * hand.elements, (ours.log, hand.log)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_no_region_falls_back(form: Form) -> None:
    program = program_of(form, form.large)
    assert program.writer is not None
    codes = [region.code for region in program.writer.regions.values()]
    refused = [c.refused for c in codes if c.backward and not c.simplified]
    assert [{*r} for r in refused] == [{form.refusal}] * bool(form.refusal)
