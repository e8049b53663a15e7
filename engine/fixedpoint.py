"""Products of arrays of mpmath's numbers, summed: in whole numbers of one scale per array, which is ten times as fast.

What is lost is a part in 2**(2 p) of an array's largest entry, for numbers of p bits; arrays whose entries are more than 2**p apart,
as exponentials of large numbers, have no such scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

Array = Any


@dataclass(frozen=True, eq=False)
class Scaled:
    """Whole numbers that are an array's entries times 2**shift."""

    whole: Array
    shift: int


class Contractions:
    """Contractions of one evaluation that is repeated with imaginary parts: what is real in them is computed once."""

    def __init__(self) -> None:
        self._real: dict[Hashable, tuple[Scaled, Scaled, Array] | None] = {}

    def __call__(
        self, key: Hashable, a: Array, at: list[int], b: Array, other: list[int], out: list[int]
    ) -> Array | None:
        """`np.einsum(a, at, b, other, out)`; what is imaginary in both factors is too small to count.

        `key` is the same only where the real parts are. None where an entry is not finite, or entries are too far apart.
        """

        def product(x: Scaled, y: Scaled) -> Array:
            total = np.asarray(np.einsum(x.whole, at, y.whole, other, out, optimize="greedy"))
            by = -(x.shift + y.shift)
            return np.asarray(_back(total, by), dtype=object)

        if key not in self._real:
            x, y = scaled(_real(a)), scaled(_real(b))
            self._real[key] = (x, y, product(x, y)) if x is not None and y is not None else None
        known = self._real[key]
        im_a, im_b = scaled(_imag(a)), scaled(_imag(b))
        if known is None or im_a is None or im_b is None:
            return None
        re_a, re_b, real = known
        moved = [product(x, y) for x, y in ((re_a, im_b), (im_a, re_b)) if x.whole.any() and y.whole.any()]
        return np.asarray(_complex(real, sum(moved)), dtype=object) if moved else real


def scaled(a: Array) -> Scaled | None:
    """An array of real numbers in whole numbers; None where one is not finite, or would be lost beside another one."""
    tops = [z[2] + z[3] for z in (x._mpf_ for x in a.flat) if z[1]]
    if any(not z[1] and z[2] for z in (x._mpf_ for x in a.flat)):  # mpmath's infinities and nan have no mantissa
        return None
    if tops and max(tops) - min(tops) > mpmath.mp.prec:
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
