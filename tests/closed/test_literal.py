"""What is rounded or compared is computed as the forward says: the last bit decides which whole number, or which branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

FORWARDS: dict[str, Callable[..., Any]] = {
    "floor": lambda x: torch.floor(x / 0.1) * x,
    "ceil": lambda x: torch.ceil((x + 0.1) * 3) * x,
    "round": lambda x: (x / 0.1).round() * 0.1 * x,
    "long": lambda x: (x / 0.1).long() * x,
    "int32": lambda x: (x * 10 / 0.7).to(torch.int32) * x,
    "remainder": lambda x: (x * 2) % 0.2,
    "fmod": lambda x: torch.fmod(x, 0.1),
    "floor division": lambda x: (x.detach() * 3 // 0.3) * x,
    "frac": lambda x: (x / 0.1).frac(),
    "straight through": lambda x: x / 0.1 + ((x / 0.1).round() - x / 0.1).detach(),
    "grid": lambda x: torch.floor((torch.arange(10, dtype=x.dtype) + 0.5) * 1.4 - 0.5) * x[:10],
    "single grid": lambda x: torch.floor((torch.arange(10) + 0.5) * 1.4 - 0.7) * x[:10],
    "linspace": lambda x: torch.floor(torch.linspace(0, 1, 11, dtype=x.dtype) * 10) * x[:11],
    "bucketize": lambda x: torch.bucketize(x.detach() / 0.1, torch.arange(10, dtype=x.dtype)) * x,
    "at least": lambda x: torch.where(x / 0.1 >= 3, x, 2 * x),
    "above": lambda x: torch.where((x * 0.1 - 0.3) > 0, x, 2 * x),
    "truth": lambda x: (x / 0.1 >= 3).to(x.dtype) * x + (x / 3 * 7 >= 0.3) * x,
    "kinks": lambda x: (x * 0.1 - 0.03).relu() + (x / 0.1 - 3).clamp(min=0) + (x / 0.1 - 3).abs(),
    "sign": lambda x: (x / 0.1 - 3).sign() * x,
    "equal": lambda x: torch.where(x / 0.1 == 3, x, -x),
    "larger": lambda x: torch.maximum(x * 0.1, torch.arange(1, 30, dtype=x.dtype) / 100),
    "bicubic": lambda x: F.interpolate(x[:10].view(1, 1, 5, 2), size=(7, 4), mode="bicubic"),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_at_tenths(name: str, mode: str) -> None:
    """Tenths are where a quotient by 0.1 and a product with 10 round apart."""
    forward = FORWARDS[name]
    x = torch.arange(1, 30, dtype=torch.float64) / 10
    leaf = x.clone().requires_grad_()
    wanted = forward(leaf)
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    program = codegen.generate(forward, x, mode=mode)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(program.backward(saved)["x"], gradient, rtol=1e-12, atol=1e-12)


def larger_of_multiples(x):
    return torch.maximum(0.9 * x, -0.1 * x).sum()


def larger_of_others(x):
    return torch.maximum(0.9 * x, 0.1 * x).sum()


def test_multiples_of_two_signs_may_be_told_by_the_tensor() -> None:
    """Which of 0.9 x and -0.1 x is larger is the sign of x; 0.9 x and 0.1 x are equal where x is infinite."""
    x = torch.tensor([-2.0, 0.0, 1.0, float("inf"), -float("inf")], dtype=torch.float64)
    sources: list[str] = []
    for forward in (larger_of_multiples, larger_of_others):
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf), leaf)
        program = codegen.generate(forward, x)
        torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], true)
        sources.append(program.source)
    assert "x.sign()" in sources[0]
    assert "x.sign()" not in sources[1]
