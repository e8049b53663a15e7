"""An emitted forward and backward as a `torch.autograd.Function`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program


def differentiable_again(g: Tensor | None) -> Tensor | None:
    """A gradient that is zero whatever the inputs are still takes part in a second differentiation."""
    return g.requires_grad_() if g is not None and torch.is_grad_enabled() and not g.requires_grad else g


def differentiable(program: Program) -> Callable[..., Any]:
    """A callable of the forward's own signature whose backward is the emitted one; it can be differentiated again."""
    graph = program.graph
    keys = [graph.key(n) if graph[n].differentiable else None for n in graph.inputs]
    wanted = program.wrt

    class Emitted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Any:
            ctx.save_for_backward(*tensors)
            out, _ = program.module.forward(*tensors)
            return out

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            # Recomputing from the inputs keeps the backward itself differentiable.
            _, saved = program.module.forward(*ctx.saved_tensors)
            found = program.module.backward(saved, grads[0] if graph.single else list(grads))
            slots = [found.get(k) if k is not None and (wanted is None or k in wanted) else None for k in keys]
            return tuple(differentiable_again(g) for g in slots)

    apply = cast("Any", Emitted).apply

    def function(*inputs: Any) -> Any:
        out = apply(*program.tensors(inputs))
        return out if graph.single else pytree.tree_unflatten(list(out), graph.structure)

    function.__name__ = graph.name
    return function
