"""Second order: the derivation applied to its own result gives Hessian-vector products.

The gradient along vectors, `s(x, v) = Sum_k <df/dx_k, v_k>`, is a scalar that the emitted backward computes in plain torch. So it
can be traced and derived like any forward, and its gradient with respect to x is H v: the Hessian of f is symmetric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.errors import InputError
from engine.naming import free_name
from engine.spelling import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.program import Program
    from engine.graph import Graph


def vector_name(graph: Graph, name: str) -> str:
    """What the vector beside an input is called: `v_w` beside `w`, with more underscores where that is taken."""
    vector = free_name(f"v_{name}", graph.inputs)
    return vector


def differentiable_inputs(graph: Graph) -> list[str]:
    """The inputs that gradients are taken of, by their names in the emitted file."""
    return [n for n in graph.inputs if graph[n].differentiable]


def gradient_along(program: Program, example: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """A forward of the program's inputs and of a vector beside each differentiable one, with examples of both.

    Raises InputError where the result is no scalar: only that has a Hessian.
    """
    graph = program.graph
    if not graph.single or graph[graph.outputs[0]].shape:
        raise InputError(
            f"order=2 needs a forward that returns one scalar; {graph.name} returns {graph.outputs}. Sum it."
        )
    names = differentiable_inputs(graph)
    vectors = [vector_name(graph, n) for n in names]
    terms = " + ".join(f"(grads[{quoted(graph.key(n))}] * {v}).sum()" for n, v in zip(names, vectors, strict=True))
    text = (
        f"def gradient_along({listed([*graph.inputs, *vectors])}):\n"
        f"    _, saved = first.forward({listed(graph.inputs)})\n"
        f"    grads = first.backward(saved)\n"
        f"    along = {terms}\n"
        f"    return along\n"
    )
    space: dict[str, Any] = {"first": program.module}
    exec(compile(text, f"<{graph.name}, gradient along vectors>", "exec"), space)
    tensors = dict(zip(graph.inputs, example, strict=True))
    return space["gradient_along"], [*example, *[torch.ones_like(tensors[n]) for n in names]]


def hvp(program: Program, inputs: Sequence[Any], vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Hessian of a program's result times `vectors`, by the keys of `Program.backward`."""
    second, graph = program.second, program.graph
    if second is None:
        raise InputError(f"{graph.name} was generated for first derivatives; generate it with order=2")
    tensors = dict(zip(graph.inputs, program.tensors(inputs), strict=True))
    keys = {graph.key(n): n for n in differentiable_inputs(graph)}
    unknown = [k for k in vectors if k not in keys]
    if unknown:
        raise InputError(f"vectors names {unknown[0]!r}, which is no differentiable input; those are {', '.join(keys)}")
    given: list[Tensor] = []
    for key, name in keys.items():
        v = vectors.get(key, torch.zeros_like(tensors[name]))
        if v.shape != tensors[name].shape or v.dtype != tensors[name].dtype:
            wanted = f"{tensors[name].dtype} {tuple(tensors[name].shape)}"
            raise InputError(f"the vector for {key} is {v.dtype} {tuple(v.shape)}, the input {wanted}")
        given.append(v)
    _, saved = second.forward(*tensors.values(), *given)
    found = second.backward(saved)
    return {key: found[name] for key, name in keys.items() if program.wrt is None or key in program.wrt}
