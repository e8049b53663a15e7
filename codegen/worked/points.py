"""Random points at which every state of a walk is evaluated: what is not equal to the closed form is not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np

from codegen.closed.gates.points import DIGITS, SEEDS, TOLERANCE, boxed, point, relate, rewritten, run
from codegen.closed.gates.sizes import shape_at, small_sizes
from engine.arithmetic import arithmetic
from engine.interpret import Interpreter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sympy import Expr

    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.code import RegionCode
    from codegen.closed.regions.region import Region


class Points:
    """Values of everything that a region's formulas name, at one random point in 50-digit arithmetic."""

    def __init__(self, code: RegionCode, region: Region, chain: Sequence[Statement]) -> None:
        self.sizes = small_sizes(code.cells, dict(code.values))
        self.tensors: dict[str, Any] = {}
        with mpmath.workdps(DIGITS):
            for seed in range(SEEDS):
                tensors = point(region, region.cells, self.sizes, seed)
                if tensors is None or rewritten(code.cells, tensors, self.sizes):
                    continue
                relate(region, code.cells, tensors, self.sizes)
                run(chain, tensors, self.sizes)
                run(code.statements, tensors, self.sizes)
                self.tensors = tensors
                return

    def agree(self, name: str, indices: tuple[Expr, ...], shape: tuple[Expr, ...], e: Expr) -> bool:
        """Whether an expression has the value of the tensor `name`; False where it cannot be evaluated."""
        if name not in self.tensors:
            return False
        known = self.tensors[name]
        with mpmath.workdps(DIGITS):
            try:
                found = Interpreter(arithmetic(DIGITS), self.tensors, self.sizes).tensor(
                    indices, shape_at(shape, self.sizes), e
                )
            except (ArithmeticError, KeyError, NotImplementedError, TypeError, ValueError):
                return False
            scale = max([abs(x) for x in known.flat] + [mpmath.mpf(1)])
            pairs = zip(np.broadcast_to(boxed(found), known.shape).flat, known.flat, strict=True)
            return all(abs(x - y) <= TOLERANCE * scale for x, y in pairs)


__all__ = ["Points"]
