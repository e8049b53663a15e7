"""A choice by the position along a short dimension, with a tensor for each position, is `torch.stack` of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sympy import Integer

from codegen.lowering import tensors as tt
from codegen.lowering.values import LowererBase, Val, to_axes
from engine.notation import Index, Less, Where

if TYPE_CHECKING:
    from sympy import Expr


class StackMixin(LowererBase):
    """Lowers tensors beside each other."""

    def stacked(self, e: Where) -> Val | None:
        """`a_i if k < 1 else b_i if k < 2 else c_i` over three positions k, as a stack; None for other choices.

        A number among them fills a tensor like another one of them.
        """
        found = self._pieces(e)
        if found is None:
            return None
        k, pieces = found
        values = [self.value(p) for p in pieces]
        if not any(v.kind == "float" for v in values):
            return None
        values = [v if v.is_number else self.typed(v) for v in values]
        axes = tuple(i for i in self.target(*values) if i is not None)
        values = [to_axes(v, axes) for v in values]
        like = next((v.t for v in values if not v.is_number and v.axes == axes and is_view(v.t)), None)
        if any(like is None if v.is_number else v.axes != axes for v in values):
            return None
        order = self.ranked([*axes, k])
        if tuple(i for i in order if i != k) != axes:
            order = [*axes, k]
        parts = [filled(v.t, like) if like is not None and v.is_number else v.t for v in values]
        return Val(tt.call("torch.stack", tuple(parts), order.index(k)), tuple(order))

    def _pieces(self, e: Where) -> tuple[Index, list[Expr]] | None:
        """The index that a choice asks for, and what stands at every position; None where it asks for anything else."""
        asked = e.args[0].free_symbols
        k = next(iter(asked), None)
        if len(asked) != 1 or not isinstance(k, Index) or not isinstance(self.ranges.get(k), Integer):
            return None
        n = int(self.ranges[k])
        if leaves(e, k) != n:
            return None
        return k, [e.xreplace({k: Integer(p)}) for p in range(n)]


def leaves(e: Expr, k: Index) -> int:
    """What a tree of comparisons of one index with numbers chooses among."""
    if isinstance(e, Where) and isinstance(e.args[0], Less) and e.args[0].free_symbols == {k}:
        return sum(leaves(b, k) for b in e.args[1:])
    return 1


def is_view(t: tt.T) -> bool:
    """Whether an expression is a tensor that is there."""
    return t.kind == "name" or (t.kind in ("item", "attribute") and is_view(t.args[0])) or is_squeezed(t)


def is_squeezed(t: tt.T) -> bool:
    """Whether an expression is such a tensor with a dimension less or more."""
    return t.kind == "method" and t.head in ("squeeze", "unsqueeze") and is_view(t.args[0])


def filled(number: tt.T, like: tt.T) -> tt.T:
    """A tensor of one number, as large as another one."""
    made = {"1": "ones_like", "0": "zeros_like"}.get(number.head if number.kind == "number" else "")
    return tt.call(f"torch.{made}", like) if made else tt.call("torch.full_like", like, number)


__all__ = ["StackMixin"]
