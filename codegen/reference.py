"""What autograd says: the recorded torch calls of a graph, executed one by one with a gradient kept at every node."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from codegen.stops import without_gradient
from engine.errors import InputError
from engine.evaluate import sizes_of
from engine.notation import in_wholes
from engine.own import is_operator
from engine.spelling import Ref, SizeArg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from sympy import Symbol

    from engine.graph import Graph, Node

SEED = 20_240_101
"""Random masks are drawn from this seed on every side, so that all sides see the same ones."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Values and gradients by node name; a gradient is None where autograd found no path to the result."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    by_definition: tuple[str, ...] = ()
    """Operators without a derivative in torch: autograd goes through what their rows define instead."""


@contextlib.contextmanager
def same_randomness() -> Generator[None]:
    """Random calls inside see the same numbers every time, and those outside are not disturbed."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(SEED)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def values_of(graph: Graph, tensors: Sequence[Tensor], keep_gradients: bool = False) -> dict[str, Tensor]:
    """Every node's value, from the user's own torch calls. With `keep_gradients` the nodes are autograd's.

    Raises InputError where torch refuses these inputs, or where their sizes are not those that the forward fixed.
    """
    return _replayed(graph, tensors, keep_gradients).values


def _replayed(graph: Graph, tensors: Sequence[Tensor], keep_gradients: bool) -> _Replay:
    run = _Replay(graph, tensors, keep_gradients)
    with same_randomness(), torch.set_grad_enabled(keep_gradients):
        for node in graph.nodes:
            try:
                run.execute(node)
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                raise InputError(f"torch refuses these inputs at {node.name} ({node.source}): {error}") from error
    return run


def autograd(graph: Graph, tensors: Sequence[Tensor], grad_out: Sequence[Tensor | None]) -> Reference:
    """Autograd's gradient of every node, for the cotangents `grad_out`, one per output of the graph."""
    run = _replayed(graph, tensors, keep_gradients=True)
    values = run.values
    outputs = [(values[o], g) for o, g in zip(graph.outputs, grad_out, strict=True)]
    live = [(o, g) for o, g in outputs if o.requires_grad and g is not None]
    if live:
        torch.autograd.backward([o for o, _ in live], [g for _, g in live])
    gradients = {name: v.grad if v.requires_grad else None for name, v in values.items()}
    detached = {name: v.detach() for name, v in values.items()}
    return Reference(detached, gradients, tuple(run.by_definition))


class _Replay:
    """The nodes of one graph, executed in order."""

    def __init__(self, graph: Graph, tensors: Sequence[Tensor], keep_gradients: bool) -> None:
        self.graph, self.keep = graph, keep_gradients
        self.given = dict(zip(graph.inputs, tensors, strict=True))
        self.sizes = sizes_of(graph, self.given)
        self.values: dict[str, Tensor] = {}
        self._results: dict[int, Any] = {}
        self.by_definition: list[str] = []
        self._like = next((i for i in graph.inputs if graph[i].differentiable), None)
        self._recorded = None if self._like is None else graph[self._like].dtype
        """What `x.dtype` was in the forward: it is the dtype of what is given now, as in the emitted code."""

    def execute(self, node: Node) -> None:
        """Compute one node and, where autograd goes through it, keep its gradient."""
        value = self._input(node) if node.is_input else self._called(node)
        if without_gradient(self.graph, node):
            value = value.detach()
        if self.keep and value.requires_grad and not value.is_leaf:
            value.retain_grad()
        self.values[node.name] = value

    def _input(self, node: Node) -> Tensor:
        t = self.given[node.name].detach().clone()
        return t.requires_grad_() if self.keep and node.differentiable else t

    def _called(self, node: Node) -> Tensor:
        call = node.call
        if call is None:
            raise InputError(f"{node.name} ({node.op}) has no torch call to execute")
        if node.output is None or id(call) not in self._results:

            def argument(v: Any) -> Any:
                return self._argument(v, node)

            args, kwargs = pytree.tree_map(argument, (call.args, dict(call.kwargs)))
            if self._follows_inputs(node):
                kwargs["dtype"] = self.given[cast("str", self._like)].dtype
            result = call.function(*args, **kwargs)
            if self.keep and _underivable(call.function, args, kwargs):
                result = self._defined(node, cast("Tensor", result).detach())
            if node.output is None:
                return self._own(cast("Tensor", result), node)
            self._results[id(call)] = result
        return self._own(self._results[id(call)][node.output], node)

    def _defined(self, node: Node, result: Tensor) -> Tensor:
        """What an operator returned, with the gradient of what its row defines."""
        from codegen.steps import definition_text

        self.by_definition.append(node.name)
        names: dict[str, Any] = {"torch": torch, "math": math, **{str(s): n for s, n in self.sizes.items()}}
        names.update({o: self.values[o] for o in node.operands})
        exec(compile(f"{node.name} = {definition_text(self.graph, node)}", node.name, "exec"), names)
        defined: Tensor = names[node.name]
        return defined + (result - defined.detach())

    def _own(self, value: Tensor, node: Node) -> Tensor:
        """A tensor of the node's own: `x.contiguous()` may be x itself, and then they would share a gradient."""
        return value.view_as(value) if any(value is self.values[o] for o in node.operands) else value

    def _argument(self, v: Any, node: Node) -> Any:
        if isinstance(v, Ref):
            return self.values[node.operands[v.position]]
        if isinstance(v, SizeArg):
            return size_number(v.expr, self.sizes)
        if isinstance(v, slice):
            s = cast("slice[Any, Any, Any]", v)
            return slice(*[self._argument(p, node) for p in (s.start, s.stop, s.step)])
        if v == self._recorded:
            return self.given[cast("str", self._like)].dtype
        return v

    def _follows_inputs(self, node: Node) -> bool:
        """A float factory that names no dtype has that of the inputs, as under torch's default dtype."""
        plain = not node.operands and node.op != "constant" and node.dtype.is_floating_point
        named = node.call is not None and "dtype" in dict(node.call.kwargs)
        return plain and not named and self._like is not None and self.graph[self._like].dtype == node.dtype


def _underivable(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator of torch.library has no derivative registered. Autograd only says so when it gets there."""
    if not is_operator(function):
        return False

    def leaf(v: Any) -> Any:
        return v.detach().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v

    args, kwargs = pytree.tree_map(leaf, (tuple(args), dict(kwargs)))
    leaves = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor) and v.requires_grad]
    if not leaves:
        return False
    try:
        torch.autograd.grad(cast("Tensor", function(*args, **kwargs)).sum(), leaves, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return True
    return False


def size_number(e: sp.Expr, sizes: Mapping[Symbol, int]) -> int | float:
    """An expression in sizes as a number."""
    n = in_wholes(e).xreplace({s: sp.Integer(v) for s, v in sizes.items()})
    return int(n) if n.is_integer else float(n)


def own_run(
    graph: Graph,
    forward: Callable[..., Any] | nn.Module,
    inputs: Sequence[Any],
    tensors: Sequence[Tensor],
    grad_out: Sequence[Tensor | None],
) -> Reference:
    """The user's own forward under autograd: values of the outputs and gradients of the inputs, by node name.

    `tensors` are those of `inputs`, then a module's parameters and buffers, in the order of `graph.inputs`. A float factory
    in the forward follows the inputs' dtype. A module is left as it is.
    """
    leaves = [t.detach().clone() for t in tensors]
    for name, t in zip(graph.inputs, leaves, strict=True):
        t.requires_grad_(graph[name].differentiable)
    rest = iter(leaves)

    def given_as(v: Any) -> Any:
        return next(rest) if isinstance(v, Tensor) else v

    given = pytree.tree_map(given_as, list(inputs))
    state = {graph.key(name): t for name, t in zip(graph.inputs, leaves, strict=True) if name in graph.parameters}
    like = next((t.dtype for t in leaves if t.requires_grad), torch.get_default_dtype())
    with same_randomness(), _default_dtype(like), torch.enable_grad():
        out = (
            torch.func.functional_call(forward, state, tuple(given))
            if isinstance(forward, nn.Module)
            else forward(*given)
        )
    outputs = [cast("Tensor", o) for o in pytree.tree_leaves(out)]
    live = [(o, g) for o, g in zip(outputs, grad_out, strict=True) if o.requires_grad and g is not None]
    if live:
        torch.autograd.backward([o for o, _ in live], [g for _, g in live])
    values = {name: o.detach() for name, o in zip(graph.outputs, outputs, strict=True)}
    return Reference(values, {name: t.grad for name, t in zip(graph.inputs, leaves, strict=True)})


class _Drawn(TorchFunctionMode):
    """Random numbers of the default dtype stay those of the default dtype that the forward was recorded with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randn) and kwargs.get("dtype") is None:
            kwargs["dtype"] = self.dtype
        return func(*args, **kwargs)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _Drawn(before):
            yield
    finally:
        torch.set_default_dtype(before)
