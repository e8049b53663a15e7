"""What an `nn.Module` holds besides its forward: names of parameters and buffers, shared ones, and the mode it was traced in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.closed.regions.random import random_nodes
from engine import trace
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from engine.graph import Graph

OWN_ERRORS = (SymgradError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a module's forward may raise in a mode that it was not written for."""


@dataclass(frozen=True)
class ModuleState:
    """The state of a module by name, in its own order.

    Attributes:
        parameters: those that are trained.
        frozen: parameters that do not require a gradient.
        buffers: those that its state dict holds.
        loose: buffers that it does not.
        shared: further names of tensors that are held under an earlier one.
        training: the mode it was traced in.
        fixed: whether its forward depends on that mode.
    """

    parameters: tuple[str, ...]
    frozen: tuple[str, ...]
    buffers: tuple[str, ...]
    loose: tuple[str, ...]
    shared: tuple[tuple[str, str], ...]
    training: bool
    fixed: bool


def module_state(module: nn.Module, graph: Graph, inputs: Sequence[Any]) -> ModuleState:
    """The state of a module whose forward was recorded in `graph` from these inputs."""
    first: dict[int, str] = {}
    shared: list[tuple[str, str]] = []

    def once(items: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Those that were not held under another name before."""
        found: dict[str, Tensor] = {}
        for name, t in items:
            if id(t) in first:
                shared.append((name, first[id(t)]))
            else:
                first[id(t)] = name
                found[name] = t
        return found

    parameters = once(module.named_parameters(remove_duplicate=False))
    buffers = once(module.named_buffers(remove_duplicate=False))
    kept = module.state_dict()
    return ModuleState(
        tuple(n for n, p in parameters.items() if p.requires_grad),
        tuple(n for n, p in parameters.items() if not p.requires_grad),
        tuple(n for n in buffers if n in kept),
        tuple(n for n in buffers if n not in kept),
        tuple(shared),
        module.training,
        depends_on_mode(module, graph, inputs),
    )


def depends_on_mode(module: nn.Module, graph: Graph, inputs: Sequence[Any]) -> bool:
    """Whether the forward is another one in the other mode: it is recorded there too, and the two are compared."""
    if module.training and (graph.buffers or random_nodes(graph)):
        return True
    before = {m: m.training for m in module.modules()}
    try:
        module.train(not module.training)
        return repr(trace(module, *inputs)) != repr(graph)
    except OWN_ERRORS:
        return True
    finally:
        for m, training in before.items():
            m.training = training
