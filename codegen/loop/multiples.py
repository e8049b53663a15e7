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


def number(given: Any) -> Any:
    """A number as an argument."""
    full, point = given.tolist()
    return full if full == point else Sized(full, point)


def line(n: Node) -> Line | None:
    """A value as a x + b; None where it is something else."""
    known = n.op in ("neg", "rsub", "add", "sub", "mul", "div") and set(n.kwargs) <= {"alpha"}
    if n.write or n.constant is not None or n.dtype is None or not n.dtype.is_floating_point or not known:
        return None
    one, zero = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    if n.op == "neg":
        return (n.args[0], -one, zero)
    if len(n.args) != 2:
        return None
    x, other = n.args[0], n.args[1]
    scale, number = pair(n.kwargs.get("alpha", 1)), pair(other)
    if scale is None:
        return None
    if number is None:  # the number comes first
        start = pair(x)
        if start is None or n.op in ("div", "rsub"):
            return None
        return (other, start, zero) if n.op == "mul" else (other, scale if n.op == "add" else -scale, start)
    if not isinstance(x, Node) or x.constant is not None:
        return None
    if n.op == "mul":
        return (x, number, zero)
    if n.op == "div":
        return (x, 1 / number, zero) if bool(number.all()) else None
    if n.op == "rsub":
        return (x, -scale, number)
    return (x, one, scale * number if n.op == "add" else -scale * number)


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
