"""Integer tensors at the example: torch counts an index below zero from the end, and the index notation then says so.

An index is taken for one that does not where it does not at the example. Integers that are computed from integers are
known there; those that are computed from anything else may be below zero, unless torch itself counts places (`argmax`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils import _pytree as pytree

from engine.indexed import Indexed
from engine.notation import Less, Where
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sympy import Expr

    from engine.table import Operand, Output

LARGEST = 1 << 20
"""Elements of the largest tensor that is looked at."""
PLACES = frozenset(("argmax", "argmin", "argsort", "bucketize", "isin", "searchsorted"))
"""Ops whose integers are places, from the start; so are the indices beside the values that an op picks."""
DRAWN = frozenset(("mask", "multinomial", "normal", "normal_", "poisson", "rand", "rand_like", "randint", "randperm"))
"""Names of rows whose result another call does not repeat."""


def kept(t: torch.Tensor) -> torch.Tensor | None:
    """The values of a tensor of integers or truth values; None for any other, and where they are not looked at."""
    return None if t.is_floating_point() or t.is_meta or t.numel() > LARGEST else t.detach().clone()


def computed(
    name: str, func: Any, leaves: Sequence[Any], spec: Any, metas: Sequence[torch.Tensor]
) -> list[torch.Tensor | None]:
    """What a call makes of known integers, for results like `metas`; nothing where that is not looked at, or torch refuses it."""
    if name in DRAWN or any(m.is_floating_point() or m.numel() > LARGEST for m in metas):
        return [None] * len(metas)
    args, kwargs = pytree.tree_unflatten([x.clone() if isinstance(x, torch.Tensor) else x for x in leaves], spec)
    try:
        result = func(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return [None] * len(metas)
    return [
        kept(t) for t in (cast("Sequence[torch.Tensor]", result) if isinstance(result, (tuple, list)) else [result])
    ]


def counts_from_end(
    name: str, value: torch.Tensor | None, output: Output, meta: torch.Tensor, before: Sequence[bool], alone: bool
) -> bool:
    """Whether a result of an op (`alone`, or beside others) may be integers below zero, for operands of which that is known."""
    if meta.is_floating_point() or meta.dtype == torch.bool:
        return False
    if value is not None:
        return bool((value < 0).any())
    if not isinstance(output, Definition):
        return alone and name not in PLACES | DRAWN
    return any(before) if isinstance(output.expr, Indexed) else True


def wrapped(place: Expr, size: Expr) -> Expr:
    """A place of a dimension of some size, counted from its end where it is below zero."""
    return cast("Expr", Where(Less(place, 0), place + size, place))


def from_start(index: Operand, place: Expr, size: Expr) -> Expr:
    """The place that an element of `index` means in a dimension of some size."""
    return wrapped(place, size) if index.signed else place


__all__ = ["DRAWN", "computed", "counts_from_end", "from_start", "kept", "wrapped"]
