"""Equations solved and determinants expanded in any precision, from what a row states and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from engine.arithmetic import arithmetic
from engine.errors import InputError
from engine.implicit import DETERMINANT
from engine.interpret import Interpreter
from engine.sizes import evaluate as size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from sympy import Symbol

    from engine.arithmetic import Arithmetic
    from engine.graph import Node
    from engine.implicit import Equation

    Array = npt.NDArray[Any]

ROUNDS = 200
"""Newton's steps with one slope are this many at most: each gains the digits that the errors of the slope leave of it."""
CLOSE = 1e-9
"""How small the last step is beside the solution, where there is one."""


class Solver:
    """The solutions of one node's equation, by Newton's steps from an approximate one.

    The slope is that of the equation at the approximation, in float64: it is measured once, by a complex step in each unknown.
    """

    def __init__(self, node: Node, sizes: Mapping[Symbol, int], approximation: Array) -> None:
        assert node.equation is not None
        self.node, self.sizes, self.approximation = node, sizes, approximation
        self.equation: Equation = node.equation
        self.shape = tuple(size_of(n, sizes) for n in node.shape)
        rest = self.shape[self.equation.lead :]
        every = list(np.ndindex(*rest[: 1 if self.equation.columns else None]))
        unknowns = [at for at in every if not self.equation.symmetric or at[0] >= at[1]]
        self.places: list[Any] = [(..., *at, *([slice(None)] if self.equation.columns else [])) for at in unknowns]
        """Where each of a system's unknowns is, in all systems."""
        self.inverse: Array | None = None

    def apart(self, a: Array) -> Array:
        """An array of the output's shape as systems and their unknowns."""
        return np.stack([a[place] for place in self.places], axis=-1).reshape(-1, len(self.places))

    def whole(self, systems: Array) -> Array:
        """The array of the output's shape of which these are the unknowns; 0 where there is none."""
        out = np.zeros(self.shape, systems.dtype)
        for k, place in enumerate(self.places):
            out[place] = systems[:, k].reshape(out[place].shape)
        return out

    def missing(self, values: Mapping[str, Array], numbers: Arithmetic, solution: Array) -> Array:
        """Left side less right side of each system's equations, where the output is `solution`."""
        given = {**values, self.node.name: solution}
        e = self.equation
        found = numbers.lift(Interpreter(numbers, given, self.sizes).tensor(e.indices, self.shape, e.expr))
        return self.apart((found + found.swapaxes(-1, -2)) / 2 if e.symmetric else found)

    def slope(self, values: Mapping[str, Array]) -> Array:
        """The inverse of each system's matrix of derivatives."""
        numbers = arithmetic("complex")
        fixed = {n: numbers.lift(np.asarray(_plain(v))) for n, v in values.items()}
        start = numbers.lift(self.approximation)
        columns: list[Array] = []
        for place in self.places:
            moved = start.astype(np.clongdouble)
            moved[place] += numbers.step
            columns.append(numbers.imag(self.missing(fixed, numbers, moved)) / numbers.step.imag)
        return np.linalg.inv(np.stack(columns, axis=2).astype(np.float64))

    def solve(self, values: Mapping[str, Array], numbers: Arithmetic) -> Array:
        """The output, in these numbers: steps are taken while they get smaller.

        Raises InputError where they do not, as next to a singular matrix.
        """
        out = numbers.lift(self.approximation)
        if not out.size:
            return out
        inverse = self.inverse if self.inverse is not None else numbers.lift(self.slope(values))
        self.inverse = inverse
        parts, before = (numbers.real, numbers.imag), [np.inf, np.inf]
        for _ in range(ROUNDS):
            step = np.matmul(inverse, self.missing(values, numbers, out)[..., None])[..., 0]
            out = out - self.whole(step)
            sizes = [np.max(np.abs(part(step))) for part in parts]
            if not any(2 * size < last for size, last in zip(sizes, before, strict=True)):
                break
            before = sizes
        whole = [np.max(np.abs(part(out))) for part in parts]
        if not all(size <= CLOSE * all_of for size, all_of in zip(before, whole, strict=True)):
            raise InputError(f"{self.node.name}: what defines it is nearly singular here, and was not solved")
        return out


def _plain(v: Array) -> Array:
    """Real parts in float64; integers as they are."""
    return v if v.dtype.kind in "biu" else np.asarray(np.frompyfunc(lambda z: float(z.real), 1, 1)(v), dtype=np.float64)


def determinants(matrices: Array, numbers: Arithmetic) -> Array:
    """The determinant of each matrix. A row less a multiple of another one changes none, and of a triangle it is the product."""
    lead, n = matrices.shape[:-2], matrices.shape[-1]
    out: list[Any] = []
    for matrix in numbers.lift(matrices).reshape(-1, n, n):
        rows, total = matrix.copy(), numbers.lift(1)[()]
        for k in range(n):
            at = k + int(np.argmax(np.abs(numbers.to_float(rows[k:, k]))))
            if at != k:
                rows[[k, at]], total = rows[[at, k]], -total
            pivot = rows[k, k]
            total = total * pivot
            if pivot == 0:
                break
            for row in rows[k + 1 :]:
                row[k:] = row[k:] - row[k] / pivot * rows[k, k:]
        out.append(total)
    made = np.empty(len(out), dtype=object)
    made[:] = out
    kind = np.result_type(*map(np.asarray, out)) if out else numbers.dtype
    return (made if numbers.is_mp else made.astype(kind)).reshape(lead)


def of_determinant(expr: sp.Expr, values: Array, numbers: Arithmetic) -> Array:
    """A function of the determinant at these."""
    from engine.indexed import IndexedBase
    from engine.notation import fresh

    at = tuple(fresh() for _ in values.shape)
    base = IndexedBase(sp.Symbol("_det", real=True))
    element = base[at] if at else base[0]
    e = expr.xreplace({DETERMINANT: element})
    return Interpreter(numbers, {"_det": values}, {}).tensor(at, values.shape, e)


__all__ = ["Solver", "determinants", "of_determinant"]
