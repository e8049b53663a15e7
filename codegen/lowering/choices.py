"""Comparisons of elements, and choices by them."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp

from codegen.lowering import tensors as tt
from codegen.lowering.functions import FunctionMixin
from codegen.lowering.triangles import is_of_indices, order_of
from codegen.lowering.values import Val, broadcast, integral, scalar, to_axes
from engine.notation import (
    Equal,
    Index,
    Sigma,
    Where,
    canonical,
)


class ChoiceMixin(FunctionMixin):
    """Lowers brackets and choices."""

    def compare(self, symbol: str, e: Any) -> Val:
        """A bracket as a tensor of truth values; `i + 1 <= j` of whole numbers is `i < j`, `i < j + 1` is `i <= j`."""
        sides = e.args
        if symbol != "==":
            one, other, strict = order_of(e)
            symbol, sides = "<" if strict else "<=", (one, other)
            if is_of_indices(e) and one in self.ranges and other in self.ranges:
                return self.triangle_of_truths(cast("Index", one), cast("Index", other), strict=strict)
        a, b = (self.value(x) for x in sides)
        if a.is_number and not b.is_number:
            turned = {"<": ">", "<=": ">=", "==": "=="}[symbol]
            return self.join(turned, b, a, "bool")
        if a.is_number:
            return Val(tt.binary(symbol, a.t, b.t), (), "number")
        return self.join(symbol, a, b, "bool")

    def choice(self, e: Where) -> Val:
        """torch.where, torch's norm for `0 if Sum x^2 = 0 else sqrt(Sum x^2)`, triangles of matrices, and stacks."""
        known = self.norm(e) or self.chosen_triangle(e) or self.stacked(e)
        if known is not None:
            return known
        condition = self.value(e.args[0])
        with self.under_condition():
            a, b = (self.value(x) for x in e.args[1:])
        if condition.is_number:
            condition = Val(tt.call("torch.tensor", condition.t), (), "bool")
        if condition.kind != "bool":
            condition = self.join("!=", condition, scalar(0), "bool")
        target = self.target(condition, a, b)
        condition, a, b = (to_axes(v, target) for v in (condition, a, b))
        axes = condition.axes
        for v in (a, b):
            if not v.is_number:
                axes = broadcast(axes, v.axes)
        kind = "float" if "float" in (a.kind, b.kind) else "int"
        sides = [v for v in (a, b) if not v.is_number]
        whole = (
            bool(sides) and all(v.kind == "int" for v in sides) and all(integral(v.t) for v in (a, b) if v.is_number)
        )
        if not any(v.kind == "float" for v in (a, b)) and not self.counting and not (whole and self.like is None):
            a, kind = self.typed(a), "float"  # torch would make integers of integers, and float32 of other numbers
            b = b if b.is_number else self.typed(b)
        return Val(tt.call("torch.where", condition.t, a.t, b.t), axes, kind)

    def norm(self, e: Where) -> Val | None:
        """The root of a sum of squares that is 0 where the sum is; None where a choice is anything else."""
        condition, zero, root = e.args
        square = condition.args[0] if isinstance(condition, Equal) and condition.args[1] == zero == 0 else None
        if not isinstance(square, Sigma) or square.body.as_base_exp()[1] != 2:
            return None
        if canonical(root) != canonical(sp.sqrt(square)):
            return None
        inner = square.body.as_base_exp()[0]
        with self.inside(inner, square.limits):
            v = self.real(inner)
        if not all(i in v.axes for i, _ in square.limits):
            return None
        dims = tuple(sorted(v.axes.index(i) for i, _ in square.limits))
        kept = tuple(None if d in dims else a for d, a in enumerate(v.axes))
        own = {} if len(dims) == len(v.axes) else {"dim": dims[0] if len(dims) == 1 else dims}
        return Val(
            tt.method(v.t, "norm", **own), tuple(a for d, a in enumerate(v.axes) if d not in dims), "float", kept
        )
