"""A bias kept as a row of the matrix whose product it is added to: x w + b is [x, 1] [w; b].

The rows of x get a one behind their values, once, as what computes x fills the places in front of it. The bias then is
added, its gradient summed and its step taken by the products of the matrix. Spare rows behind it make the inner dimension
one that products take whole; they hold zeros and so do the places that meet them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.calls import elementwise, has_out
from codegen.loop.cost import price
from codegen.loop.graph import Node, call, called, copied, equal
from codegen.loop.kept import Kept, as_it_is
from engine.naming import free_name

if TYPE_CHECKING:
    from codegen.loop.graph import Step
    from codegen.loop.layout import Layout

SPARE = 16
"""What the inner dimension is made a multiple of."""


def with_bias_rows(step: Step) -> Step:
    """The step with biases kept in rows wherever that is possible and costs less."""
    tried: set[str] = set()
    while True:
        made, _ = copied(step)
        found = next((f for n in made.order if (f := Found.of(made, n)) is not None and f.names[1] not in tried), None)
        if found is None:
            return step
        tried.add(found.names[1])
        if found.join(made) and price(made) < price(step):
            step = made


class Found:
    """x w + b where w and b take steps, and their gradients: products with the same cotangent d."""

    def __init__(self, product: Node, names: tuple[str, str], d: Node) -> None:
        self.product, self.names, self.d = product, names, d

    @staticmethod
    def of(step: Step, n: Node) -> Found | None:
        """What is found at a call."""
        if n.op != "addmm" or n.kwargs:
            return None
        b, x, w = n.args
        own = {n: k for k, n in step.inputs.items() if f"grad.{k}" in step.results}
        if b not in own or w not in own or len(b.shape) != 1 or b.shape[0] != w.shape[1] or b.dtype != w.dtype:
            return None
        if not elementwise(x) or not has_out(x) or x in step.results.values() or x.shape != (n.shape[0], w.shape[0]):
            return None
        names = own[w], own[b]
        users = step.users()
        kept = [step.kept.get(k, as_it_is(k, v.shape)) for k, v in zip(names, (w, b), strict=True)]
        if kept[0].fill or kept[0].rows or kept[1].rows or len(users[b]) != 1:
            return None
        dw, db = (step.results[f"grad.{k}"] for k in names)
        d = summed(db)
        if (
            d is None
            or dw.op != "mm"
            or dw.args[1] is not d
            or dw.args[0].op != "permute"
            or dw.args[0].args[0] is not x
        ):
            return None
        alone = all(not users[g] and sum(r is g for r in step.results.values()) == 1 for g in (dw, db))
        around = all(u is n or (u.op == "permute" and u.args[0] is w) for u in users[w])
        return Found(n, names, d) if alone and around else None

    def join(self, step: Step) -> bool:
        """Rewrite the step; False where a result is another one."""
        b, x, w = self.product.args
        first, second = self.names
        (inner, columns), rows, kind = w.shape, x.shape[0], w.dtype
        whole = -(-(inner + 1) // SPARE) * SPARE
        point = torch.cat([w.value, b.value[None], w.value.new_zeros(whole - inner - 1, columns)])
        name = free_name(f"{first}_{second}", step.inputs)
        joint = Node("input", (), {}, (whole, columns), kind, point, name)
        wide = torch.cat(
            [x.value, x.value.new_ones(len(x.value), 1), x.value.new_zeros(len(x.value), whole - inner - 1)], 1
        )
        extended = Node(
            "extended", (x, whole), {}, (rows, whole), kind, wide, f"{called(x) or 'x'}_one", stride=(whole, 1)
        )
        more = before(step, extended)  # of a layer beside this one: x has one memory
        product = call("mm", more, joint, shape=self.product.shape, dtype=kind, name=self.product.name)
        only = call("slice", joint, 0, 0, inner, shape=w.shape, dtype=kind)
        turned = before(step, call("permute", more, [1, 0], shape=(whole, rows), dtype=kind))
        gradient = call("mm", turned, self.d, shape=joint.shape, dtype=kind, name=f"d{joint.name}")
        dw, db = (step.results[f"grad.{k}"] for k in self.names)
        expected = torch.cat([dw.value, db.value[None]])
        if not equal(product.value, self.product.value) or not equal(gradient.value[: inner + 1], expected):
            return False
        if bool(gradient.value[inner + 1 :].any()):
            return False
        step.insert([joint, *([more] if more is extended else []), product, only], self.product)
        step.insert([*([] if turned in step.order else [turned]), gradient], dw)
        step.replace(self.product, product)
        for n in step.order:
            if n.op == "permute" and n.args[0] is w:
                n.args = (only, *n.args[1:])
        self.keep(step, joint, inner)
        for k in self.names:
            del step.results[f"grad.{k}"], step.inputs[k]
        step.inputs[joint.name] = joint
        step.results[f"grad.{joint.name}"] = gradient
        step.readers = None
        step.sort()
        return True

    def keep(self, step: Step, joint: Node, inner: int) -> None:
        """Where both parameters are from now on."""
        kept = [step.kept.pop(k, as_it_is(k, step.inputs[k].shape)) for k in self.names]
        columns = joint.shape[1]
        (w,), (b,) = (k.parts for k in kept)
        rows: Any = ((inner, kept[1].fill),) if kept[1].fill else ()
        full = (0, columns)
        b = replace(b, at=(inner, *(b.at or (full,))))
        step.kept[joint.name] = Kept((w, b), 0.0, rows)


def before(step: Step, n: Node) -> Node:
    """The view that is there already, or this one."""
    return next((m for m in step.order if m.op == n.op and m.args == n.args), n)


def extended_and_stored(layout: Layout) -> bool:
    """Whether a value that got a one behind its rows is kept for the end of a chunk, in memory of its own."""
    return any(n.op == "extended" and n.args[0] in layout.stored for n in layout.body if isinstance(n, Node))


def summed(n: Node) -> Node | None:
    """What a gradient is the column sums of."""
    if (
        n.op == "mv"
        and n.args[0].op == "permute"
        and n.args[1].constant is not None
        and bool((n.args[1].constant == 1).all())
    ):
        return n.args[0].args[0]
    if n.op == "sum" and len(n.args) == 2 and list(n.args[1]) == [0]:
        return n.args[0]
    return None


__all__ = ["with_bias_rows"]
