"""Rows that are normalised, found by what is computed: less their mean, over the root of variance and eps, times w, plus b."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.batchnorm import LOCAL
from codegen.loop.calls import ELEMENTWISE
from codegen.loop.graph import VIEWS, Node, Sized, equal, mapped, small
from codegen.loop.own import evaluated

if TYPE_CHECKING:
    from torch import Tensor

    from codegen.loop.graph import Step

CALLS = LOCAL | {"mv", "std", "reshape", "_unsafe_view"}
"""Calls that the statements of a normalisation and of its derivative consist of."""
SHAPED = VIEWS | {"reshape"}
DTYPES = (torch.float32, torch.float64)
TINY = 1e-30
"""By how much rows are scaled down so that eps alone is left of variance and eps."""


@dataclass(frozen=True)
class Normal:
    """`out` = (x - mean) / sqrt(var + eps) w + b in rows of `width`."""

    x: Node
    out: Node
    width: int
    w: Node | None
    b: Node | None
    eps: float


def averaged(step: Step) -> list[tuple[Node, int]]:
    """Values of which a mean or variance over the last dimensions is taken, with the number of entries of each."""
    found: dict[tuple[Node, int], None] = {}
    for n in step.order:
        if n.op not in ("mean", "sum", "var", "std") or len(n.args) < 2 or not isinstance(n.args[1], (list, tuple)):
            continue
        x, rank = cast("Node", n.args[0]), len(n.args[0].shape)
        dims = sorted(int(d) % rank for d in cast("list[int]", n.args[1])) if rank else []
        if not dims or x.constant is not None or x.dtype not in DTYPES or dims != list(range(dims[0], rank)):
            continue
        width, few = (prod(s[dims[0] :]) for s in (x.shape, tuple(x.value.shape)))
        if width == few > 1 and dims[0] and x.numel:
            found[(x, width)] = None
    return list(found)


def as_large(n: Node, x: Node) -> bool:
    """Whether a value has as many entries as another one: at the loop's sizes, and not by chance."""
    return n.dtype == x.dtype and n.numel == x.numel and n.value.numel() == x.value.numel()


def normals(x: Node, width: int, region: list[Node], place: dict[Node, int]) -> list[Normal]:
    """What is a LayerNorm of x, each as far as weight and bias go."""
    found: list[Normal] = []
    inside: set[Node] = set()
    known = set(region)
    for o in sorted(region, key=lambda n: place.get(n, -1), reverse=True):
        if o is x or o in inside or o.op not in ELEMENTWISE or not as_large(o, x):
            continue
        between = path(x, o, known, width)
        if between is None:
            continue
        calls, vectors = between
        normal = solved(x, o, width, sorted(calls, key=place.__getitem__), vectors)
        if normal is not None:
            found.append(normal)
            inside |= calls
    return found


def path(x: Node, o: Node, region: set[Node], width: int) -> tuple[set[Node], list[Node]] | None:
    """The calls that make o of x, and the vectors they read; None where they read anything else but numbers."""
    calls: set[Node] = set()
    vectors: dict[Node, None] = {}
    stack = [o]
    while stack:
        n = stack.pop()
        if n is x or n in calls:
            continue
        if n.write or (n.op not in SHAPED and any(isinstance(a, Sized) for a in n.args)):
            return None
        calls.add(n)
        for r in n.reads:
            if r in region:
                stack.append(r)
            elif r.constant is None or r.numel != 1:
                v = vector(r, width)
                if v is None:
                    return None
                vectors[v] = None
    return calls, list(vectors)


def vector(r: Node, width: int) -> Node | None:
    """The value with a number for every column of which a value is a view."""
    while r.is_view and r.numel != width:
        r = r.args[0]
    right = r.numel == width and r.value.numel() == width and r.dtype in DTYPES
    return r if right else None


def solved(x: Node, o: Node, width: int, calls: list[Node], vectors: list[Node]) -> Normal | None:
    """The weight, bias and eps with which o is a LayerNorm of x; None where there are none."""
    given = matrix(x.value, width)
    centred = given - given.mean(1, keepdim=True)
    var = centred.square().mean(1)
    for b in (None, *vectors):
        shifted = matrix(o.value, width) - (0.0 if b is None else b.value.reshape(-1))
        for w in (None, *vectors):
            if w is b is not None:
                continue
            slope = slopes(centred, shifted, w)
            if slope is None:
                continue
            eps = small_eps(x, o, width, calls, w, b)
            if eps is not None and equal(slope, (var + eps).rsqrt()):
                return Normal(x, o, width, w, b, eps)
    return None


def slopes(centred: Tensor, value: Tensor, w: Node | None) -> Tensor | None:
    """The positive number of every row by which the row of `value` is its deviation times w."""
    direction = centred if w is None else centred * w.value.reshape(-1)
    slope = (value * direction).sum(1) / direction.square().sum(1)
    right = bool((slope > 0).all()) and equal(direction * slope[:, None], value)
    return slope if right else None


def small_eps(x: Node, o: Node, width: int, calls: list[Node], w: Node | None, b: Node | None) -> float | None:
    """What is added to the variance, read off where that is next to nothing; None where it is no number of its own.

    A difference of numbers of the size of the variance has too few digits for it.
    """
    near = x.value * TINY
    values = {x: near}

    def of(a: Any) -> Any:
        if not isinstance(a, Node):
            return small(a)
        if a in values:
            return values[a]
        return torch.zeros_like(a.value) if b is not None and vector(a, width) is b else a.value

    for n in calls:
        values[n] = evaluated(n, mapped(n.args, of), {k: mapped(v, of) for k, v in n.kwargs.items()})
    rows = matrix(near, width)
    centred = rows - rows.mean(1, keepdim=True)
    slope = slopes(centred / TINY, matrix(values[o], width) / TINY, w)
    if slope is None or not bool(slope.isfinite().all()):
        return None
    each = slope.pow(-2)
    var = (centred / TINY).square().mean(1) * TINY * TINY
    if equal(each, var):
        return 0.0
    return float(f"{float(each.mean()):.9g}") if equal(each, each.mean().expand_as(each)) else None


def matrix(value: Tensor, width: int) -> Tensor:
    """A value in rows."""
    return value.reshape(-1, width)


__all__ = ["CALLS", "Normal", "as_large", "averaged", "matrix", "normals"]
