"""A product with a bracket between a matrix's row and column is a triangle of it: `tril` and `triu`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sympy as sp
import torch

from codegen import tensors as tt
from codegen.values import LowererBase, Val, to_axes
from engine.indexed import Indexed
from engine.notation import BRACKETS, Index, Less, LessEqual, Where

if TYPE_CHECKING:
    from sympy import Expr


class TriangleMixin(LowererBase):
    """Lowers triangles of matrices."""

    def triangle(self, e: Expr) -> Val | None:
        """`f_ij [i <= j]` as the upper triangle of f, `f_ij [j < i]` as what is below its diagonal; None for other products.

        Neither reads what is not in the triangle, as a choice does not.
        """
        brackets = [f for f in e.args if isinstance(f, Less) and all(isinstance(a, Index) for a in f.args)]
        rest = sp.Mul(*[f for f in e.args if f not in brackets])
        others = any(isinstance(f, (*BRACKETS, Where)) for f in sp.Mul.make_args(rest))
        if len(brackets) != 1 or others or not rest.has(Indexed):
            return None
        one, other = (cast("Index", a) for a in brackets[0].args)
        if not all(i in rest.free_symbols and i in self.ranges for i in (one, other)):
            return None
        v = self.value(rest)
        order = [*(i for i in v.indices if i not in (one, other)), *self.ranked([one, other])]
        if v.kind != "float" or None in v.axes or not {one, other} <= set(v.axes):
            return None
        if {*v.axes[-2:]} != {one, other}:
            v = to_axes(v, order)
        return Val(triangle_of(v.t, upper=v.axes[-2] == one, strict=not isinstance(brackets[0], LessEqual)), v.axes)

    def triangle_of_truths(self, one: Index, other: Index, strict: bool) -> Val:
        """`[i <= j]`, or `[i < j]`, as a triangle of a matrix of ones."""
        rows, columns = self.ranked([one, other])
        ones = tt.call("torch.ones", self.ranges[rows], self.ranges[columns], dtype=torch.bool)
        return Val(triangle_of(ones, upper=rows == one, strict=strict), (rows, columns), "bool")


def triangle_of(matrix: tt.T, upper: bool, strict: bool) -> tt.T:
    """The triangle on one side of a matrix's diagonal, with it or without."""
    shift = [tt.number(1 if upper else -1)] if strict else []
    return tt.method(matrix, "triu" if upper else "tril", *shift)


__all__ = ["TriangleMixin"]
