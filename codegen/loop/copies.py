# pyright: basic
"""Copies that a product of more than matrices is given, as torch writes it out: of heads, of places that are mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.graph import Node, alike, call, contiguous, equal, sizes_of
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

SEEN = ("view", "_unsafe_view")


def copied_once(step: Step) -> Iterator[Match]:
    """A product that reads a copy of xT reads that of x instead, turned: which way its factors lie is one to it."""
    users = step.users()
    known: dict[Any, list[Node]] = {}
    for n in step.order:
        if n.op not in SEEN or len(n.shape) != 3 or n.args[0].op != "clone" or not lies(n.args[0]):
            continue
        rows, columns = n.shape[1:]
        if all(u.op == "bmm" for u in users[n]):
            key = owner(n), n.shape[0], n.value.shape[0]
            for first in known.get((*key, (columns, rows)), []):
                if first.value.shape == n.value.mT.shape and torch.equal(first.value, n.value.mT):
                    new = call("transpose", first, 1, 2, shape=n.shape, dtype=n.dtype)
                    yield Match([new], [(n, new)])
                    break
        known.setdefault((owner(n), n.shape[0], n.value.shape[0], (rows, columns)), []).append(n)


def owner(n: Node) -> Node:
    """What a copy is a copy of, whatever of it, and however it is seen."""
    while n.is_view or n.op == "clone":
        n = n.args[0]
    return n


def lies(n: Node) -> bool:
    """Whether a copy lies in memory row by row."""
    return contiguous(n) and n.value.is_contiguous()


def copied_into_place(step: Step) -> Iterator[Match]:
    """Copies side by side are views side by side, which are copied there."""
    users = step.users()
    for n in step.order:
        if n.op != "cat" or n.write or n.kwargs:
            continue
        parts, dim = n.args[0], (n.args[1] if len(n.args) > 1 else 0) % len(n.shape)
        given = [g for g in (uncopied(p, users) for p in parts) if g is not None]
        if not given or len(given) < len(parts) or not all(wider(g, p, dim) for g, p in zip(given, parts, strict=True)):
            continue
        others = {(g.shape[:dim], g.shape[dim + 1 :], g.dtype) for g in given}
        if len(others) > 1:
            continue
        shape = (*n.shape[:dim], sum(g.shape[dim] for g in given), *given[0].shape[dim + 1 :])
        whole = call("cat", given, dim, shape=shape, dtype=n.dtype)
        new = call("view", whole, sizes_of(n), shape=n.shape, dtype=n.dtype)
        if alike(new, n) and equal(new.value, n.value):
            yield Match([whole, new], [(n, new)])


def uncopied(n: Node, users: dict[Node, list[Node]]) -> Node | None:
    """What a value is a copy of that nothing else reads; None where it is none."""
    while n.op in SEEN and len(users[n]) == 1:
        n = n.args[0]
    return n.args[0] if n.op == "clone" and len(users[n]) == 1 else None


def wider(given: Node, part: Node, dim: int) -> bool:
    """Whether a value has the dimensions of another one, but for its last ones, which are more of the same entries."""
    return (
        len(given.shape) > len(part.shape)
        and dim == len(part.shape) - 1
        and given.shape[:dim] == part.shape[:dim]
        and given.numel == part.numel
    )


__all__ = ["copied_into_place", "copied_once"]
