"""What an equation defines: inverses, solutions of linear systems, Cholesky's factor; and determinants, by expansion.

A row states the equation (or the expansion) alone; how the output moves with the operands follows from that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch

from engine.errors import ShapeError
from engine.implicit import DETERMINANT, Equation, Expansion, unknown
from engine.notation import Delta, Less, LessEqual, fresh, sigma
from engine.table import (
    Opaque,
    Operand,
    aligned,
    broadcast_shape,
    composite,
    equal,
    equate,
    indices_of,
    op,
    recorded_as,
    row_of,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sympy import Expr

linalg: Any = torch.linalg
Tensor = torch.Tensor


def square(x: Operand) -> Expr:
    """The size of square matrices. Raises ShapeError where they are not."""
    if x.rank < 2:
        raise ShapeError(f"a square matrix is needed here, and this has {x.rank} dimensions")
    return equal(x.shape[-2], x.shape[-1])


@op("inverse", targets=(linalg.inv,))
def inverse(x: Operand) -> Equation:
    """A X = 1."""
    n = square(x)
    at, j = indices_of((*x.shape[:-2], n, n)), fresh()
    *lead, i, k = at
    left = sigma(x[(*lead, i, j)] * unknown(*lead, j, k), (j, n))
    return equate((*x.shape[:-2], n, n), at, left, Delta(i, k), len(lead), columns=True)


def is_vector(x: Operand, y: Operand) -> bool:
    """Whether torch takes the right side of a system for vectors: one, or one for each matrix."""
    if y.rank != x.rank - 1 or y.rank == 1:
        return y.rank == 1
    return [value_of(n) for n in y.shape] == [value_of(n) for n in x.shape[:-1]]


def system(x: Operand, y: Operand, matrix: Callable[[Expr, Expr], Expr], plain: bool = False) -> Equation:
    """A X = B for a `matrix` that says what the entry at (i, j) of one in x counts, and with X itself where `plain`."""
    n = square(x)
    vector = is_vector(x, y)
    if vector and y.rank > 1:
        for a, b in zip(x.shape[:-1], y.shape, strict=True):
            equal(a, b)
    equal(n, y.shape[-1 if vector else -2])
    batch = broadcast_shape(x.shape[:-2], y.shape[: -1 if vector else -2])
    shape = (*batch, n, *(() if vector else y.shape[-1:]))
    at, j = indices_of(shape), fresh()
    lead, i, columns = at[: len(batch)], at[len(batch)], at[len(batch) + 1 :]
    entry = x[(*lead[len(batch) - (x.rank - 2) :], i, j)]
    left = sigma(entry * matrix(i, j) * unknown(*lead, j, *columns), (j, n)) + (unknown(*at) if plain else 0)
    return equate(shape, at, left, aligned(y, at), len(batch), columns=not vector)


@op(targets=(linalg.solve,))
def solve(x: Operand, y: Operand) -> Equation:
    return system(x, y, lambda i, j: sp.S.One)


@op(targets=(linalg.solve_triangular,))
def solve_triangular(x: Operand, y: Operand, *, upper: bool, unitriangular: bool = False) -> Equation:
    """Of the matrix one triangle is read, and ones on its diagonal where it is unitriangular."""
    before: Any = Less if unitriangular else LessEqual
    return system(x, y, lambda i, j: before(i, j) if upper else before(j, i), unitriangular)


def turned(target: Any) -> None:
    """Register what solves X A = B by a row that solves A X = B: both sides are transposed."""
    row = row_of(target)

    @composite(targets=(target,))
    def either_side(x: Any, y: Any, *, left: bool = True, **rest: Any) -> Any:
        if not left:
            x, y = x.mT, y.mT
            rest = {k: not v if k == "upper" else v for k, v in rest.items()}
        with recorded_as(cast("Any", row)):
            found = target(x, y, **rest)
        return found if left else found.mT


turned(linalg.solve)
turned(linalg.solve_triangular)


@op(targets=(linalg.cholesky,))
def lower_factor(x: Operand) -> Equation:
    """L Lᵀ = A, L lower triangular."""
    n = square(x)
    at, k = indices_of((*x.shape[:-2], n, n)), fresh()
    *lead, i, j = at
    left = sigma(unknown(*lead, i, k) * unknown(*lead, j, k), (k, n))
    return equate((*x.shape[:-2], n, n), at, left, x[at], len(lead), symmetric=True)


LOWER = row_of(linalg.cholesky)


@composite("cholesky", targets=(linalg.cholesky,))
def cholesky(x: Any, upper: bool = False) -> Any:
    with recorded_as(cast("Any", LOWER)):
        factor = linalg.cholesky(x)
    return factor.mT if upper else factor


def factored(x: Operand, upper: bool, shape: Sequence[Expr], right: Callable[[Sequence[Expr]], Any]) -> Equation:
    """L Lᵀ X = B for the lower triangle of a matrix, Uᵀ U X = B for the `upper` one; `right` is B at indices."""
    n, at = square(x), indices_of(shape)
    *lead, i, k = at
    j, m = fresh(), fresh()

    def entry(row: Expr) -> Any:
        of = lead[len(lead) - (x.rank - 2) :]
        return x[(*of, m, row) if upper else (*of, row, m)] * LessEqual(m, row)

    inner = sigma(entry(j) * unknown(*lead, j, k), (j, n))
    return equate(shape, at, sigma(entry(i) * inner, (m, n)), right(at), len(lead), columns=True)


@op("cholesky_solve")
def cholesky_solve(y: Operand, x: Operand, upper: bool = False) -> Equation:
    equal(y.shape[-2], x.shape[-1])
    shape = (*broadcast_shape(x.shape[:-2], y.shape[:-2]), *y.shape[-2:])
    return factored(x, upper, shape, lambda at: aligned(y, at))


@op("cholesky_inverse")
def cholesky_inverse(x: Operand, upper: bool = False) -> Equation:
    return factored(x, upper, x.shape, lambda at: Delta(at[-2], at[-1]))


@composite("triangular_solve")
def triangular_solve(y: Any, x: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False) -> Any:
    """The solution, and the matrix as it was given."""
    matrix = x.mT if transpose else x
    return linalg.solve_triangular(matrix, y, upper=upper != transpose, unitriangular=unitriangular), x


def expanded(x: Operand, expr: Expr) -> Expansion:
    """A function of determinants."""
    n = square(x)
    return Expansion(x.shape[:-2], expr, x.position, n)


@op("det", targets=(linalg.det,))
def det(x: Operand) -> Expansion:
    return expanded(x, DETERMINANT)


@op("logdet")
def logdet(x: Operand) -> Expansion:
    return expanded(x, cast("Expr", sp.log(DETERMINANT)))


@op("slogdet", targets=(linalg.slogdet,))
def slogdet(x: Operand) -> tuple[Opaque, Expansion]:
    """The sign, which has no derivative, and log |det|."""
    return Opaque(x.shape[:-2]), expanded(x, sp.log(DETERMINANT**2) / 2)


@composite(targets=(linalg.tensorinv,))
def tensorinv(x: Any, ind: int = 2) -> Any:
    """The inverse of a matrix whose rows are the first `ind` dimensions."""
    rows, columns = x.shape[:ind], x.shape[ind:]
    return linalg.inv(x.reshape(math.prod(rows), -1)).reshape((*columns, *rows))


@composite(targets=(linalg.tensorsolve,))
def tensorsolve(x: Any, y: Any, dims: Any = None) -> Any:
    """The solution of a system whose unknown has the last dimensions of x."""
    if dims is not None:
        x = x.movedim(tuple(dims), tuple(range(x.dim() - len(dims), x.dim())))
    unknowns = x.shape[y.dim() :]
    return linalg.solve(x.reshape(y.numel(), -1), y.reshape(-1)).reshape(unknowns)
