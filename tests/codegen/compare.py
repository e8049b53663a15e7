"""An emitted program against autograd of the user's own forward: results and gradients of inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from codegen.program import Program
from codegen.reference import own_run

TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.float64: (1e-9, 1e-12)}


def tensors_of(inputs: Sequence[Any]) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(list(inputs)) if isinstance(v, Tensor)]


def assert_matches(program: Program, forward: Callable[..., Any], inputs: Sequence[Any]) -> None:
    """Results and input gradients agree, for a random cotangent of every result."""
    tensors = tensors_of(inputs)
    dtype = next(t.dtype for t in tensors if t.is_floating_point())
    rtol, atol = TOLERANCE[dtype]
    out, saved = program.forward(*inputs)
    results = pytree.tree_leaves(out)
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(r.shape, generator=generator, dtype=r.dtype) for r in results]
    own = own_run(program.graph, forward, inputs, tensors, cotangents)
    for result, expected in zip(results, own.values.values(), strict=True):
        torch.testing.assert_close(result, expected, rtol=rtol, atol=atol, equal_nan=True)
    grads = program.backward(saved, cotangents[0] if program.graph.single else cotangents)
    for name, expected in own.gradients.items():
        if program.graph[name].differentiable:
            wanted = (
                torch.zeros_like(program.tensors(inputs)[program.graph.inputs.index(name)])
                if expected is None
                else expected
            )
            scale = float(wanted.abs().max()) if wanted.numel() else 0.0
            torch.testing.assert_close(
                grads[program.graph.key(name)],
                wanted,
                rtol=rtol,
                atol=atol * max(1.0, scale),
                equal_nan=True,
                msg=lambda m, n=name: f"{n}: {m}",
            )
