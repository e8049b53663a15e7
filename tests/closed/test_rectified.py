"""Choices by the sign of x: kept by what relu and leaky_relu make of it, with torch's kernel, and made again beside a divisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "where": lambda h: torch.where(h > 0, h, torch.zeros_like(h)),
    "a product with a mask": lambda h: h * (h > 0),
    "leaky relu": lambda h: torch.nn.functional.leaky_relu(h, 0.2),
}


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def agree(forward: Callable[..., Tensor], program: codegen.Program, inputs: list[Tensor]) -> None:
    """The program's gradients are autograd's, and finite."""
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    wanted = [t for t in leaves if t.requires_grad]
    true = torch.autograd.grad(forward(*leaves), wanted)
    _, saved = program.forward(*inputs)
    found = program.backward(saved)
    for name, own in zip(found, true, strict=True):
        assert own.isfinite().all()
        torch.testing.assert_close(found[name], own, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_rectified_is_kept_once(spelling: str) -> None:
    """The product reads the result for its weights, so that the sign is told by it as well."""

    def forward(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return (SPELLINGS[spelling](x @ w) @ v).square().mean()

    inputs = drawn((6, 5), (5, 4), (4, 3))
    program = codegen.generate(forward, *inputs)
    _, saved = program.forward(*inputs)
    assert sum(t.shape == (6, 4) for t in saved) == 1
    assert f"{'leaky_relu' if spelling == 'leaky relu' else 'threshold'}_backward(" in program.source
    agree(forward, program, inputs)
    inputs[1][:, 0] = 0.0  # a column that is 0 all over: the kink
    agree(forward, program, inputs)


def test_what_is_read_for_more_than_its_sign_is_not_kept_twice() -> None:
    def forward(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        h = x @ w
        return ((h.relu() @ v) * h.sin().sum()).mean()

    inputs = drawn((6, 5), (5, 4), (4, 3))
    program = codegen.generate(forward, *inputs)
    agree(forward, program, inputs)
    source = program.source
    assert "threshold_backward(dout_relu, h, 0)" in source or "h <= 0" in source


def test_the_kernel_is_differentiable() -> None:
    def forward(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return (torch.relu(x @ w) @ v).square().mean()

    inputs = drawn((3, 4), (4, 3), (3, 2))
    function = codegen.generate(forward, *inputs).module.function
    assert torch.autograd.gradgradcheck(function, [t.requires_grad_() for t in inputs])


def row_lengths(x: Tensor) -> Tensor:
    r = x.relu()
    return (r * r).sum(1).sqrt().sum()


def length_of_what_is_masked(x: Tensor, m: Tensor) -> Tensor:
    return (torch.where(m, x, torch.zeros_like(x)) ** 2).sum().sqrt()


@pytest.mark.parametrize("forward", [row_lengths, length_of_what_is_masked])
def test_a_choice_stays_where_what_it_divides_by_is_zero(forward: Callable[..., Tensor]) -> None:
    """`[x > 0] r / |r|` is 0 where all of r is, and `r / |r|`, which is equal elsewhere, 0/0."""
    (x,) = drawn((4, 5))
    masks = [torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) > 0.5] if forward is not row_lengths else []
    program = codegen.generate(forward, x, *masks)
    agree(forward, program, [x, *masks])
    agree(forward, program, [-x.abs(), *[torch.zeros_like(m) for m in masks]])


SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a slope by a choice": lambda x, a: x * torch.where(x > 0, 1, a),
    "by cases": lambda x, a: torch.where(x > 0, x, x * a),
    "by a mask": lambda x, a: x * (x > 0) + a * x * (1 - (x > 0).to(x.dtype)),
}


@pytest.mark.parametrize("spelling", SLOPES)
def test_what_is_masked_is_summed_and_not_what_is_left_of_two_sums(spelling: str) -> None:
    """`Sum p - Sum [x > 0] p` has no digits where the sums are large and their difference is small."""
    forward = SLOPES[spelling]
    x, a = torch.full((64, 3), 1e4), torch.tensor([0.25, 0.1, 0.3])
    x[5] = -1e-3
    program = codegen.generate(forward, torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), a)
    out, saved = program.forward(x, a)
    torch.testing.assert_close(program.backward(saved, torch.ones_like(out))["a"], torch.full((3,), -1e-3))
