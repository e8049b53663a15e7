"""The gates find numbers at which a forward is defined, whatever its logarithms and roots are taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

import codegen
from codegen.closed import code as closed_code
from codegen.closed.algebra.algebra import Algebra
from codegen.closed.gates import domains

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each region is closed anew."""
    monkeypatch.setattr(closed_code, "_codes", {})


def bce(p: Any, b: Any, y: Any) -> Any:
    return F.binary_cross_entropy(p + b, y)


def two_logarithms(p: Any, b: Any, y: Any) -> Any:
    q = p * b[0] + b[1]
    return -(y * q.log() + (1 - y) * (1 - q).log()).mean()


def far_away(p: Any, b: Any, y: Any) -> Any:
    """Of a number that is between 300 and 301."""
    q = 300 + p - b
    return -(y * (q - 300).log() + (1 - y) * (301 - q).log()).mean()


def mean_angle(p: Any, b: Any, y: Any) -> Any:
    """The angle of a sum over a row, which is smaller than one."""
    return (torch.acos((p * y).sum(1) + b.sum()) * y.sum(1)).sum()


def root_of_a_difference(p: Any, b: Any, y: Any) -> Any:
    return ((p - b - 3 * y).sqrt() * torch.log(5 * y - p)).sum()


FORWARDS = (bce, two_logarithms, far_away, mean_angle, root_of_a_difference)


def inputs_of(forward: Callable[..., Any]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    p, y = (0.2 + 0.6 * torch.rand(6, 4, generator=g, dtype=torch.float64) for _ in range(2))
    b = 0.1 * torch.rand(4, generator=g, dtype=torch.float64)
    if forward is two_logarithms:
        b = torch.stack([1 - b, b])
    if forward is root_of_a_difference:
        p, y = p + 3.5, y * 0.1 + 0.95
    return [p / 20 if forward is mean_angle else p, b, y]


def refusals(program: Program) -> list[str]:
    assert program.writer is not None
    return [reason for region in program.writer.regions.values() for reason in region.code.refused]


def check_right(program: Program, forward: Callable[..., Any]) -> None:
    inputs = [t.requires_grad_() for t in inputs_of(forward)]
    out = forward(*inputs)
    assert out.isfinite().all()
    true = torch.autograd.grad(out, inputs)
    for mine, theirs in zip(program.backward(program.forward(*inputs)[1]).values(), true, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("forward", FORWARDS)
def test_what_is_defined_for_few_numbers_is_judged_there(forward: Callable[..., Any]) -> None:
    program = codegen.generate(forward, *inputs_of(forward))
    assert [r for r in refusals(program) if "no point" in r or "no inputs" in r] == []
    check_right(program, forward)


@pytest.mark.parametrize("forward", FORWARDS)
def test_a_wrong_rule_is_refused_there(forward: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    normal = Algebra.normal
    monkeypatch.setattr(Algebra, "normal", lambda self, e, ranges: normal(self, sp.sympify(e), ranges) * 2)
    program = codegen.generate(forward, *inputs_of(forward))
    assert any("differs from the derivation" in r for r in refusals(program))
    check_right(program, forward)


def never(p: Any, b: Any, y: Any) -> Any:
    """Of a number that would be below zero and above one."""
    q = p + b
    return (y * (-q).log() * (q - 1).log()).sum()


def test_what_is_defined_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "MOVES", 100)  # none of many more would get there
    program = codegen.generate(never, *inputs_of(never))
    assert any("no point was found" in r for r in refusals(program))


def sparsemax(x: Any) -> Any:
    """Martins and Astudillo (2016): a row's threshold is its largest entries' sum less one, over how many these are."""
    s = torch.sort(x, dim=1, descending=True)[0]
    c = s.cumsum(1)
    count = (1 + torch.arange(1, x.shape[1] + 1) * s > c).sum(1, keepdim=True)
    return torch.relu(x - (c.gather(1, count - 1) - 1) / count)


def mean_of_chosen(x: Any) -> Any:
    chosen = x > 0.3
    return ((x * chosen).sum(1) / chosen.sum(1)).square().sum()


@pytest.mark.parametrize("forward", [sparsemax, mean_of_chosen])
def test_a_number_of_things_that_is_divided_by_is_judged_where_it_is_not_zero(forward: Callable[..., Any]) -> None:
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    program = codegen.generate(forward, x)
    assert refusals(program) == []
    leaf = x.clone().requires_grad_()
    out = forward(leaf)
    grad_out = torch.rand(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = program.backward(program.forward(x)[1], grad_out)
    torch.testing.assert_close(grads["x"], torch.autograd.grad(out, leaf, grad_out)[0])
