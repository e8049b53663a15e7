# pyright: basic
"""What a softmax passes back, `p (g - Sum g p)` of every row, as torch's kernel for it, which reads g and p once each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.loop.graph import Node, alike, call
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


def softmax_backward(step: Step) -> Iterator[Match]:
    """Where a difference is multiplied by p that has a row sum of g p subtracted."""
    for n in step.order:
        if n.op != "mul" or not all(isinstance(a, Node) and alike(a, n) for a in n.args):
            continue
        for difference, p in (n.args, n.args[::-1]):
            if difference.op != "sub" or "alpha" in difference.kwargs:
                continue
            g, total = difference.args
            if not (isinstance(g, Node) and alike(g, n) and isinstance(total, Node) and total.op == "sum"):
                continue
            summed, dims = total.args[0], list(total.args[1])
            if len(dims) == 1 and len(total.args) > 2 and total.args[2] and is_product(summed, g, p):
                new = call("_softmax_backward_data", g, p, dims[0], n.dtype, shape=n.shape, dtype=n.dtype)
                yield Match([new], [(n, new)], key=n.shape)
                break


def is_product(n: Node, g: Node, p: Node) -> bool:
    """Whether a value is g p."""
    return n.op == "mul" and {*n.args} == {g, p}


__all__ = ["softmax_backward"]
