"""Updates: a gradient that is a sum of products goes into its parameter without ever being a tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from codegen.loop.graph import Node, Sized, mapped, packet

if TYPE_CHECKING:
    from codegen.loop.graph import Step


Views: TypeAlias = tuple[tuple[str, tuple[Any, ...]], ...]
LISTED = ("view", "permute")
"""Views whose numbers are given as a list."""


@dataclass(frozen=True)
class Update:
    """`target += scale * what(args)`, with the target seen through `views`. `beta` says that the call can also scale the target.

    `keyword` is what the call names the multiple by, "" where it has none: then the last argument is multiplied.
    """

    name: str
    method: str
    args: tuple[Any, ...]
    scale: float
    views: Views
    keyword: str
    beta: bool


def updates(step: Step, name: str, users: dict[Node, list[Node]]) -> list[Update]:
    """How the gradient of a parameter is put into it. Parts that nothing else reads are folded into the update."""
    gradient = step.results[f"grad.{name}"]
    out: list[Update] = []
    _fold(name, gradient, 1.0, (), step, users, out)
    own = torch.empty(step.inputs[name].shape, device="meta")
    try:
        out = [replace(u, views=shorter(own, u.views)) for u in out]
        return [replace(u, beta=u.beta and seen(own, u.views).numel() == own.numel()) for u in out]
    except RuntimeError:  # a view of a part of it that torch has no strides for
        return [Update(name, "add_", (gradient,), 1.0, (), "alpha", False)]


def seen(t: Tensor, views: Views) -> Tensor:
    """A tensor through views."""
    for op, args in views:
        t = packet(op)(t, *([list(args)] if op in LISTED else args))
    return t


def shorter(t: Tensor, views: Views) -> Views:
    """Views that show the same of a tensor: of those in another shape, one after the other, the last; none that changes nothing."""
    out: list[tuple[str, tuple[Any, ...]]] = []
    for op, args in views:
        before = tuple(seen(t, tuple(out)).shape)
        if op == "view" and out and out[-1][0] == "view":
            before = tuple(seen(t, tuple(out[:-1])).shape)
            out.pop()
        if args != (before if op == "view" else tuple(range(len(before))) if op == "permute" else None):
            out.append((op, args))
    return tuple(out)


def written(g: Node) -> list[tuple[Node, float, Views]] | None:
    """The terms of a tensor into parts of which something was written: (value, multiple, the part); None for other calls.

    What is put where nothing but zeros was is added there as well.
    """
    out: list[tuple[Node, float, Views]] = []
    held = torch.zeros(g.shape, dtype=torch.bool)
    chain = [g]
    while chain[-1].write:
        chain.append(chain[-1].args[0])
    base = chain.pop()
    if base.constant is None or bool(base.constant.any()):
        out.append((base, 1.0, ()))
        held[...] = True
    for n in reversed(chain):
        value = n.args[1] if len(n.args) == 2 else None
        path = tuple((op, mapped(args, lambda a: a.full if isinstance(a, Sized) else a)) for op, args in n.path)
        part = seen(held, path)
        if not isinstance(value, Node) or n.op not in ("copy", "add", "sub") or value.dtype != g.dtype:
            return None
        if value.shape != tuple(part.shape) or (n.op == "copy" and bool(part.any())):
            return None
        part[...] = True
        alpha = n.kwargs.get("alpha", 1)
        if not isinstance(alpha, (int, float)):
            return None
        out.append((value, -alpha if n.op == "sub" else alpha, path))
    return out


def chain_of(g: Node) -> list[Node]:
    """What a tensor was before each part of it was written."""
    found: list[Node] = []
    while g.write:
        g = g.args[0]
        if g.constant is None:
            found.append(g)
    return found


def _fold(
    name: str,
    g: Node,
    scale: float,
    views: tuple[Any, ...],
    step: Step,
    users: dict[Node, list[Node]],
    out: list[Update],
) -> None:
    roots = [k for k, r in step.results.items() if r is g]
    shared = (len(users.get(g, [])) + len(roots) > 1 and len(views) == 0) or len(users.get(g, [])) > 1
    plain = Update(name, "add_", (g,), scale, views, "alpha", False)
    if g.constant is not None and not bool(g.constant.any()):
        return  # a gradient that is zero moves nothing, nor a velocity that begins at zero
    if shared or g.constant is not None or g.op in ("input", "part"):
        out.append(plain)
        return
    a = g.args
    parts = written(g) if g.write else None
    if parts is not None and all(len(users.get(n, [])) == 1 for n in chain_of(g)):
        for value, by, path in parts:
            _fold(name, value, scale * by, (*views, *path), step, users, out)
        return
    if g.op == "clone" and not g.write:
        _fold(name, a[0], scale, views, step, users, out)
        return
    if g.op in ("view", "squeeze", "unsqueeze", "_unsafe_view"):
        inner = cast("Node", a[0])
        _fold(name, inner, scale, (*views, ("view", tuple(inner.shape))), step, users, out)
        return
    if g.op == "permute":
        order = list(a[1])
        inverse = [order.index(k) for k in range(len(order))]
        _fold(name, a[0], scale, (*views, ("permute", tuple(inverse))), step, users, out)
        return
    if g.op in ("addmm", "addcmul") and a[0].shape == g.shape and "alpha" not in g.kwargs and "beta" not in g.kwargs:
        _fold(name, a[0], scale, views, step, users, out)
        by = scale * g.kwargs.get("value", 1)
        product, keyword = g.op == "addmm", "alpha" if g.op == "addmm" else "value"
        out.append(Update(name, f"{g.op}_", (a[1], a[2]), by, views, keyword, product))
    elif g.op == "mm":
        out.append(Update(name, "addmm_", (a[0], a[1]), scale, views, "alpha", True))
    elif g.op == "mv":
        out.append(Update(name, "addmv_", (a[0], a[1]), scale, views, "alpha", True))
    elif g.op == "bmm":
        out.append(Update(name, "baddbmm_", (a[0], a[1]), scale, views, "alpha", True))
    elif g.op == "sum" and len(g.args) > 1 and list(a[1]) == [0] and a[0].op == "bmm" and len(users.get(a[0], [])) == 1:
        out.append(Update(name, "addbmm_", tuple(a[0].args[:2]), scale, views, "alpha", True))
    elif g.op in ("index_add", "scatter_add") and not g.kwargs:
        _fold(name, a[0], scale, views, step, users, out)
        keyword = "alpha" if g.op == "index_add" else ""
        out.append(Update(name, f"{g.op}_", (a[1], a[2], a[3]), scale, views, keyword, False))
    elif g.op in ("add", "sub") and all(isinstance(x, Node) and x.shape == g.shape for x in a[:2]) and not g.kwargs:
        _fold(name, a[0], scale, views, step, users, out)
        _fold(name, a[1], scale if g.op == "add" else -scale, views, step, users, out)
    elif g.op == "neg":
        _fold(name, a[0], -scale, views, step, users, out)
    elif g.op in ("mul", "div") and not isinstance(a[1], Node):
        by = float(a[1].full if isinstance(a[1], Sized) else a[1])
        _fold(name, a[0], scale * by if g.op == "mul" else scale / by, views, step, users, out)
    elif g.op in ("mul", "div"):
        out.append(
            Update(name, "addcmul_" if g.op == "mul" else "addcdiv_", (a[0], a[1]), scale, views, "value", False)
        )
    else:
        out.append(plain)


@dataclass(frozen=True)
class Average:
    """A buffer that becomes `keep * buffer + share * value`, in place; `value` None adds the number `share`."""

    name: str
    keep: Any
    share: Any
    value: Node | None


def averages(step: Step) -> list[Average]:
    """Buffers that are moving averages or counters. Their results become what is averaged, or nothing."""
    users = step.users()
    found: list[Average] = []
    for key in [k for k in step.results if k.startswith("buffer.")]:
        name = key.removeprefix("buffer.")
        own, n = step.inputs[name], step.results[key]
        if n.op != "add" or n.kwargs or users[n] or len(n.args) != 2:
            continue
        first, second = n.args
        if first is own and not isinstance(second, Node):
            found.append(Average(name, 1, second, None))
            del step.results[key]
        elif _scaled(first) and _scaled(second) and own in (first.args[0], second.args[0]):
            old, new = (first, second) if first.args[0] is own else (second, first)
            if old.shape == own.shape == new.shape:
                found.append(Average(name, old.args[1], new.args[1], new.args[0]))
                step.results[key] = new.args[0]
    step.sort()
    return found


def _scaled(n: Any) -> bool:
    return isinstance(n, Node) and n.op == "mul" and not isinstance(n.args[1], Node)
