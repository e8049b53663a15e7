# pyright: basic
"""Choices by a mask that is the same in every step: torch's `where` has no vector form, sums and products have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.graph import Node, call, constant
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


FINITE = frozenset(
    ["input", "onehot", "spread", "mm", "bmm", "mv", "addmm", "addmv", "addcmul", "add", "sub", "rsub", "mul", "neg", "abs", "sign",
     "sum", "mean", "amax", "amin", "maximum", "minimum", "clamp_min", "relu", "tanh", "sigmoid", "gelu", "silu", "sin", "cos", "erf",
     "_softmax", "_log_softmax", "native_layer_norm", "native_batch_norm", "part", "index_select", "index", "cat", "where", "clone",
     "_to_copy", "reshape", "copy", "index_put", "index_add", "tanh_backward", "sigmoid_backward", "threshold_backward",
     "gelu_backward", "_softmax_backward_data", "_log_softmax_backward_data", "native_layer_norm_backward",
     "native_batch_norm_backward"]
)  # fmt: skip
"""Calls that make no infinity and no nan of finite numbers of a usual size."""


def masked(step: Step) -> Iterator[Match]:
    """-inf where m and x elsewhere is x + z, with z = -inf where m and 0 elsewhere; 0 where m and x elsewhere is x z with ones.

    That is so for x that is finite where it is left out.
    """
    known: dict[Any, Node] = {}
    finite = set[Node]()
    for n in step.order:
        by_number = (n.op == "div" and not isinstance(n.args[1], Node)) or is_power(n)
        if n.constant is not None:
            if bool(n.constant.isfinite().all()):
                finite.add(n)
        elif (n.op in FINITE or n.is_view or by_number) and finite.issuperset(n.reads):
            finite.add(n)
    for n in step.order:
        if n.op != "where" or not isinstance(n.args[0], Node) or n.args[0].constant is None:
            continue
        m, *sides = n.args
        for at in (0, 1):
            number, x = number_of(sides[at]), sides[1 - at]
            if number is None or (number != 0 and not math.isinf(number)):
                continue
            if x not in finite or x.constant is not None or x.dtype != n.dtype or x.shape != n.shape:
                continue
            z = known.setdefault((m, at, number), mask(m, number, at == 0, n))
            new = call("mul" if number == 0 else "add", x, z, shape=n.shape, dtype=n.dtype)
            yield Match([z, new], [(n, new)])
            break


def is_power(n: Node) -> bool:
    """Whether a value is a power that has no pole."""
    return n.op == "pow" and isinstance(n.args[1], (int, float)) and n.args[1] >= 0


def number_of(a: Any) -> float | None:
    """The number that a side of a choice is everywhere, in every step."""
    if not isinstance(a, Node):
        return float(a) if isinstance(a, (int, float)) else None
    if a.constant is None or a.shape or not a.dtype.is_floating_point:
        return None
    return float(a.constant)


def mask(m: Node, number: float, chosen: bool, n: Node) -> Node:
    """What is added or multiplied with, where `m` is `chosen` the number and otherwise what changes nothing."""
    full, small = (t if chosen else ~t for t in (m.constant, m.value))
    neutral = 1.0 if number == 0 else 0.0

    def filled(where: torch.Tensor, dtype: Any) -> torch.Tensor:
        return torch.where(where, torch.tensor(number, dtype=dtype), torch.tensor(neutral, dtype=dtype))

    made = constant(filled(full, n.dtype), filled(small, torch.float64))
    made.name = f"{m.name or 'mask'}_{'ones' if number == 0 else 'minus_inf' if number < 0 else 'inf'}"
    return made


__all__ = ["masked"]
