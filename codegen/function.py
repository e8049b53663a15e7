"""An emitted forward and backward as a differentiable callable of the forward's own signature."""

from __future__ import annotations

import ast
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from codegen.closed.regions.random import random_nodes
from codegen.emitfunction import Emission, function_text
from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from codegen.program import Program


def differentiable(program: Program) -> Callable[..., Any]:
    """A callable of the forward's own signature whose backward is the emitted one; it can be differentiated again.

    A module's parameters and buffers are used, and its buffers renewed, where they are not among the arguments.
    """
    space = vars(program.module) if program.mode == "closed" else with_function(program)
    apply, results = space["apply"], tuple(dict.fromkeys(program.graph.outputs))
    graph, owner, structure = program.graph, program.owner, program.graph.structure
    at = tuple(results.index(n) for n in graph.outputs)
    renewed = tuple((graph.key(n), graph.inputs.index(n)) for n in graph.buffers) if program.mode == "closed" else ()

    def function(*inputs: Any) -> Any:
        tensors = program.tensors(inputs)
        own = owner is not None and len(tensors) > len(pytree.tree_leaves(list(inputs)))
        if own:
            check_mode(program)
            for _, k in renewed:  # what is saved for the backward stays as it is when the buffer changes
                tensors[k] = tensors[k].clone()
        out = apply(*tensors)
        if own and renewed:
            renew(owner, dict(zip([n for n, _ in renewed], out[-len(renewed) :], strict=True)))
        found = [out[k] for k in at]
        return found[0] if structure is None else structure.around(found)

    function.__name__ = graph.name
    return function


def renew(owner: Any, values: Mapping[str, Tensor]) -> None:
    """Give a module's buffers new values, in place."""
    with torch.no_grad():
        for name, value in values.items():
            owner.get_buffer(name).copy_(value)


def check_mode(program: Program) -> None:
    """Refuse a module that is in another mode than it was derived in, where that makes a difference."""
    state = program.graph.state
    if state is not None and state.fixed and program.owner is not None and program.owner.training != state.training:
        now, then = ("training", "evaluation") if program.owner.training else ("evaluation", "training")
        raise InputError(
            f"{program.graph.name} is in {now} mode and was derived in {then} mode; generate it again, or put it back"
        )


def with_function(program: Program) -> dict[str, Any]:
    """The emitted module of a program in steps mode with the `Function` that `closed.py` has."""
    graph = program.graph
    fields = tuple(program.module.Saved._fields)
    drawn = [n for n in random_nodes(graph) if n in fields]
    if len(drawn) < len(random_nodes(graph)):
        raise InputError(
            f"{graph.name} draws random numbers that steps mode does not keep, so its result cannot be differentiated "
            "as torch would. Use mode='closed'."
        )
    wanted = tuple(
        n for n in graph.inputs if graph[n].differentiable and (program.wrt is None or graph.key(n) in program.wrt)
    )
    parts = (s for s in ast.parse(program.source).body if isinstance(s, ast.FunctionDef) and s.name == "forward")
    lines = tuple(map(ast.unparse, next(parts).body))
    text = function_text(Emission(graph, wanted, fields, "Saved", lines=lines))
    module = types.ModuleType(f"{program.module.__name__}_function")
    sys.modules[module.__name__] = module  # torch.compile looks for what a frame reads by its module's name
    space = vars(module)
    space.update({k: v for k, v in vars(program.module).items() if not k.startswith("__")})
    if drawn:
        text = re.sub(r"_, saved = forward\(.*\)", "raise NotImplementedError(SECOND)", text)
        space["SECOND"] = (
            f"{graph.name} draws random numbers: in steps mode its gradient cannot be differentiated. Use mode='closed'."
        )
    exec(compile(text, f"<function {graph.name}>", "exec"), space)
    return space
