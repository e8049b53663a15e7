"""Sums that put values back at the places they were picked from, and `scatter_add` for them.

    x[n, c, k, l] = Sum over i, j of [k = at[n, c, i, j] // L] [l = at[n, c, i, j] % L] v[n, c, i, j]

is `scatter_add` along the last dimensions flattened, as `max_pool2d` gives its positions; with one placed dimension it
is the way back of `gather`. An identity of the expression, not of an op that made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Mul

from engine.indexed import Indexed
from engine.notation import Delta, Index, Less, LessEqual, Quo, Rem, Sigma, free_indices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def picked(e: Sigma, ranges: Mapping[Index, Expr]) -> tuple[Indexed, tuple[Index, ...], Expr] | None:
    """The integer tensor, the indices that it places in order, and what is put there; None for any other sum."""
    deltas = [f for f in Mul.make_args(e.body) if isinstance(f, Delta)]
    summed = [i for i, _ in e.limits]
    placed: dict[Index, Expr] = {}
    for f in deltas:
        for k, place in (f.args, f.args[::-1]):
            if isinstance(k, Index) and k in ranges and k not in summed and k not in place.free_symbols:
                placed[k] = place
                break
    sources = {a for place in placed.values() for a in place.atoms(Indexed)}
    if len(placed) != len(deltas) or len(sources) != 1:
        return None
    (at,) = sources
    own = [i for i in at.indices if i != 0]
    inner = own[len(own) - len(summed) :]
    if not all(isinstance(i, Index) for i in own) or set(inner) != set(summed) or set(own) & set(placed):
        return None
    order = _digits(placed, at, ranges)
    rest = _within(Mul(*[f for f in Mul.make_args(e.body) if f not in deltas]), at, order or (), ranges)
    if order is None or free_indices(rest) - set(own):
        return None
    return at, order, rest


def _digits(placed: Mapping[Index, Expr], at: Any, ranges: Mapping[Index, Expr]) -> tuple[Index, ...] | None:
    """The placed indices from the first to the last dimension, where their places are the digits of `at`."""
    left = dict(placed)
    order: list[Index] = []
    below: Expr = sp.S.One
    while left:
        shifted = Quo(at, below)
        for k, place in left.items():
            expected = shifted if len(left) == 1 else Rem(shifted, ranges[k])
            if sp.expand(place - expected) == 0:
                order.insert(0, k)
                below = sp.expand(below * ranges[k])
                del left[k]
                break
        else:
            return None
    return tuple(order)


def _within(body: Expr, at: Any, order: Sequence[Index], ranges: Mapping[Index, Expr]) -> Expr:
    """A body without the conditions that the first digit is in range, which it always is."""
    keep = [
        f
        for f in Mul.make_args(body)
        if not (isinstance(f, (Less, LessEqual)) and f.atoms(Indexed) == {at} and not free_indices(f) - at.free_symbols)
    ]
    return Mul(*keep)
