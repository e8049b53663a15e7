"""The formula of tensors side by side: `a[i,j] if j < n else b[i,j - n]`, for a sum of terms that each fill a part of a dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sympy import Expr, Mul, S

from codegen.closed.write.blocks import Term
from engine.indexed import Indexed
from engine.notation import Delta, Index, Less, Sigma, Where, fresh

if TYPE_CHECKING:
    from collections.abc import Sequence


def side_by_side(terms: Sequence[Term]) -> Term | None:
    """Terms `Σ_l a[i,l] [j = l + n]` that fill a dimension one after the other as one choice; None where they do anything else."""
    at = tuple(S.Zero if i == 0 else fresh() for i in terms[0].indices)
    parts: dict[Any, tuple[Any, Expr]] = {}
    along: set[Index] = set()
    for t in terms:
        found = placed(t.named(at), at)
        if found is None or found[1] in parts:
            return None
        index, start, size, value = found
        along.add(index)
        parts[start] = (start + size, value)
    ends: list[tuple[Any, Expr]] = []
    start: Any = S.Zero
    while start in parts and len(ends) < len(parts):
        ends.append(parts[start])
        start = parts[start][0]
    if len(along) != 1 or len(ends) != len(parts):
        return None
    (index,) = along
    whole = ends[-1][1]
    for end, value in reversed(ends[:-1]):
        whole = Where(Less(index, end), value, whole)
    return Term(at, whole, {})


def placed(e: Any, at: Sequence[Expr]) -> tuple[Index, Any, Any, Expr] | None:
    """j, n, the size of a along l and a[i,j - n], for `Σ_l a[i,l] [j = l + n]`; None for anything else."""
    if not isinstance(e, Sigma) or len(e.limits) != 1:
        return None
    ((inner, size),) = e.limits
    factors = Mul.make_args(e.body)
    deltas, values = ([f for f in factors if isinstance(f, kind)] for kind in (Delta, Indexed))
    if len(factors) != 2 or len(deltas) != 1 or len(values) != 1:
        return None
    for index, place in (deltas[0].args, deltas[0].args[::-1]):
        start = place - inner
        if index in at and isinstance(index, Index) and not start.atoms(Index):
            return index, start, size, values[0].xreplace({inner: index - start})
    return None


__all__ = ["side_by_side"]
