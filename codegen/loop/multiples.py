# pyright: basic
"""Numbers after one another as one: a x + b of a x + b."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.graph import Node, Sized, alike, call, constant
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

Line = tuple[Node, Any, Any]
"""A value with the numbers a and b of a x + b, each at the loop's sizes and at the small point."""


def numbers_together(step: Step) -> Iterator[Match]:
    """a (c x + d) + b is (a c) x + (a d + b), with numbers a, b, c, d."""
    users = step.users()
    inner: set[Node] = set()
    for n in reversed(step.order):
        outer = None if n in inner else line(n)
        if outer is None:
            continue
        x, by, more = outer
        steps = 1
        while len(users[x]) == 1 and (before := line(x)) is not None:
            inner.add(x)
            x, c, d = before
            by, more = by * c, by * d + more
            steps += 1
        if steps > 1 and alike(x, n) and x.dtype == n.dtype:
            yield Match(*one_call(n, x, by, more))


def one_call(n: Node, x: Node, by: Any, more: Any) -> tuple[list[Node], list[tuple[Node, Node]]]:
    """a x + b as a call, and what it is in place of."""
    if not more.any():
        new = call("mul", x, number(by), shape=n.shape, dtype=n.dtype)
        return [new], [(n, new)]
    full, point = more.tolist()
    b = constant(torch.tensor(full, dtype=n.dtype), torch.tensor(point, dtype=torch.float64))
    new = call("add", b, x, alpha=number(by), shape=n.shape, dtype=n.dtype)
    return [b, new], [(n, new)]


def number(pair: Any) -> Any:
    """A number as an argument."""
    full, point = pair.tolist()
    return full if full == point else Sized(full, point)


def line(n: Node) -> Line | None:
    """A value as a x + b; None where it is something else."""
    if n.write or n.constant is not None or n.dtype is None or not n.dtype.is_floating_point or not n.args:
        return None
    x, *rest = n.args
    one, zero = pair(1.0), pair(0.0)
    if n.op == "neg":
        return (x, -one, zero)
    if (
        n.op == "rsub"
        and isinstance(x, Node)
        and len(rest) == 1
        and not n.kwargs
        and (start := pair(rest[0])) is not None
    ):
        return (x, -one, start)
    if n.op not in ("add", "sub", "mul", "div") or len(rest) != 1 or set(n.kwargs) - {"alpha"}:
        return None
    scale = pair(n.kwargs.get("alpha", 1))
    other = pair(rest[0])
    if scale is None:
        return None
    if other is None:
        start = pair(x)
        if start is None or not isinstance(rest[0], Node):
            return None
        if n.op == "mul":
            return (rest[0], start, zero)
        return (rest[0], scale if n.op == "add" else -scale, start) if n.op in ("add", "sub") else None
    if not isinstance(x, Node) or x.constant is not None:
        return None
    if n.op in ("mul", "div"):
        return (x, other, zero) if n.op == "mul" else (x, 1 / other, zero) if bool(other.all()) else None
    return (x, one, scale * other if n.op == "add" else -scale * other)


def pair(a: Any) -> torch.Tensor | None:
    """A number at the loop's sizes and at the small point; None where it is no number in every step."""
    if isinstance(a, Node):
        if a.constant is None or a.shape or not a.dtype.is_floating_point:
            return None
        return torch.tensor([float(a.constant), float(a.value)], dtype=torch.float64)
    if isinstance(a, Sized):
        return torch.tensor([float(a.full), float(a.small)], dtype=torch.float64)
    return torch.tensor([float(cast("float", a))] * 2, dtype=torch.float64)


__all__ = ["numbers_together"]
