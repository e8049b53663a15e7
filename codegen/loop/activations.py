# pyright: basic
"""Activations by way of the sigmoid and their own results, where torch's kernels for them cost more than several cheap calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.graph import Node, Sized, alike, call, constant
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

STRAIGHT = 20
"""Where a softplus may go over into its argument: what is left out is less than float64 shows of its tanh."""


def tanh_of_softplus(step: Step) -> Iterator[Match]:
    """tanh(log(1 + e^z)) is w / (2 - w) with w = s (2 - s), s = sigmoid(z), and mish(z) is z times that.

    Nothing cancels: 2 - s and 2 - w are at least 1.
    """
    found: dict[Node, list[Node]] = {}
    for n in step.order:
        z = n.args[0] if n.op in ("mish", "tanh") and not n.write else None
        if n.op == "tanh" and (z is None or z.op != "softplus" or not goes_straight(z, STRAIGHT)):
            continue
        if isinstance(z, Node):
            found.setdefault(z.args[0] if n.op == "tanh" else z, []).append(n)
    for z, group in found.items():
        s, two = sigmoid(step, z), number(2.0, z)
        less = binary("sub", two, s)
        w = binary("mul", s, less)
        rest = binary("sub", two, w)
        t = binary("div", w, rest)
        value = binary("mul", z, t)
        kept = [s, two, less, w, rest, t, *([value] if any(n.op == "mish" for n in group) else [])]
        yield Match(kept, [(n, value if n.op == "mish" else t) for n in group], at=group[0], key=(z.shape, len(group)))


def softplus_by_sigmoid(step: Step) -> Iterator[Match]:
    """log(1 + e^z) is max(z, 0) - log1p(-min(s, 1 - s)) with s = sigmoid(z), and g times its derivative is g s.

    Far below zero it keeps its digits, as s does: what is a scale is divided by, or its logarithm taken.
    """
    for z, value, slope in both(step, "softplus", "softplus_backward"):
        s = sigmoid(step, z)
        nodes, pairs = [s], []
        if value is not None:
            one = number(1.0, z)
            other = binary("sub", one, s)
            minus = unary("neg", binary("minimum", s, other))
            log = unary("log1p", minus)
            above = call("clamp_min", z, 0, shape=z.shape, dtype=z.dtype)
            new = binary("sub", above, log)
            nodes += [one, other, minus.args[0], minus, log, above, new]
            pairs.append((value, new))
        yield with_slope(nodes, pairs, slope, lambda g, s=s: [binary("mul", g, s)], (z.shape, value is None))


def silu_by_sigmoid(step: Step) -> Iterator[Match]:
    """silu(z) is h = z s with s = sigmoid(z), and g times its derivative is g (h + s (1 - h)).

    The value is what the derivative is made of, so both change or neither.
    """
    for z, value, slope in both(step, "silu", "silu_backward"):
        if value is None or slope is None:
            continue
        s, one = sigmoid(step, z), number(1.0, z)
        h = binary("mul", z, s)

        def back(g: Node, s: Node = s, h: Node = h, one: Node = one) -> list[Node]:
            d = call("lerp", h, one, s, shape=h.shape, dtype=h.dtype)
            return [one, d, binary("mul", g, d)]

        yield with_slope([s, h], [(value, h)], slope, back, z.shape)


def elu_by_exp(step: Step) -> Iterator[Match]:
    """elu(z) is max(z, a e^(b min(z, 0)) - a) for a b <= 1: the curve is above its tangent at 0, which is above z."""
    for n in step.order:
        if n.op != "elu" or n.write or not isinstance(n.args[0], Node):
            continue
        z, (a, scale, b) = n.args[0], curve(n.args[1:])
        if scale != 1 or not 0 < a * b <= 1 or a <= 0:
            continue
        below = call("clamp_max", z, 0, shape=z.shape, dtype=z.dtype)
        nodes = [below]
        if b != 1:
            nodes.append(call("mul", nodes[-1], b, shape=z.shape, dtype=z.dtype))
        nodes.append(unary("exp", nodes[-1]))
        if a != 1:
            nodes.append(call("mul", nodes[-1], a, shape=z.shape, dtype=z.dtype))
        nodes.append(call("sub", nodes[-1], a, shape=z.shape, dtype=z.dtype))
        nodes.append(binary("maximum", z, nodes[-1]))
        yield Match(nodes, [(n, nodes[-1])], key=n.shape)


def elu_backward_of_result(step: Step) -> Iterator[Match]:
    """Below zero the derivative of elu is a multiple of its value plus a number: no exponential is computed again."""
    values = {(n.args[0], curve(n.args[1:])): n for n in reversed(step.order) if n.op == "elu" and not n.write}
    for n in step.order:
        if n.op != "elu_backward" or n.args[4]:
            continue
        g, *numbers, _, z = n.args
        h = values.get((z, curve(tuple(numbers))))
        if h is None or not alike(h, n) or not curve(tuple(numbers))[0] >= 0:
            continue
        new = call("elu_backward", g, *numbers, True, h, shape=n.shape, dtype=n.dtype)
        yield Match([new], [(n, new)])


def both(step: Step, op: str, backward: str) -> Iterator[tuple[Node, Node | None, Node | None]]:
    """Arguments of a function, with its value and what is passed back through it, where there are such; one of each."""
    found: dict[Node, dict[str, Node]] = {}
    for n in step.order:
        if n.op not in (op, backward) or n.write:
            continue
        z = n.args[0] if n.op == op else n.args[1]
        if isinstance(z, Node) and alike(z, n) and (op != "softplus" or goes_straight(n, STRAIGHT)):
            if n.op == backward and not alike(n.args[0], n):
                continue
            found.setdefault(z, {}).setdefault(n.op, n)
    for z, known in found.items():
        yield z, known.get(op), known.get(backward)


def with_slope(nodes: list[Node], pairs: list[Any], slope: Node | None, back: Any, key: Any) -> Match:
    """A match that replaces a value, and what is passed back through it by what `back` makes of the cotangent."""
    if slope is None:
        return Match(nodes, pairs, key=(key, "value"))
    made = back(slope.args[0])
    last = (slope, made[-1])
    if not pairs:
        return Match([*nodes, *made], [last], key=(key, "slope"))
    return Match(nodes, [*pairs, last], at=pairs[0][0], key=(key, "both"), later=(made, slope))


def goes_straight(n: Node, least: float) -> bool:
    """Whether a softplus, or its backward, is that of e and is its argument only from some number on."""
    beta, threshold = (*n.args[1 + (n.op == "softplus_backward") :], *(1, 20)[len(n.args) - 1 :])[:2]
    return beta == 1 and threshold >= least


def curve(given: tuple[Any, ...]) -> tuple[float, float, float]:
    """The three numbers of an elu, those it has without them included."""
    a, scale, b = (float(v.full if isinstance(v, Sized) else v) for v in (*given, *(1.0, 1.0, 1.0)[len(given) :])[:3])
    return a, scale, b


def sigmoid(step: Step, z: Node) -> Node:
    """The sigmoid of a value, which may be there."""
    there = (n for n in step.order if n.op == "sigmoid" and n.args[0] is z and not n.write)
    return next(there, None) or unary("sigmoid", z)


def number(value: float, like: Node) -> Node:
    """A number as a tensor without dimensions."""
    return constant(torch.tensor(value, dtype=like.dtype), torch.tensor(value, dtype=torch.float64))


def unary(op: str, z: Node) -> Node:
    """A function of every entry."""
    return call(op, z, shape=z.shape, dtype=z.dtype)


def binary(op: str, a: Node, b: Node) -> Node:
    """A function of two values of one shape, or of a number and a value."""
    wide = b if a.constant is not None else a
    return call(op, a, b, shape=wide.shape, dtype=wide.dtype)


__all__ = ["elu_backward_of_result", "elu_by_exp", "silu_by_sigmoid", "softplus_by_sigmoid", "tanh_of_softplus"]
