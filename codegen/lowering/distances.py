# pyright: basic
"""Squared distances of all rows of one tensor from all rows of another, without a tensor of all differences.

`Sum_d (x_id - y_jd)^2` over one index that both have is found in any expression, whatever made it, and its root with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Index, Sigma

if TYPE_CHECKING:
    from sympy import Expr

NAME = "squared_distances"
"""The function of `codegen.helpers` that computes them."""


def rows(e: Sigma) -> tuple[Indexed, Indexed, tuple[Index, ...], Index, Index, Index] | None:
    """x, y, the indices that both have, i, j and the summed d of such a sum; None for any other."""
    if len(e.limits) != 1 or not isinstance(e.body, sp.Pow) or e.body.exp != 2 or not isinstance(e.body.base, sp.Add):
        return None
    ((d, _),) = e.limits
    terms = sorted(e.body.base.args, key=lambda t: (bool(t.could_extract_minus_sign()), str(t)))
    if len(terms) != 2:
        return None
    x, y = cast("Any", terms[0]), -cast("Any", terms[1])
    if not all(isinstance(a, Indexed) and all(i == 0 or isinstance(i, Index) for i in a.indices) for a in (x, y)):
        return None
    left, right = ([i for i in a.indices if i != 0] for a in (x, y))
    own = [i for i in left if i not in right], [i for i in right if i not in left]
    if any(len(set(s)) != len(s) for s in (left, right)) or [len(s) for s in own] != [1, 1] or d not in left:
        return None
    shared = tuple(i for i in left if i in right and i != d)
    return (x, y, shared, own[0][0], own[1][0], d) if d in right else None


def is_distance(e: Expr) -> bool:
    """Whether an expression is such a sum."""
    return isinstance(e, Sigma) and rows(e) is not None


__all__ = ["NAME", "is_distance", "rows"]
