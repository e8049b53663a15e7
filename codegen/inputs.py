"""Example inputs for a target: from its module's `example_inputs`, or drawn for its jaxtyping annotations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor, nn

from codegen.targets import located
from engine import trace
from engine.errors import ExampleError, TargetError
from engine.indexed import Indexed
from engine.notation import accesses, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sympy import Expr

    from codegen.targets import Target
    from engine.graph import Graph

SEED = 0


def example_inputs(target: Target, dtype: torch.dtype | None = None, seed: int = SEED) -> dict[str, Tensor]:
    """Tensors by name for a target's forward, in the order of its parameters.

    Args:
        target: a forward. Its own `example_inputs(generator)` is used (a static method of its class), or its file's,
            which may return more tensors than this forward takes, so that several forwards of a file can share it, or a
            list of them in its order. It may leave out the generator.
        dtype: of the floating-point ones; as they come by default.
        seed: of the generator.

    Raises:
        TargetError: no example inputs, or not those that the forward takes.
    """
    generator = Generator().manual_seed(seed)
    own = getattr(target.forward, "example_inputs", None) or getattr(target.module, "example_inputs", None)
    found = _given(target, _made(target, own, generator)) if own is not None else _drawn(target, generator)
    return {name: t.to(dtype) if dtype is not None and t.is_floating_point() else t for name, t in found.items()}


def _where(target: Target) -> str:
    return f"{target.path or target.name}: {getattr(target.forward, '__name__', target.name)}"


def _taken(target: Target) -> list[inspect.Parameter]:
    """What the forward takes by position."""
    function = target.forward.forward if isinstance(target.forward, nn.Module) else target.forward
    given = inspect.signature(function).parameters.values()
    return [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _made(target: Target, own: Callable[..., Any], generator: Generator) -> dict[str, Tensor]:
    """What a target's own function returns, by name."""
    found = own(generator) if inspect.signature(own).parameters else own()
    if isinstance(found, Tensor):
        found = (found,)
    if isinstance(found, (list, tuple)):
        tensors = cast("Sequence[Any]", found)
        names = [p.name for p in _taken(target)]
        if len(tensors) > len(names):
            raise TargetError(
                f"{_where(target)} takes {', '.join(names)}; example_inputs makes {len(tensors)} tensors."
            )
        found = dict(zip(names, tensors, strict=False))
    made: dict[str, Any] = dict(cast("Mapping[str, Any]", found)) if isinstance(found, Mapping) else {"": None}
    if not all(isinstance(t, Tensor) for t in made.values()):
        raise TargetError(
            f"{_where(target)}: example_inputs has to return a dict of tensors by name, or tensors in the forward's order"
        )
    return made


def _given(target: Target, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wanted = _taken(target)
    missing = [p.name for p in wanted if p.name not in made and p.default is p.empty]
    if missing:
        raise TargetError(
            f"{_where(target)} takes {', '.join(missing)}, which example_inputs does not make; it makes {', '.join(made)}."
        )
    return {p.name: made[p.name] for p in wanted if p.name in made}


def _drawn(target: Target, generator: Generator) -> dict[str, Tensor]:
    """Normal floats and integers within the bounds of what they index, for a forward whose annotations say the shapes."""
    try:
        with located(target):
            graph = trace(target.forward)
    except ExampleError as error:
        raise TargetError(
            f"{_where(target)} has no example inputs: {error}. Annotate every tensor with jaxtyping "
            "(x: Float[Tensor, 'batch features']), or put example_inputs(generator) -> dict of tensors into its file, or as a static "
            "method into its class."
        ) from error
    out: dict[str, Tensor] = {}
    for name in graph.inputs:
        node = graph[name]
        if name in graph.parameters:
            continue
        shape = [evaluate(s, graph.example) for s in node.shape]
        if node.dtype.is_floating_point:
            out[name] = torch.randn(shape, generator=generator, dtype=node.dtype)
        elif node.dtype == torch.bool:
            out[name] = torch.randint(2, shape, generator=generator).bool()
        else:
            out[name] = torch.randint(_bound(graph, name), shape, generator=generator)
    return out


def _bound(graph: Graph, name: str) -> int:
    """The smallest dimension that an integer input, or what is made of it by layout alone, is an index into."""
    carriers = {name}
    sizes: list[Expr] = []
    for node in graph.nodes:
        if node.definition is None:
            continue
        _, e = node.definition
        if isinstance(e, Indexed) and name_of(e) in carriers:
            carriers.add(node.name)
        for access in accesses(e):
            owner = graph[name_of(access)]
            for size, at in zip(owner.shape, access.indices, strict=False):
                if isinstance(at, Indexed) and name_of(at) in carriers:
                    sizes.append(size)
    return min((evaluate(s, graph.example) for s in sizes), default=2)


def resized(graph: Graph, inputs: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
    """Inputs with another batch size, rows left out or repeated. The batch is the first dimension of the first input.

    Every dimension of the same size symbol changes along, and the rows of integer inputs (labels) that are as many.

    Raises TargetError where the first input has no such dimension, or the forward fixed its size.
    """
    first, *_ = graph.inputs
    symbol = next(iter(graph[first].shape), None)
    if symbol is None or not symbol.is_Symbol:
        raise TargetError(f"{graph.name}: the first dimension of {first} is no batch size that can be changed")
    rows = inputs[first].shape[0]

    def changed(name: str, t: Tensor) -> Tensor:
        along = [d for d, size in enumerate(graph[name].shape) if size == symbol]
        if not along and not t.is_floating_point() and t.shape[:1] == (rows,):
            along = [0]
        for d in along:
            t = t.index_select(d, torch.arange(batch) % rows)
        return t

    return {name: changed(name, t) for name, t in inputs.items()}
