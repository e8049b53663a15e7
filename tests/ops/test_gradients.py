"""Every row of the op table, derived and emitted in steps mode, equals autograd in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils import _pytree as pytree

import codegen
from tests.ops.rows import cases, rows
from tests.ops.samples import SAMPLES, Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def autograd(
    forward: Callable[..., Any], tensors: list[Tensor], constant: tuple[int, ...] = ()
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    """Outputs, what each is multiplied with, and the gradients of the floating inputs that are not constant."""
    leaves = [x.clone().requires_grad_(x.is_floating_point() and k not in constant) for k, x in enumerate(tensors)]
    torch.manual_seed(0)
    outputs = pytree.tree_leaves(forward(*leaves))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=o.dtype) if o.requires_grad else None for o in outputs]
    used = [(o, w) for o, w in zip(outputs, weights, strict=True) if w is not None]
    if not used:
        return outputs, weights, []
    asked = [x for x in leaves if x.requires_grad]
    found = torch.autograd.grad([o for o, _ in used], asked, [w for _, w in used], allow_unused=True)
    return outputs, weights, [torch.zeros_like(x) if g is None else g for x, g in zip(asked, found, strict=True)]


def assert_equal(mine: Tensor, theirs: Tensor, tolerance: float, what: str, source: str) -> None:
    """One gradient; a difference shows the emitted program."""
    torch.testing.assert_close(
        mine, theirs, rtol=tolerance, atol=tolerance / 10, equal_nan=True, msg=lambda m: f"{what}: {m}\n{source}"
    )


def check(target: Callable[..., Any], sample: Call, what: str) -> None:
    """One call through both."""
    tensors = sample.tensors()
    forward = sample.forward(target)
    outputs, weights, wanted = autograd(forward, tensors, sample.constant)
    if not wanted or not sample.values:
        return
    program = codegen.generate(forward, *tensors, mode="steps")
    torch.manual_seed(0)
    out, saved = program.forward(*tensors)
    for mine, theirs in zip(pytree.tree_leaves(out), outputs, strict=True):
        assert_equal(mine, theirs.detach(), 1e-9, what, program.source)
    grads = program.backward(saved, weights[0] if program.graph.single else weights)
    inputs = enumerate(zip(program.graph.inputs, tensors, strict=True))
    names = [n for k, (n, x) in inputs if x.is_floating_point() and k not in sample.constant]
    tolerance = max(1e-8 if all(o.dtype != torch.float32 for o in outputs) else 1e-5, sample.tolerance)
    for name, gradient in zip(names, wanted, strict=True):
        mine = grads[program.graph.key(name)]
        assert_equal(mine, gradient, tolerance, f"{what}, {name}", program.source)


@pytest.mark.sampled("name")
@pytest.mark.filterwarnings("ignore:.*")  # torch's own about old spellings
@pytest.mark.parametrize("name", [n for n in rows() if n in SAMPLES])
def test_gradient_equals_autograd(name: str) -> None:
    seen: set[int] = set()
    for title, target, sample in cases(name):
        if id(sample) in seen:  # another spelling of a call that was checked; the forward test covers the spellings
            continue
        seen.add(id(sample))
        what = f"{title}{tuple(tuple(x.shape) for x in sample.tensors())} {sample.kwargs}"
        check(target, sample, what)
