"""Positions that a forward counts, `x[torch.arange(n)]`: the tensor that is read there has to have that many.

torch checks an index by its values. An emitted file that reads a slice instead would take what is there, so that it checks sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
import torch
from sympy import Expr

from engine.bounds import Bound, nonnegative
from engine.indexed import Indexed
from engine.notation import Index, Sigma, accesses, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.graph import Node

Counted = tuple[tuple[Expr, ...], Expr]
"""The indices of a tensor of positions, and its element at these."""


def index_bounds(nodes: Sequence[Node]) -> list[Bound]:
    """What must not be negative for positions that nodes count to be places of the tensors they read, each once."""
    by_name = {n.name: n for n in nodes}
    positions: dict[str, Counted] = {}
    found: dict[Expr, Bound] = {}
    for n in nodes:
        counts = is_integer(n.dtype) and all(o in positions for o in n.operands)
        reads = any(o in positions for o in n.operands)
        if not (counts or reads) or n.definition is None:
            continue
        indices, e = n.definition
        counted = written_out(e, positions) if counts else None
        if counted is not None:
            positions[n.name] = indices, counted
        ranges = {i: s for i, s in zip(indices, n.shape, strict=True) if isinstance(i, Index)}
        ranges |= {i: s for t in e.atoms(Sigma) for i, s in t.limits}
        for a in accesses(e):
            for at, size in zip(a.indices, by_name[name_of(a)].shape, strict=False):  # one number is read at 0
                for b in limits_of(at, size, positions, ranges):
                    found.setdefault(b, Bound(b, str(n.source or "the forward"), "an index"))
    return list(found.values())


def is_integer(dtype: torch.dtype) -> bool:
    """Whether a tensor of this dtype can be an index by positions."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def written_out(e: Expr, positions: Mapping[str, Counted]) -> Expr | None:
    """An expression with the elements of positions as what they are; None where it reads anything else."""
    change: dict[Any, Any] = {}
    for a in e.atoms(Indexed):
        if name_of(a) not in positions:
            return None
        indices, value = positions[name_of(a)]
        at = {i: x for i, x in zip(indices, a.indices, strict=False) if isinstance(i, Index)}
        change[a] = instantiate(value, at)
    return e.xreplace(change)


def limits_of(at: Expr, size: Expr, positions: Mapping[str, Counted], ranges: Mapping[Index, Expr]) -> Iterable[Expr]:
    """What must not be negative for a position that is read from a tensor to be within a size; nothing where that is certain."""
    counted = written_out(at, positions) if at.has(Indexed) else None
    own = [] if counted is None else sorted(counted.atoms(Index), key=str)
    if counted is None or any(i not in ranges for i in own) or not counted.is_polynomial(*own):
        return ()
    least, most = counted.xreplace(dict.fromkeys(own, sp.S.Zero)), counted
    for i in own:
        slope = counted.diff(i)
        if not slope.is_Integer:
            return ()
        least, most = (
            least + sp.Min(0, slope) * (ranges[i] - 1),
            most.xreplace({i: ranges[i] - 1 if slope.is_positive else sp.S.Zero}),
        )
    return [sp.expand(b) for b in (least, size - 1 - most) if not nonnegative(b)]


__all__ = ["index_bounds"]
