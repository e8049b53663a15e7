# pyright: basic
"""What gradients are in many digits, for inputs at which float64 does not tell.

`log(1 - sigmoid(z))` is -z at z = 100, and the logarithm of 0 in float64: a clamp makes a finite number of that, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import torch

from codegen.closed.gates.points import boxed, run
from codegen.closed.gates.sizes import shape_at
from codegen.closed.plan.backward import Backward, cot_name
from engine.arithmetic import arithmetic
from engine.interpret import Interpreter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sympy import Symbol

    from codegen.closed.regions.region import Region

MANY_DIGITS = 150
"""As many as 1 - sigmoid(z) needs at z = 200, and some more."""
APART = 1e-7
"""From which difference on, relative to a tensor, two values of it in float64 are not both right to float32."""
LARGEST = 1 << 14
"""How many numbers there are at most in a tensor of a region that is evaluated so."""


VALUE = "the value of"
"""What stands before the name of a result, where a cotangent has the name alone."""


def apart(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors that are equal but for rounding are not, where both are finite."""
    told = one.isfinite() & other.isfinite()
    a, b = one[told], other[told]
    return bool(a.numel()) and float((a - b).norm()) > APART * float(a.norm() + b.norm())


def in_many_digits(
    region: Region, values: Mapping[str, torch.Tensor], sizes: dict[Symbol, int]
) -> dict[str, torch.Tensor] | None:
    """The gradients of the unsimplified cells, and their results under `VALUE`, rounded to float64; None where they cannot be told."""
    if any(np.prod(shape_at(c.shape, sizes), dtype=int) > LARGEST for c in region.cells):
        return None
    numbers = arithmetic(MANY_DIGITS)
    with mpmath.workdps(MANY_DIGITS):
        tensors: dict[str, Any] = {
            k: boxed(numbers.lift(v.numpy())) if v.is_floating_point() else v.numpy().astype(int)
            for k, v in values.items()
        }
        for c in region.cells:
            if c.expr is not None:
                shape = shape_at(c.shape, sizes)
                tensors[c.name] = boxed(Interpreter(numbers, tensors, sizes).tensor(c.indices, shape, c.expr))
        for name in region.seeds:
            tensors[f"{cot_name(name)}_out"] = tensors[cot_name(name)]
        chain = Backward(list(region.cells), region.seeds, region.wanted, cast("Any", None)).chain()
        run(chain, tensors, sizes, MANY_DIGITS)
        found = {n: tensors.get(cot_name(n)) for n in region.wanted}
        found |= {f"{VALUE} {n}": tensors[n] for n in region.seeds}
    if any(v is None or any(isinstance(x, mpmath.mpc) for x in v.flat) for v in found.values()):
        return None
    return {n: torch.from_numpy(cast("Any", v).astype(np.float64)) for n, v in found.items()}


__all__ = ["VALUE", "apart", "in_many_digits"]
