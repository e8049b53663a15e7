# pyright: basic
"""What is slow on tensors of images in torch, and the same in calls that are not: none of this is seen in matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from codegen.loop.graph import Node, alike, call, called
from codegen.loop.rules import Match
from codegen.loop.views import has_channels_last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

CHANNELS = 8
"""From how many on they are pooled together, as a vector."""
MANY = 4096
"""Elements from which on a call that is slow costs more than two."""


def pooled_by_channels(step: Step) -> Iterator[Match]:
    """max_pool2d(x) is that of x with its channels last in memory, whose kernel takes them all at once."""
    users = step.users()
    for n in step.order:
        if n.op != "max_pool2d_with_indices" or len(n.args[0].shape) != 4 or n.args[0].shape[1] < CHANNELS:
            continue
        x, *rest = n.args
        if has_channels_last(x):
            continue
        turned = call("clone", x, shape=x.shape, dtype=x.dtype, name=last(x), memory_format=torch.channels_last)
        whole = call(n.op, turned, *rest, shape=(), dtype=None, **n.kwargs)
        nodes, pairs = [turned, whole], []
        for part in users[n]:
            k = part.args[1]
            own = Node("part", (whole, k), {}, part.shape, part.dtype, whole.value[k], last(part))
            new = call("clone", own, shape=part.shape, dtype=part.dtype, memory_format=torch.contiguous_format)
            nodes += [own, new]
            pairs.append((part, new))
        yield Match(nodes, pairs, at=n)


def last(n: Node) -> str:
    """What a value with its channels last is called."""
    return f"{called(n)}_channels_last" if called(n) else ""


def product_apart(step: Step) -> Iterator[Match]:
    """addcmul(c, a, b) is c + a b: one call is slower where two of the three are the same along the last dimension.

    It takes 0.45 ns an element then, a product and a sum take 0.15.
    """
    for n in step.order:
        value = n.kwargs.get("value", 1)
        if n.op != "addcmul" or n.write or value not in (1, -1) or n.numel < MANY or not spread(n):
            continue
        c, a, b = n.args
        shape = torch.broadcast_shapes(a.shape, b.shape)
        product = call("mul", a, b, shape=tuple(shape), dtype=n.dtype)
        if product.shape == n.shape and value == 1:
            new = call("add", product, c, shape=n.shape, dtype=n.dtype)
        else:
            new = call("add" if value == 1 else "sub", c, product, shape=n.shape, dtype=n.dtype)
        yield Match([product, new], [(n, new)])


def spread(n: Node) -> bool:
    """Whether torch has no vector form of a call of three tensors: two of them are the same along the last dimension."""
    last = [1 if not r.shape else r.shape[-1] for r in n.args if isinstance(r, Node)]
    return bool(n.shape) and n.shape[-1] > 1 and last.count(1) >= 2


INPUT, WEIGHT = [True, False, False], [False, True, False]
"""Which of the gradients of a convolution (of its input, its weight, its bias) a call makes."""


def convolved_back(step: Step) -> Iterator[Match]:
    """What a convolution passes back to its input and to its weight, from one call: the kernel prepares for both at once.

    A call for the weight alone is given the weight in the place of a tensor that only has its shape.
    """
    users = step.users()
    backwards = [n for n in step.order if n.op == "convolution_backward" and n.dtype is None]
    for n in [b for b in backwards if b.args[-1] == WEIGHT]:
        g, x, like, *rest = n.args
        others = [a for a in backwards if a.args[-1] == INPUT and a.args[0] is g and a.args[3:-1] == n.args[3:-1]]
        other = next((a for a in others if seen_alike(a.args[1], x) and seen_alike(a.args[2], like)), None)
        forward = (c for c in step.order if c.op == "convolution" and c.args[0] is x)
        weight = next((c.args[1] for c in forward if seen_alike(c.args[1], like)), None)
        weight = weight if other is None else other.args[2]
        if weight is None or weight is like:
            continue
        mask = WEIGHT if other is None else [True, True, False]
        whole = call(n.op, g, x, weight, *rest[:-1], mask, shape=(), dtype=None, overload=n.overload)
        pairs: list[tuple[Node, Node]] = []
        for part in [*users[n], *(users[other] if other is not None else ())]:
            k = part.args[1]
            pairs.append((part, Node("part", (whole, k), {}, part.shape, part.dtype, whole.value[k], part.name)))
        first = n if other is None else min(n, other, key=step.order.index)
        yield Match([whole, *[new for _, new in pairs]], pairs, at=first)


def seen_alike(a: Node, b: Node) -> bool:
    """Whether two tensors have one shape and one dtype."""
    return alike(a, b) and a.dtype == b.dtype


__all__ = ["convolved_back", "pooled_by_channels", "product_apart"]
