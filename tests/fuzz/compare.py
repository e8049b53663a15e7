"""One random forward through both modes, against autograd in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils import _pytree as pytree

import codegen
from codegen.measure import difference
from engine.errors import SymgradError
from tests.fuzz.forwards import EXAMPLE

if TYPE_CHECKING:
    from tests.codegen.random_forwards import RandomForward

MODES = ("steps", "closed")
BITS = 1e-14
"""A few last bits of the cotangents, which are near one: where all of a gradient cancels, what is left is no difference."""


class Mismatch(AssertionError):
    """A program that does not do what autograd does; the message holds the forward and the emitted text."""


def compared(drawn: RandomForward, mode: str, seed: int) -> str:
    """How a forward fares: "pass", or "refused: ..." with the reason. Raises Mismatch for anything else.

    A difference beyond torch's tolerances is judged by `codegen.check`, which holds both sides against the truth.
    """
    forward = drawn.function()
    inputs = drawn.tensors(torch.float64, EXAMPLE)
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    outputs = pytree.tree_leaves(forward(*leaves))
    generator = torch.Generator().manual_seed(seed)
    seeds = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    live = [(o, g) for o, g in zip(outputs, seeds, strict=True) if o.requires_grad]
    asked = [t for t in leaves if t.requires_grad]
    found = (
        torch.autograd.grad([o for o, _ in live], asked, [g for _, g in live], allow_unused=True)
        if live
        else [None] * len(asked)
    )
    try:
        program = codegen.generate(forward, *inputs, mode=mode)
        out, saved = program.forward(*inputs)
        grads = program.backward(saved, seeds[0] if program.graph.single else seeds)
    except SymgradError as error:
        return f"refused: {error}".split("\n")[0]
    except Exception as error:
        raise Mismatch(f"{mode}: {type(error).__name__}: {error}\n{drawn}") from error
    pairs = list(zip(pytree.tree_leaves(out), [o.detach() for o in outputs], strict=True))
    names = [n for n, t in zip(program.graph.inputs, inputs, strict=True) if t.is_floating_point()]
    pairs += [(grads[n], torch.zeros_like(t) if g is None else g) for n, t, g in zip(names, asked, found, strict=True)]
    for mine, theirs in pairs:
        same_kind = mine.shape == theirs.shape and mine.dtype == theirs.dtype
        if not same_kind or not (difference(mine, theirs).allclose or torch.allclose(mine, theirs, rtol=0, atol=BITS)):
            report = codegen.check(program, *inputs, grad_out=seeds)
            if not same_kind or not report.ok:
                raise Mismatch(f"{mode}: {'; '.join(report.failures)}\n{drawn}\n{program.source}")
    return "pass"
