"""One random forward through both modes, against autograd in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

import codegen
from codegen.measure import difference
from engine.errors import SymgradError
from tests.fuzz.forwards import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from codegen.program import Program
    from tests.codegen.random_forwards import RandomForward

MODES = ("steps", "closed")
BITS = 1e-14
"""A few last bits of the cotangents, which are near one: where all of a gradient cancels, what is left is no difference."""


class Mismatch(AssertionError):
    """A program that does not do what autograd does; the message holds the forward and the emitted text."""


def compared(drawn: RandomForward, mode: str, seed: int) -> str:
    """How a forward fares: "pass", or "refused: ..." with the reason. Raises Mismatch for anything else.

    A difference beyond torch's tolerances is judged by `codegen.check`, which holds both sides against the truth. Where one
    input is zero, gradients are finite if autograd's are.
    """
    forward = drawn.function()
    inputs = drawn.tensors(torch.float64, EXAMPLE)
    outputs, seeds, found = by_autograd(forward, inputs, seed)
    try:
        program = codegen.generate(forward, *inputs, mode=mode)
        out, saved = program.forward(*inputs)
        grads = program.backward(saved, seeds[0] if program.graph.single else seeds)
    except SymgradError as error:
        return f"refused: {error}".split("\n")[0]
    except Exception as error:
        raise Mismatch(f"{mode}: {type(error).__name__}: {error}\n{drawn}") from error
    pairs = list(zip(pytree.tree_leaves(out), outputs, strict=True))
    pairs += [(grads[n], g) for n, g in zip(differentiable(program, inputs), found, strict=True)]
    for mine, theirs in pairs:
        same_kind = mine.shape == theirs.shape and mine.dtype == theirs.dtype
        if not same_kind or not (difference(mine, theirs).allclose or torch.allclose(mine, theirs, rtol=0, atol=BITS)):
            report = codegen.check(program, *inputs, grad_out=seeds)
            if not same_kind or not report.ok:
                raise Mismatch(f"{mode}: {'; '.join(report.failures)}\n{drawn}\n{program.source}")
    for name in differentiable(program, inputs):
        at_zero(drawn, program, inputs, name, seed)
    return "pass"


def by_autograd(
    forward: Callable[..., Any], inputs: Sequence[Tensor], seed: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The results, random cotangents of them, and the gradients of the inputs of floating point."""
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    outputs = pytree.tree_leaves(forward(*leaves))
    generator = torch.Generator().manual_seed(seed)
    seeds = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    live = [(o, g) for o, g in zip(outputs, seeds, strict=True) if o.requires_grad]
    asked = [t for t in leaves if t.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(asked)
    if live:
        found = torch.autograd.grad([o for o, _ in live], asked, [g for _, g in live], allow_unused=True)
    gradients = [torch.zeros_like(t) if g is None else g for t, g in zip(asked, found, strict=True)]
    return [o.detach() for o in outputs], seeds, gradients


def differentiable(program: Program, inputs: Sequence[Tensor]) -> list[str]:
    """The names of the inputs of floating point."""
    return [n for n, t in zip(program.graph.inputs, inputs, strict=True) if t.is_floating_point()]


def at_zero(drawn: RandomForward, program: Program, inputs: Sequence[Tensor], zero: str, seed: int) -> None:
    """Raises Mismatch where an input is zero and a gradient is not finite though autograd's is: something divides by it."""
    given = [t * 0 if n == zero else t for n, t in zip(program.graph.inputs, inputs, strict=True)]
    try:
        _, seeds, found = by_autograd(drawn.function(), given, seed)
    except (RuntimeError, IndexError):  # where an index is made from it, say
        return
    _, saved = program.forward(*given)
    grads = program.backward(saved, seeds[0] if program.graph.single else seeds)
    for name, theirs in zip(differentiable(program, inputs), found, strict=True):
        if not grads[name][theirs.isfinite()].isfinite().all():
            raise Mismatch(f"{program.mode}: the gradient of {name} where {zero} is 0\n{drawn}\n{program.source}")
