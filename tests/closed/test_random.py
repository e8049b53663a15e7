"""Random forwards in closed mode against autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

import codegen
from tests.codegen.random_forwards import RandomForward, forwards


@settings(max_examples=16)
@given(forwards())
def test_random_forwards(drawn: RandomForward) -> None:
    forward = drawn.function()
    inputs = drawn.tensors(torch.float64, 0)
    program = codegen.generate(forward, *inputs)
    names = [n for n, t in zip(program.graph.inputs, inputs, strict=True) if t.is_floating_point()]
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    out = forward(*leaves)
    if not out.requires_grad:
        pytest.skip("nothing to differentiate")
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    floats = [t for t in leaves if t.is_floating_point()]
    true = torch.autograd.grad(out, floats, grad_out, allow_unused=True)
    result, saved = program.forward(*inputs)
    torch.testing.assert_close(result, out.detach(), rtol=1e-8, atol=1e-9)
    grads = program.backward(saved, grad_out)
    for name, t, g in zip(names, floats, true, strict=True):
        scale = 1.0 if g is None else float(g.abs().max()) if g.numel() else 1.0
        torch.testing.assert_close(
            grads[name], torch.zeros_like(t) if g is None else g, rtol=1e-7, atol=1e-9 * max(scale, 1)
        )
