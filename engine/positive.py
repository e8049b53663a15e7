"""Whether a definition is positive, for all of its tensors' values: told from its form where that is enough.

sympy works out every related fact first (sign, parity, finiteness), which for a sum takes a hundredth of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Sigma

if TYPE_CHECKING:
    from sympy import Expr


def positive(e: Expr) -> bool:
    """Whether an expression is known to be positive, as `e.is_positive` says.

    A sum with a tensor of any sign among its terms is not, and neither is a product with one among its factors.
    """
    if isinstance(e, Sigma):
        return positive(e.body)
    if isinstance(e, sp.Add):
        return not any(of_any_sign(t.as_coeff_Mul()[1]) for t in e.args) and bool(e.is_positive)
    if isinstance(e, sp.Mul):
        return not any(of_any_sign(f.as_base_exp()[0]) for f in e.args if odd(f)) and bool(e.is_positive)
    return bool(e.is_positive)


def of_any_sign(e: Any) -> bool:
    """Whether an expression is a tensor, or a sum over one, that nothing is known of."""
    while isinstance(e, Sigma):
        e = e.body
    if isinstance(e, sp.Add):
        return any(of_any_sign(t.as_coeff_Mul()[1]) for t in e.args)
    return isinstance(e, Indexed) and not e.is_nonnegative


def odd(factor: Any) -> bool:
    """Whether a factor is to the power of one, or of minus one."""
    return factor.as_base_exp()[1] in (1, -1)


__all__ = ["positive"]
