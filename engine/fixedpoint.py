"""Products of arrays of mpmath's numbers, summed: in whole numbers of one scale per array, which is ten times as fast.

What is lost is a part in 2**(2 p) of an array's largest entry, for numbers of p bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

Array = Any


@dataclass(frozen=True, eq=False)
class Scaled:
    """Whole numbers that are an array's entries times 2**shift."""

    whole: Array
    shift: int


def contraction(a: Array, at: list[int], b: Array, other: list[int], out: list[int]) -> Array | None:
    """`np.einsum(a, at, b, other, out)` for complex steps: what is imaginary in both factors is too small to count.

    None where an entry is not finite.
    """
    re_a, im_a, re_b, im_b = (scaled(part(x)) for x in (a, b) for part in (_real, _imag))
    if re_a is None or im_a is None or re_b is None or im_b is None:
        return None

    def product(x: Scaled, y: Scaled) -> Array:
        total = np.asarray(np.einsum(x.whole, at, y.whole, other, out, optimize="greedy"))
        by = -(x.shift + y.shift)
        return np.asarray(_back(total, by), dtype=object)

    real = product(re_a, re_b)
    moved = [product(x, y) for x, y in ((re_a, im_b), (im_a, re_b)) if x.whole.any() and y.whole.any()]
    return np.asarray(_complex(real, sum(moved)), dtype=object) if moved else real


def scaled(a: Array) -> Scaled | None:
    """An array of real numbers in whole numbers; None where one is not finite."""
    tops = [z[2] + z[3] for z in (x._mpf_ for x in a.flat) if z[1]]
    if any(not z[1] and z[2] for z in (x._mpf_ for x in a.flat)):  # mpmath's infinities and nan have no mantissa
        return None
    shift = 2 * mpmath.mp.prec - max(tops, default=0)

    def whole(x: Any) -> int:
        sign, mantissa, exponent, _ = x._mpf_
        by = exponent + shift
        n = int(mantissa << by if by >= 0 else mantissa >> -by)
        return -n if sign else n

    return Scaled(np.asarray(np.frompyfunc(whole, 1, 1)(a), dtype=object), shift)


_real = np.frompyfunc(lambda z: z.real, 1, 1)
_imag = np.frompyfunc(lambda z: z.imag, 1, 1)
_back = np.frompyfunc(lambda n, by: mpmath.ldexp(mpmath.mpf(n), by), 2, 1)
_complex = np.frompyfunc(mpmath.mpc, 2, 1)
