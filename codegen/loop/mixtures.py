# pyright: basic
"""Two values mixed by a share and the rest of it, as gates do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codegen.loop.graph import Node, alike, call
from codegen.loop.multiples import line
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


def interpolated(step: Step) -> Iterator[Match]:
    """(1 - s) a + s b is lerp(a, b, s), which goes from whichever of the two is nearer."""
    for n in step.order:
        if n.op != "add" or n.kwargs or not all(is_product(x, n) for x in n.args):
            continue
        for one, other in (n.args, n.args[::-1]):
            mixed = [(a, b, s) for rest, a in both_ways(one) for s, b in both_ways(other) if share_of(rest) is s]
            if mixed:
                new = call("lerp", *mixed[0], shape=n.shape, dtype=n.dtype)
                yield Match([new], [(n, new)], key=n.shape)
                break


def rest_of_product(step: Step) -> Iterator[Match]:
    """(1 - s) g is g - s g, where s g is there."""
    products = {frozenset(n.args): n for n in reversed(step.order) if is_product(n, n)}
    for n in step.order:
        for rest, g in both_ways(n) if is_product(n, n) else ():
            share = products.get(frozenset((share_of(rest), g)))
            if share is not None and alike(share, n):
                new = call("sub", g, share, shape=n.shape, dtype=n.dtype)
                yield Match([new], [(n, new)], key=n.shape)
                break


def is_product(x: Any, n: Node) -> bool:
    """Whether a value is a product of two that are as large as another value, which all have the same dtype."""
    known = (
        isinstance(x, Node) and x.op == "mul" and not x.kwargs and not x.write and alike(x, n) and x.dtype == n.dtype
    )
    return known and all(isinstance(a, Node) and alike(a, n) and a.dtype == n.dtype for a in x.args)


def both_ways(n: Node) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
    """The factors of a product in either order."""
    a, b = n.args
    return (a, b), (b, a)


def share_of(rest: Node) -> Node | None:
    """s of 1 - s; None where a value is something else."""
    found = line(rest)
    return found[0] if found is not None and bool((found[1] == -1).all() and (found[2] == 1).all()) else None


__all__ = ["interpolated", "rest_of_product"]
