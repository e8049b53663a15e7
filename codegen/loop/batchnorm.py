"""BatchNorm, found by what it computes: a column-wise affine function of x whose slope is w / sqrt(var + eps)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from codegen.loop.graph import VIEWS, Node, Sized, alike, call, called, equal
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

LOCAL = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "sqrt",
        "rsqrt",
        "mean",
        "sum",
        "rsub",
        "reciprocal",
        "neg",
        "addcmul",
        "addcdiv",
        "square",
        "var",
        "view",
        "squeeze",
        "unsqueeze",
        "expand",
    ]
)
"""Calls that the statements of a normalisation consist of."""


def batch_norm(step: Step) -> Iterator[Match]:
    """(x - mean) / sqrt(var + eps) * w + b over rows is native_batch_norm(x, w, b, training=True, eps=eps)."""
    users = step.users()
    for m in step.order:
        if (
            m.op != "mean"
            or len(m.args) < 2
            or list(m.args[1]) != [0]
            or len(m.args[0].shape) != 2
            or m.args[0].op == "pow"
        ):
            continue
        x = cast("Node", m.args[0])
        region = reached(x, users)
        if not equal(m.value, x.value.mean(0)):
            continue
        vectors = vectors_of(region)
        for o in reversed([n for n in region if alike(n, x) and len(users[n]) and n is not x]):
            found = normalized(x, o, vectors)
            if found is not None:
                yield from _forward(x, o, region, *found)
                break


def reached(x: Node, users: dict[Node, list[Node]], calls: frozenset[str] = LOCAL) -> list[Node]:
    """What is computed from x by elementwise calls and reductions, in order."""
    found: dict[Node, None] = {x: None}
    queue = [x]
    while queue:
        n = queue.pop(0)
        for u in users.get(n, []):
            if u not in found and u.op in calls:
                found[u] = None
                queue.append(u)
    return list(found)


def vectors_of(region: list[Node]) -> list[Node]:
    """The parameters of rank one that some calls read, by views of them too."""
    found: dict[Node, None] = {}
    for n in region:
        for r in n.reads:
            while r.op in VIEWS:
                r = cast("Node", r.args[0])
            if r.op == "input" and len(r.shape) == 1 and r.dtype.is_floating_point:
                found[r] = None
    return list(found)


def normalized(x: Node, o: Node, vectors: list[Node]) -> tuple[Node | None, Node | None, Any, bool] | None:
    """(w, b, eps, unbiased) where o is that function of x; None where it is not."""
    xv, ov = cast("Tensor", x.value), cast("Tensor", o.value)
    centred = xv - xv.mean(0)
    v = centred.square().mean(0)
    slope = (centred * ov).sum(0) / centred.square().sum(0)
    shift = ov.mean(0)
    if not equal(centred * slope + shift, ov) or not bool((slope.abs() > 1e-12).all()):
        return None
    rows = xv.shape[0]
    vectors = [p for p in vectors if p.shape == x.shape[1:] and p.value.shape == xv.shape[1:]]
    b = next((p for p in vectors if equal(p.value, shift)), None)
    if b is None and float(shift.abs().max()) > 1e-9 * max(1.0, float(ov.abs().max())):
        return None
    for w in (None, *vectors):
        top = torch.ones_like(slope) if w is None else cast("Tensor", w.value)
        for unbiased in (False, True):
            eps = (top / slope).square() - v * (rows / (rows - 1) if unbiased else 1.0)
            e = float(eps.mean())
            if (
                float((eps - e).abs().max()) <= 1e-9 * float(v.max() + abs(e))
                and e > -1e-9 * float(v.max())
                and bool((top * slope > 0).all())
            ):
                return w, b, 0.0 if abs(e) < 1e-11 * float(v.max()) else float(f"{e:.6g}"), unbiased
    return None


def _forward(
    x: Node, o: Node, region: list[Node], w: Node | None, b: Node | None, eps: float, unbiased: bool
) -> Iterator[Match]:
    rows, width = x.shape
    few = x.value.shape[0]
    if unbiased:
        return
    whole = call("native_batch_norm", x, w, b, None, None, True, 0.0, eps, shape=(), dtype=None)
    parts = [
        Node("part", (whole, k), {}, s, x.dtype, whole.value[k])
        for k, s in enumerate(((rows, width), (width,), (width,)))
    ]
    out, mean, invstd = parts
    out.name, root = o.name, called(x) or o.name or "x"
    mean.name, invstd.name = f"{root}_mean", f"{root}_invstd"
    nodes = [whole, *parts]
    pairs = [(o, out)]
    std: Node | None = None
    for n in region:
        if n.numel != width or n is o:
            continue
        new: Node | None = None
        if equal(n.value, mean.value):
            new = mean
        elif equal(n.value, invstd.value):
            new = invstd
        elif equal(n.value, 1 / invstd.value):
            if std is None:
                std = call("reciprocal", invstd, shape=(width,), dtype=x.dtype)
                nodes.append(std)
            new = std
        elif equal(n.value, invstd.value**-2 - eps) and n.op not in ("pow", "sub"):
            power = call("pow", invstd, -2, shape=(width,), dtype=x.dtype)
            new = power if eps == 0 else call("sub", power, eps, shape=(width,), dtype=x.dtype)
            nodes.extend([power] if eps == 0 else [power, new])
        elif n.op == "var" and equal(n.value, (invstd.value**-2 - eps) * few / (few - 1)):
            power = call("pow", invstd, -2, shape=(width,), dtype=x.dtype)
            biased = call("sub", power, eps, shape=(width,), dtype=x.dtype)
            new = call("mul", biased, Sized(rows / (rows - 1), few / (few - 1)), shape=(width,), dtype=x.dtype)
            nodes.extend([power, biased, new])
        if new is not None:
            if n.shape != new.shape:
                new = call("view", new, list(n.shape), shape=n.shape, dtype=new.dtype)
                nodes.append(new)
            pairs.append((n, new))
    first = next(n for n in region if n is not x)
    yield Match(nodes, pairs, at=first, key=(x.shape, "forward"))


def batch_norm_backward(step: Step) -> Iterator[Match]:
    """The gradients of x, w and b of native_batch_norm are native_batch_norm_backward."""
    users = step.users()
    for whole in [n for n in step.order if n.op == "native_batch_norm"]:
        x, w, _, _, _, _, _, eps = whole.args
        parts = {n.args[1]: n for n in users[whole] if n.op == "part"}
        mean = parts.get(1) or Node("part", (whole, 1), {}, x.shape[1:], x.dtype, whole.value[1], f"{called(x)}_mean")
        invstd = parts.get(2) or Node(
            "part", (whole, 2), {}, x.shape[1:], x.dtype, whole.value[2], f"{called(x)}_invstd"
        )
        region = [n for p in (x, mean, invstd) for n in reached(p, users)]
        sides = dict.fromkeys(
            r
            for n in region
            for r in n.reads
            if r.dtype is not None and alike(r, x) and r is not x and r.op not in VIEWS
        )
        targets = [n for n in dict.fromkeys(region) if alike(n, x) and n is not x and n not in parts.values()]
        columns = [n for g in sides for n in reached(g, users) if alike(n, w)] if w is not None else []
        found = _backward(whole, x, w, mean, invstd, eps, list(sides), targets, columns, step)
        if found is not None:
            yield found


def _backward(
    whole: Node,
    x: Node,
    w: Node | None,
    mean: Node,
    invstd: Node,
    eps: Any,
    sides: list[Node],
    targets: list[Node],
    columns: list[Node],
    step: Step,
) -> Match | None:
    scale = eps.small if isinstance(eps, Sized) else eps
    for g in sides:
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            g.value,
            x.value,
            None if w is None else w.value,
            None,
            None,
            mean.value,
            invstd.value,
            True,
            scale,
            [True, w is not None, w is not None],
        )
        t = next((n for n in reversed(targets) if n is not g and equal(n.value, dx)), None)
        if t is None:
            continue
        mask = [True, w is not None, w is not None]
        made = call(
            "native_batch_norm_backward", g, x, w, None, None, mean, invstd, True, eps, mask, shape=(), dtype=None
        )
        out = Node("part", (made, 0), {}, x.shape, x.dtype, dx, t.name)
        nodes, pairs = [n for n in (mean, invstd) if n not in step.order], [(t, out)]
        nodes.extend([made, out])
        for k, value in ((1, dw), (2, db)):
            same = [n for n in dict.fromkeys(columns) if equal(n.value, value)] if w is not None else []
            if same:
                part = Node("part", (made, k), {}, x.shape[1:], x.dtype, value, same[-1].name)
                nodes.append(part)
                pairs.extend((n, part) for n in same if alike(n, part))
        place = {n: k for k, n in enumerate(step.order)}
        return Match(nodes, pairs, at=step.order[place[g] + 1], key=(x.shape, "backward"))
    return None


def by_columns(step: Step) -> Iterator[Match]:
    """dx = a dz + b (x - mean) + c, with a = w r, b = -a r^2 Sum dz (x - mean) / n, c = -a Sum dz / n for every column."""
    users = step.users()
    for whole in [n for n in step.order if n.op == "native_batch_norm_backward"]:
        dz, x, w, _, _, mean, r, _, _, _ = whole.args
        (rows, width), kind = x.shape, x.dtype
        few = x.value.shape[0]
        nodes: list[Node] = []

        def add(
            op: str,
            *args: Any,
            nodes: list[Node] = nodes,
            kind: Any = kind,
            width: int = width,
            shape: tuple[int, ...] | None = None,
            name: str = "",
            **kwargs: Any,
        ) -> Node:
            nodes.append(call(op, *args, shape=(width,) if shape is None else shape, dtype=kind, name=name, **kwargs))
            return nodes[-1]

        big = (rows, width)
        root = called(dz) or "dz"
        centred = add("sub", x, mean, shape=big, name=f"{called(x) or 'x'}_centred")
        product = add("mul", centred, dz, shape=big)
        total = add("sum", dz, [0], name=f"{root}_sum")
        moment = add("sum", product, [0], name=f"{root}_moment")
        a = r if w is None else add("mul", w, r, name=f"{root}_a")
        square = add("mul", r, r)
        slope = add("mul", a, square)
        share = add("mul", slope, moment)
        b = add("mul", share, Sized(-1.0 / rows, -1.0 / few), name=f"{root}_b")
        shift = add("mul", a, total)
        c = add("mul", shift, Sized(-1.0 / rows, -1.0 / few), name=f"{root}_c")
        first = add("addcmul", c, dz, a, shape=big)
        dx = add("addcmul", first, centred, b, shape=big)
        results = {0: dx, 2: total}
        parts = {n.args[1]: n for n in users[whole] if n.op == "part"}
        if 1 in parts:
            results[1] = add("mul", moment, r, name=parts[1].name)
        yield Match(nodes, [(n, results[k]) for k, n in parts.items()], at=whole, key=(x.shape, "columns"))


__all__ = ["batch_norm", "batch_norm_backward", "math", "normalized"]
