"""A product with a bracket between a matrix's row and column is a triangle of it: `tril` and `triu`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch

from codegen.lowering import tensors as tt
from codegen.lowering.values import LowererBase, Val, to_axes
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
        brackets = [f for f in e.args if is_of_indices(f)]
        rest = sp.Mul(*[f for f in e.args if f not in brackets])
        return self._triangle(brackets[0], rest) if len(brackets) == 1 else None

    def chosen_triangle(self, e: Where) -> Val | None:
        """`f_ij if i <= j else 0` so, and `0 if i <= j else f_ij`; None for other choices."""
        condition, one, other = e.args
        if not is_of_indices(condition):
            return None
        if other == 0:
            return self._triangle(condition, one)
        opposite: Any = Less if isinstance(condition, LessEqual) else LessEqual
        return self._triangle(opposite(*condition.args[::-1]), other) if one == 0 else None

    def _triangle(self, bracket: Expr, rest: Expr) -> Val | None:
        """What is `rest` where a bracket of two indices holds, and zero elsewhere."""
        others = any(isinstance(f, (*BRACKETS, Where)) for f in sp.Mul.make_args(rest))
        if others or not rest.has(Indexed):
            return None
        one, other, strict = cast("tuple[Index, Index, bool]", order_of(cast("Less", bracket)))
        if not all(i in rest.free_symbols and i in self.ranges for i in (one, other)):
            return None
        v = self.value(rest)
        order = [*(i for i in v.indices if i not in (one, other)), *self.ranked([one, other])]
        if v.kind != "float" or None in v.axes or not {one, other} <= set(v.axes):
            return None
        if {*v.axes[-2:]} != {one, other}:
            v = to_axes(v, order)
        return Val(triangle_of(v.t, upper=v.axes[-2] == one, strict=strict), v.axes)

    def triangle_of_truths(self, one: Index, other: Index, strict: bool) -> Val:
        """`[i <= j]`, or `[i < j]`, as a triangle of a matrix of ones."""
        rows, columns = self.ranked([one, other])
        ones = tt.call("torch.ones", self.ranges[rows], self.ranges[columns], dtype=torch.bool)
        return Val(triangle_of(ones, upper=rows == one, strict=strict), (rows, columns), "bool")


def order_of(e: Less) -> tuple[Expr, Expr, bool]:
    """(i, j, strict) of `i < j` or `i <= j`, which `i + 1 <= j` and `i < j + 1` of whole numbers are, too."""
    (one, other), strict = e.args, not isinstance(e, LessEqual)
    if one.is_integer and other.is_integer:
        (a, i), (b, j) = one.as_coeff_Add(), other.as_coeff_Add()
        if a - b == (-1 if strict else 1):
            return i, j, not strict
    return one, other, strict


def is_of_indices(e: Expr) -> bool:
    """Whether a bracket says of two indices which is the larger one."""
    one, other, _ = order_of(e) if isinstance(e, Less) else (sp.S.Zero, sp.S.Zero, False)
    return isinstance(one, Index) and isinstance(other, Index) and one != other


def triangle_of(matrix: tt.T, upper: bool, strict: bool) -> tt.T:
    """The triangle on one side of a matrix's diagonal, with it or without."""
    shift = [tt.number(1 if upper else -1)] if strict else []
    return tt.method(matrix, "triu" if upper else "tril", *shift)


__all__ = ["TriangleMixin", "is_of_indices", "order_of"]
