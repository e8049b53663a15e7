"""Plain clean-up of a recorded step: equal calls once, constants as numbers, nothing that has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from codegen.loop.constants import shortest
from codegen.loop.graph import Node, Sized, mapped
from codegen.loop.views import RESHAPES, permutation, unchanged

if TYPE_CHECKING:
    from codegen.loop.graph import Step

SCALARS = frozenset(["add", "sub", "mul", "div"])


def tidied(step: Step) -> None:
    """Apply all of the clean-ups to a step, in place."""
    for n in list(step.order):
        if n.op in ("detach", "alias", "lift_fresh", "lift") and not n.write:
            step.replace(n, n.args[0])
    for n in step.order:
        apart(n)
        n.path = tuple(p for p in n.path if p[0] not in ("detach", "alias"))
        n.write = n.write and bool(n.path)
    step.sort()
    numbers(step)
    step.readers = None
    without_effect(step)
    as_they_are(step)
    merged(step)
    step.sort()


def apart(n: Node) -> None:
    """A part of a tensor that was taken apart is a view of it: a run of a dimension, or one place in it."""
    if n.op != "part":
        return
    whole, k = n.args
    if whole.op not in ("split", "split_with_sizes", "unbind"):
        return
    x = whole.args[0]
    dim = (whole.args[2 if whole.op != "unbind" else 1 :] or (0,))[0] % len(x.shape)
    if whole.op == "unbind":
        n.op, n.args = "select", (x, dim, k)
        return
    sizes = whole.args[1] if whole.op == "split_with_sizes" else [whole.args[1]] * (k + 1)
    start = added(sizes[:k])
    n.op, n.args = "slice", (x, dim, start, added([start, sizes[k]]))


def added(sizes: list[Any]) -> Any:
    """A sum of sizes, at the loop's sizes and at the small point."""
    full, point = (sum(getattr(s, which, s) for s in sizes) for which in ("full", "small"))
    return full if full == point else Sized(full, point)


def numbers(step: Step) -> None:
    """A constant with one element that is an operand becomes a number."""
    for n in step.order:
        if n.op not in SCALARS or n.write or n.constant is not None:
            continue
        for k, a in enumerate(n.args[:2]):
            if isinstance(a, Node) and a.constant is not None and not a.shape and (k == 1 or n.op in ("add", "mul")):
                full, point = shortest(a.constant), shortest(a.value)
                value = full if full == point else Sized(full, point)
                other = n.args[1 - k]
                if isinstance(other, Node) and other.constant is None:
                    n.args = (other, value, *n.args[2:])
                    break


def without_effect(step: Step) -> None:
    """A product with one and a sum with zeros are what they are of: the cotangents of a loss, and of other results."""
    for n in list(step.order):
        if n.op not in SCALARS or n.write or n.constant is not None or len(n.args) != 2:
            continue
        x, other = n.args
        if n.op == "add" and is_zero(x):
            x, other = other, x
        if not isinstance(x, Node) or (x.shape, x.value.shape, x.dtype) != (n.shape, n.value.shape, n.dtype):
            continue
        one = n.op in ("mul", "div") and not isinstance(other, (Node, Sized)) and other == 1
        if one or (n.op in ("add", "sub") and is_zero(other)):
            x.name = x.name or n.name
            step.replace(n, x)


def as_they_are(step: Step) -> None:
    """A view that shows a value as it is is that value."""
    for n in step.order:
        same = unchanged(n)
        if same is not None and same.value.shape == n.value.shape and not (n.name and same.name):
            between = n.args[0].name if n.args[0].op in RESHAPES else ""  # a sight of it that may not be needed now
            same.name = same.name or n.name or between
            step.replace(n, same)


def is_zero(a: Any) -> bool:
    """Whether an operand is zero in every step."""
    if not isinstance(a, Node):
        return not isinstance(a, Sized) and a == 0
    return a.constant is not None and not bool(a.constant.any())


def merged(step: Step) -> None:
    """Calls with the same arguments are made once."""
    seen: dict[Any, Node] = {}
    for n in step.order:
        if n.op == "input" or n.write:
            continue
        base = n
        while base.op in ("view", "_unsafe_view") and not base.write:
            base = base.args[0]
        order = permutation(n)
        if base is not n:
            key: Any = ("view", id(base), n.shape, n.value.shape)
        elif order is not None:
            key = ("permute", id(n.args[0]), tuple(order))
        else:
            named = tuple((k, _key(v)) for k, v in n.kwargs.items())
            key = (n.op, n.overload, _held(n), _key(n.args), named, n.dtype)
        if key not in seen:
            seen[key] = n
        else:
            if not seen[key].name:
                seen[key].name = n.name
            step.replace(n, seen[key])


def _held(n: Node) -> Any:
    """What tells constants apart, which have no arguments: the value of a number, and which one it is of several."""
    if n.op != "constant":
        return None
    return id(n) if n.shape else n.constant.item()


def _key(a: Any) -> Any:
    if isinstance(a, (list, tuple)):
        return tuple(_key(x) for x in cast("list[Any]", a))
    return (type(a).__name__, id(a) if isinstance(a, Node) else a)


__all__ = ["mapped", "merged", "tidied"]
