"""What is passed back exactly at a kink belongs to the side that the forward chose there, in whatever spelling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import codegen

X = torch.tensor([-7, -6, -3, -2, -1, -0.5, -0.0, 0, 0.5, 1, 2, 3, 6, 7], dtype=torch.float64)
FORWARDS: dict[str, Callable[[Tensor], Any]] = {
    "absolute value, 0 above": lambda x: torch.where(x >= 0, x, -x),
    "absolute value, 0 below": lambda x: torch.where(x > 0, x, -x),
    "leaky, 0 above": lambda x: torch.where(x >= 0, x, 0.1 * x),
    "leaky, 0 below": lambda x: torch.where(x <= 0, 0.1 * x, x),
    "elu, 0 above": lambda x: torch.where(x >= 0, x, 2 * (x.exp() - 1)),
    "elu, 0 below": lambda x: torch.where(x > 0, x, 2 * (x.exp() - 1)),
    "softplus, linear from 1 on": lambda x: torch.where(x >= 1, x, (1 + x.exp()).log()),
    "softplus, linear above 1": lambda x: torch.where(x > 1, x, (1 + x.exp()).log()),
    "bounded, bounds within": lambda x: torch.where(x < -1, -1.0, torch.where(x > 1, 1.0, x)),
    "bounded, bounds outside": lambda x: torch.where(x <= -1, -1.0, torch.where(x >= 1, 1.0, x)),
    "bounded, one of each": lambda x: torch.where(x <= -1, -1.0, torch.where(x > 1, 1.0, x)),
    "clamp beside hardtanh": lambda x: x.clamp(-1, 1) * 2 + F.hardtanh(x) * 3,
    "clamp beside relu6": lambda x: x.clamp(0, 6).square() + F.relu6(x).square(),
    "clamp beside relu": lambda x: x.clamp(min=0) * 2 + x.relu() * 3,
    "maximum beside clamp": lambda x: torch.maximum(x, torch.zeros_like(x)) * 2 + x.clamp(min=0) * 3,
    "hardtanh of a clamp": lambda x: F.hardtanh(x.clamp(-1, 1)),
    "clamp of hardtanh": lambda x: F.hardtanh(x).clamp(-1, 1),
    "soft threshold": lambda x: torch.where(x >= 0.5, x - 0.5, torch.where(x <= -0.5, x + 0.5, 0.0)),
    "hard threshold": lambda x: x * (x.abs() >= 0.5),
    "by masks": lambda x: (x >= 0).double() * x + (x < 0).double() * 0.1 * x,
    "by masks with a gap": lambda x: (x > 0).double() * x + (x < 0).double() * 0.1 * x,
    "hard swish": lambda x: torch.where(x <= -3, 0.0, torch.where(x >= 3, x, x * (x + 3) / 6)),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_kinks(name: str) -> None:
    w = torch.linspace(1, 2, len(X), dtype=X.dtype)

    def forward(x, w):
        return (FORWARDS[name](x) * w).sum()

    program = codegen.generate(forward, X, w)
    x = X.clone().requires_grad_()
    out = forward(x, w)
    out.backward()
    ours, grads = program.value_and_grad(X, w)
    torch.testing.assert_close(ours, out.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads["x"], x.grad, rtol=1e-12, atol=1e-12)
