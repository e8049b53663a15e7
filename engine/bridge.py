"""From a scalar expression to a traced graph: the same ops, replayed on 0-d tensors."""

from __future__ import annotations

import keyword
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import InputError
from engine.proxy import Proxy
from engine.trace import trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.graph import Graph
    from engine.value import Value


def trace_value(value: Value, inputs: Mapping[str, Value]) -> Graph:
    """The graph of `value` as a function of the values in `inputs`; see `Value.trace`."""
    _check(inputs)
    order = value.walk(until=inputs.values())
    if set(order).isdisjoint(inputs.values()):
        raise InputError(f"the expression depends on none of its inputs {', '.join(inputs) or '(none were given)'}")

    def forward(*tensors: torch.Tensor) -> Any:
        results: dict[Value, Any] = dict(zip(inputs.values(), tensors, strict=True))
        for v in order:
            if v not in results:
                results[v] = _apply(v, [results[o] for o in v.operands])
                if v.label and isinstance(results[v], Proxy):
                    results[v].record.wanted.append((0, len(results), v.label))
        return results[value]

    forward.__name__ = value.label or "forward"
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in inputs]
    forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return trace(forward, *[torch.tensor(v.data, dtype=torch.float64) for v in inputs.values()])


def _apply(v: Value, operands: list[Any]) -> Any:
    """The op of `v` on tensors, or on numbers where no input is involved."""
    if v.rule is None:
        return v.data
    if any(isinstance(o, torch.Tensor) for o in operands):
        return v.rule.tensor(*operands)
    return v.rule.value(*operands)[0]


def _check(inputs: Mapping[str, Value]) -> None:
    names: dict[Value, str] = {}
    for name, v in inputs.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InputError(f"the input name {name!r} is not a Python identifier")
        if v in names:
            raise InputError(f"one value is given as two inputs, {names[v]!r} and {name!r}: name it once")
        names[v] = name
