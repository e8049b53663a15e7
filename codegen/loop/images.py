# pyright: basic
"""What is slow on tensors of images in torch, and the same in calls that are not: none of this is seen in matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from codegen.loop.graph import Node, call, called
from codegen.loop.rules import Match

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
        if x.op == "clone" and x.kwargs:
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


__all__ = ["pooled_by_channels", "product_apart"]
