# pyright: basic
"""Means over windows, place by place in torch, as sums of shifted rows and columns, which have a vector form."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from codegen.loop.graph import Node, call
from codegen.loop.own import repeated
from codegen.loop.rules import Match
from codegen.loop.views import has_channels_last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

WIDEST = 16
"""Places of a window, beyond which that many calls are not made for it."""


def means_of_windows(step: Step) -> Iterator[Match]:
    """avg_pool2d(x, k) is the sum of k shifted rows, of which that of k shifted columns, over k k."""
    for n in step.order:
        if n.op != "avg_pool2d" or len(n.args[0].shape) != 4 or n.args[0].shape[1:] != n.args[0].value.shape[1:]:
            continue
        if has_channels_last(n.args[0]):
            continue  # there torch has a vector form
        _, kernel, stride, padding, ceiled, _, divisor = (*n.args, *DEFAULTS[len(n.args) :])
        kernel, padding = pair(kernel), pair(padding)
        stride = pair(stride) if stride else kernel
        if any(padding) or ceiled or divisor is not None or prod(kernel) > WIDEST:
            continue
        nodes: list[Node] = []
        total: Node = n.args[0]
        for dim, size, by in zip((2, 3), kernel, stride, strict=True):
            total = shifted(total, dim, size, by, n.shape[dim], nodes)
        new = call("mul", total, 1 / prod(kernel), shape=n.shape, dtype=n.dtype)
        yield Match([*nodes, new], [(n, new)])


DEFAULTS = (None, None, (), 0, False, True, None)
"""What avg_pool2d takes where it is given less."""


def pair(a: Any) -> tuple[int, int]:
    """A size for both dimensions."""
    given = tuple(a) if isinstance(a, (list, tuple)) else (a,)
    return (given[0], given[-1])


def shifted(x: Node, dim: int, size: int, by: int, count: int, nodes: list[Node]) -> Node:
    """The sum of `size` places of every window along a dimension; windows are `by` apart."""
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :])
    rows = [call("slice", x, dim, k, k + by * (count - 1) + 1, by, shape=shape, dtype=x.dtype) for k in range(size)]
    nodes += rows
    total = rows[0]
    for row in rows[1:]:
        total = call("add", total, row, shape=shape, dtype=x.dtype)
        nodes.append(total)
    return total


def passed_to_windows(step: Step) -> Iterator[Match]:
    """What a sum over windows passes back is the cotangent at each of their places, added where they overlap.

    It is written as what a convolution with ones passes back, channel by channel.
    """
    users = step.users()
    for n in step.order:
        if n.op != "part" or n.args[1] != 0 or n.args[0].op != "convolution_backward":
            continue
        g, _, ones, _, stride, padding, dilation, turned, _, groups, mask = n.args[0].args
        if ones.constant is None or len(n.shape) != 4 or list(mask) != [True, False, False] or turned:
            continue
        kernel = tuple(ones.shape[2:])
        plain = not any(padding) and set(dilation) == {1} and prod(kernel) <= WIDEST
        alone = ones.shape[:2] == (groups, 1) and groups == n.shape[1] and bool((ones.constant == 1).all())
        if not plain or not alone or n.shape[1:] != n.value.shape[1:]:
            continue
        old, nodes = n, []
        (user, *others) = users[n] or [n]
        if user.op in ("mul", "div") and not others and user.args[0] is n and not isinstance(user.args[1], Node):
            g = call(user.op, g, *user.args[1:], shape=g.shape, dtype=g.dtype, overload=user.overload)
            old, nodes = user, [g]
        given = kernel, pair(stride), n.shape[2:]
        new = Node("repeated", (g, *given), {}, n.shape, n.dtype, repeated(g.value, *given))
        yield Match([*nodes, new], [(old, new)], at=n)


__all__ = ["means_of_windows", "passed_to_windows"]
