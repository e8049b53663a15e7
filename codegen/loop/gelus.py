# pyright: basic
"""GELU as the kernel that torch has for it, or as the error function: which is faster depends on the dtype."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codegen.loop.graph import Node, alike, call, constant, equal, lies_in_rows, seen_as, sizes_of
from codegen.loop.rules import Match, depends_on, near

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

kernel = torch.ops.aten.gelu.default
slope = torch.ops.aten.gelu_backward.default


def with_kernels(step: Step) -> Iterator[Match]:
    """z (1 + erf(z / sqrt(2))) / 2 is gelu(z), g times its derivative gelu_backward(g, z); multiples are multiples of those."""
    for e in [n for n in step.order if n.op == "erf"]:
        (inner,) = e.args
        z = inner.args[0] if inner.op in ("mul", "div") and not isinstance(inner.args[1], Node) else None
        if z is None or not equal(z.value, inner.value * math.sqrt(2)):
            continue
        behind = depends_on(step, {z})
        found: dict[str, tuple[Node, list[Node]]] = {}
        for n in step.order:
            if n not in behind or n.op not in ("mul", "div"):
                continue
            seen = seen_with(z, n)
            if seen is not None and "gelu" not in found and (made := value_of(n, *seen)) is not None:
                found["gelu"] = n, made
            elif seen is not None and "gelu_backward" not in found and (made := slope_of(n, *seen)) is not None:
                found["gelu_backward"] = n, made
        if not found:
            continue
        (first, nodes), *others = found.values()
        pairs = [(n, made[-1]) for n, made in found.values()]
        later = (others[0][1], others[0][0]) if others else None
        yield Match(nodes, pairs, at=first, key=(z.shape, len(found)), later=later)


def seen_with(z: Node, n: Node) -> tuple[Node, list[Node]] | None:
    """A value with the shape of another one that has as many entries, and the view that gives it that."""
    if alike(z, n):
        return z, []
    if (z.numel, z.value.numel(), z.dtype) != (n.numel, n.value.numel(), n.dtype) or not lies_in_rows(z):
        return None
    made = call("view", z, sizes_of(n), shape=n.shape, dtype=z.dtype)
    return made, [made]


def value_of(n: Node, z: Node, made: list[Node]) -> list[Node] | None:
    """Calls for a value that is a multiple of gelu(z)."""
    by = multiple(n.value, kernel(z.value))
    return None if by is None else multiplied(n, [*made, call("gelu", z, shape=n.shape, dtype=n.dtype)], by)


def slope_of(n: Node, z: Node, made: list[Node]) -> list[Node] | None:
    """Calls for a value that is a multiple of something times the derivative of gelu at z."""
    for g in [r for r in near(n, 3) if r.dtype == n.dtype and r.constant is None]:
        seen = seen_as(g, n)
        by = None if seen is None else multiple(n.value, slope(seen[0].value, z.value))
        if seen is not None and by is not None:
            own = call("gelu_backward", seen[0], z, shape=n.shape, dtype=n.dtype)
            return multiplied(n, [*made, *seen[1], own], by)
    return None


def multiple(value: Tensor, of: Tensor) -> float | None:
    """The number with which a value is a multiple of another one; None where there is none."""
    at = int(of.abs().argmax())
    by = float(value.flatten()[at] / of.flatten()[at])
    by = float(f"{by:.12g}")
    return by if math.isfinite(by) and by and equal(value, of * by) else None


def multiplied(n: Node, made: list[Node], by: float) -> list[Node]:
    """Calls for a value as a multiple of what some calls give."""
    return made if by == 1 else [*made, call("mul", made[-1], by, shape=n.shape, dtype=n.dtype)]


def by_error_function(step: Step) -> Iterator[Match]:
    """gelu(z) is z p with p = (1 + erf(z / sqrt(2))) / 2, gelu_backward(g, z) is g (p + z exp(-z^2 / 2) / sqrt(2 pi))."""
    known: dict[Node, list[Node]] = {}
    for n in step.order:
        if n.op not in ("gelu", "gelu_backward") or n.kwargs.get("approximate", "none") != "none" or n.write:
            continue
        z = n.args[-1]
        if n.op == "gelu_backward" and len(n.args) != 2:
            continue
        if z not in known:
            known[z] = list(share(z))
        p = known[z][-1]
        if n.op == "gelu":
            made = [call("mul", z, p, shape=n.shape, dtype=n.dtype)]
        else:
            made = [call("mul", z, z, shape=n.shape, dtype=n.dtype)]
            for op, by in (("mul", -0.5), ("exp", None)):
                made.append(call(op, made[-1], *([] if by is None else [by]), shape=n.shape, dtype=n.dtype))
            density = 1 / math.sqrt(2 * math.pi)
            made.append(call("addcmul", p, z, made[-1], value=density, shape=n.shape, dtype=n.dtype))
            made.append(call("mul", n.args[0], made[-1], shape=n.shape, dtype=n.dtype))
        yield Match([*known[z], *made], [(n, made[-1])], key=(n.op, n.shape))


def share(z: Node) -> Iterator[Node]:
    """The calls of the share of a normal distribution that is below z."""
    inner = call("mul", z, math.sqrt(0.5), shape=z.shape, dtype=z.dtype)
    e = call("erf", inner, shape=z.shape, dtype=z.dtype)
    half = constant(torch.tensor(0.5, dtype=z.dtype), torch.tensor(0.5, dtype=torch.float64))
    yield from (inner, e, half, call("add", half, e, alpha=0.5, shape=z.shape, dtype=z.dtype))


__all__ = ["by_error_function", "with_kernels"]
