"""Padding: a larger tensor that reads its middle from the smaller one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Less, LessEqual, Rem, Where
from engine.sizes import expression
from engine.table import Definition, Operand, define, indices_of, op, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

F = torch.nn.functional


def inside(place: Expr, size: Expr, value: Any, before: bool = True, after: bool = True, fill: Any = 0) -> Any:
    """`value` where a place lies in [0, size), `fill` beyond it."""
    if after:
        value = Where(Less(place, size), value, fill)
    return Where(LessEqual(0, place), value, fill) if before else value


def mirrored(place: Expr, size: Expr) -> Expr:
    """A place beyond the ends, reflected at them."""
    return cast("Expr", Where(Less(place, 0), -place, Where(Less(place, size), place, 2 * size - 2 - place)))


def clamped(place: Expr, size: Expr) -> Expr:
    """A place beyond the ends, moved to the nearest."""
    return cast("Expr", Where(Less(place, 0), 0, Where(Less(place, size), place, size - 1)))


def wrapped(place: Expr, size: Expr) -> Expr:
    """A place beyond the ends, entering again at the other one."""
    return cast("Expr", Rem(place + size, size))


PLACES = {"reflect": mirrored, "replicate": clamped, "circular": wrapped}


def padded(x: Operand, amounts: Sequence[Any], mode: str, value: Any) -> Definition:
    """`amounts` are (before, after) of the last dimension, then of the one before it, and so on; negative ones cut."""
    pairs = [(sp.S.Zero, sp.S.Zero)] * (x.rank - len(amounts) // 2)
    given = [expression(a) for a in amounts]
    pairs += [(given[k], given[k + 1]) for k in range(len(given) - 2, -1, -2)]
    shape = [(s + a + b) for s, (a, b) in zip(x.shape, pairs, strict=True)]
    at = indices_of(shape)
    places = [(i - a) for i, (a, _) in zip(at, pairs, strict=True)]
    grown = [k for k, (a, b) in enumerate(pairs) if value_of(a) > 0 or value_of(b) > 0]
    if mode != "constant":
        if mode not in PLACES:
            raise TraceError(f"pad mode {mode!r} is none of 'constant', 'reflect', 'replicate', 'circular'")
        if mode == "circular" and any(value_of(n) < 0 for pair in pairs for n in pair):
            raise TraceError("circular padding that cuts on one side; cut first, with a slice")
        places = [PLACES[mode](p, s) if k in grown else p for k, (p, s) in enumerate(zip(places, x.shape, strict=True))]
        return define(shape, at, x.element(*places))
    body: Any = x.element(*places)
    for k in grown:
        before, after = (value_of(n) > 0 for n in pairs[k])
        body = inside(places[k], x.shape[k], body, before, after, value)
    return define(shape, at, body)


@op(targets=(F.pad, torch.constant_pad_nd))
def pad(x: Operand, pad: Sequence[Any], mode: Any = "constant", value: Any = None) -> Definition:
    if not isinstance(mode, str):
        mode, value = "constant", mode
    return padded(x, pad, mode, sp.S.Zero if value is None else expression(value))
