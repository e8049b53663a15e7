"""Forwards of single numbers: each is passed back once, as for tensors, and no cotangent is multiplied out into another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def neuron(x1: Tensor, x2: Tensor, w1: Tensor, w2: Tensor, b: Tensor) -> Tensor:
    n = x1 * w1 + x2 * w2 + b
    e = (2 * n).exp()
    return (e - 1) / (e + 1)


def expression(a: Tensor, b: Tensor) -> Tensor:
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    return f / 2.0 + 10.0 / f


def filtered(y0: Tensor, y1: Tensor, a: Tensor, q: Tensor, r: Tensor) -> Tensor:
    m, P, loss = 0.0 * y0, 0.0 * y0 + 1, 0.0 * y0
    for y in (y0, y1):
        m, P = a * m, a * a * P + q * q
        S = P + r * r
        e = y - m
        loss = loss + S.log() + e * e / S
        K = P / S
        m, P = m + K * e, (1 - K) * P
    return loss


def cotangents(forward: Callable[..., Tensor], inputs: list[Tensor]) -> list[str]:
    """The names of the cotangents in a program's file, whose gradients are those of autograd."""
    program = codegen.generate(forward, *inputs)
    leaves = [t.clone().requires_grad_() for t in inputs]
    out, saved = program.forward(*inputs)
    true = torch.autograd.grad(forward(*leaves).sum(), leaves)
    for found, expected in zip(program.backward(saved, torch.ones_like(out)).values(), true, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert program.mode == "closed"
    backward = program.source[program.source.index("def backward") : program.source.index("def step")]
    return re.findall(r"^    (d\w+) = (?!torch.zeros)", backward, re.MULTILINE)


@pytest.mark.parametrize(("forward", "count"), [(neuron, 5), (expression, 2), (filtered, 5)])
def test_numbers_are_passed_back_as_tensors_are(forward: Callable[..., Tensor], count: int) -> None:
    g = torch.Generator().manual_seed(3)
    numbers = [torch.rand((), generator=g, dtype=torch.float64) + 0.5 for _ in range(count)]
    rows = [torch.rand(5, generator=g, dtype=torch.float64) + 0.5 for _ in range(count)]
    alike, own = cotangents(lambda *x: forward(*x).sum(), rows), cotangents(forward, numbers)
    assert abs(len(own) - len(alike)) <= 2, (own, alike)


def test_a_number_that_several_read_has_one_cotangent() -> None:
    source = codegen.generate(neuron, *[torch.rand(()) for _ in range(5)]).source
    assert source.count("tanh_backward(") == 1
    assert "dw1 = x1 * dn" in source
    assert '"b": dn' in source


def test_whole_numbers_stay_whole() -> None:
    source = codegen.generate(expression, torch.tensor(-4.0), torch.tensor(2.0)).source
    assert "# de = (e - 20 / e^3) grad_out" in source


def test_what_is_negated_is_subtracted_where_it_is_put_behind_a_sum() -> None:
    source = codegen.generate(filtered, *[torch.rand(()) + 0.5 for _ in range(5)]).source
    assert "+ -" not in source


def places(x: Tensor, y: Tensor) -> Tensor:
    return (x * F.pad(F.one_hot(y, 4).float(), (1, 1), mode="reflect")).square().sum()


def test_what_is_padded_is_there_as_a_tensor() -> None:
    x, y = torch.randn(6, 6, dtype=torch.float64), torch.randint(0, 4, (6,))
    leaf = x.clone().requires_grad_()
    places(leaf, y).backward()
    _, grads = codegen.generate(places, x, y).value_and_grad(x, y)
    torch.testing.assert_close(grads["x"], leaf.grad)


def kept(x0: Tensor, x1: Tensor) -> Tensor:
    v = (x0 * x0 + 1).sqrt() * x1.relu()
    w = x0 / (1 + v * v)
    return w.tanh() + w * x1.relu()


def test_what_is_passed_back_as_it_is_has_no_statement() -> None:
    source = codegen.generate(kept, torch.tensor(0.4), torch.tensor(0.7)).source
    assert "= grad_out\n" not in source
