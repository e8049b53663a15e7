"""Outputs that no expression computes: what an equation says of a tensor, and what an expansion says of a determinant.

    torch.linalg.solve(A, B) is the X with Sum_j A[i,j] X[j,k] = B[i,k].

The equation is all that a row states. How the output moves with what the equation reads follows from it: its derivative is
taken on both sides, and both stay equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import sympy as sp

from engine.notation import base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sympy import Expr

UNKNOWN = "_out"
"""What an equation calls the output that it defines."""
DETERMINANT = sp.Symbol("det", real=True)
"""In an expansion: the determinant."""


@dataclass(frozen=True)
class Equation:
    """An output of this shape, read as `UNKNOWN`: with it, `left` is `right` at all `indices` (0 for a dimension of size one).

    There are as many equations as elements, a system for each entry of the first `lead` dimensions, and for each of the
    last one's where `columns` are apart from one another. The unknown of a `symmetric` one is among the lower triangular
    matrices; left and right side are symmetric matrices, and of a matrix that is not, the symmetric part is meant.
    """

    shape: tuple[Expr, ...]
    indices: tuple[Expr, ...]
    left: Expr
    right: Expr
    lead: int
    symmetric: bool = False
    columns: bool = False

    @property
    def expr(self) -> Expr:
        """What is zero."""
        return self.left - self.right

    def replaced(self, mapping: Mapping[Any, Expr]) -> Self:
        """The same in other symbols."""
        shape = tuple(n.xreplace(mapping) for n in self.shape)
        left, right = (e.xreplace(mapping) for e in (self.left, self.right))
        return replace(self, shape=shape, left=left, right=right)


@dataclass(frozen=True)
class Expansion:
    """An output of this shape that is `expr`, a function of the `DETERMINANT` of the matrices in operand `matrix`, of `size`.

    The determinant is Sum_j M[i,j] c[i,j] along any row i, whose cofactors c[i,j] read nothing of that row. With the
    entries of another row, it is that of a matrix with two equal rows, which is zero: Sum_j M[i,j] c[k,j] = det [i = k].
    """

    shape: tuple[Expr, ...]
    expr: Expr
    matrix: int
    size: Expr

    def replaced(self, mapping: Mapping[Any, Expr]) -> Self:
        """The same in other symbols."""
        shape = tuple(n.xreplace(mapping) for n in self.shape)
        return replace(self, shape=shape, size=self.size.xreplace(mapping))


Implicit = Equation | Expansion

_unknown = base(UNKNOWN)


def unknown(*indices: Expr) -> Expr:
    """An element of the output that an equation defines."""
    return _unknown[tuple(indices)] if indices else _unknown[0]


__all__ = ["DETERMINANT", "UNKNOWN", "Equation", "Expansion", "Implicit", "unknown"]
