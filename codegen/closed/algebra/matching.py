# pyright: basic
"""Equal whatever the indices are called: patterns found in expressions, cells by what they hold, sums by their shape."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from engine.notation import Index, Sigma, accesses, bound, canonical, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.regions.cells import Cell
    from engine.indexed import Indexed


def matched(pattern: Expr, target: Expr, free: set[Index]) -> dict[Any, Any] | None:
    """The indices for which a pattern is the target; None if there are none. Bound indices match each other."""
    mapping: dict[Any, Any] = {}

    def walk(p: Any, t: Any) -> bool:
        if p in free:
            if p in mapping:
                return bool(mapping[p] == t)
            mapping[p] = t
            return True
        if isinstance(p, Index) and isinstance(t, Index) and p != t:
            return mapping.setdefault(p, t) == t if p in inside else False
        if not p.args or not t.args:
            return bool(p == t)
        if p.func is not t.func or len(p.args) != len(t.args):
            return False
        return all(walk(x, y) for x, y in zip(p.args, t.args, strict=True))

    inside = bound(pattern) if pattern.has(Sigma) else set[Index]()
    return mapping if walk(pattern, target) else None


def determined(pattern: Expr, target: Expr, free: Iterable[Any]) -> dict[Any, Any] | None:
    """The indices for which a pattern is the target, where it says all that are free; else None."""
    known = {i for i in free if i != 0}
    mapping = matched(pattern, target, known)
    return None if mapping is None or any(i not in mapping for i in known) else mapping


def holding(cell: Cell, pattern: Expr, target: Expr) -> Indexed | None:
    """The element of a cell that is the target, where the pattern is the cell's element at its own indices."""
    mapping = determined(pattern, target, cell.indices)
    return None if mapping is None else cell.element([i.xreplace(mapping) for i in cell.indices])


@lru_cache(maxsize=2**12)
def fact_key(s: Sigma) -> tuple[Any, tuple[Index, ...]]:
    """A sum with its free indices by position, and those indices."""
    inside = bound(s)
    free: list[Index] = []
    for a in sorted(accesses(s.body), key=lambda a: (name_of(a), [str(type(i)) for i in a.indices])):
        for x in a.indices:
            for i in (
                [x] if isinstance(x, Index) else sorted((y for y in x.free_symbols if isinstance(y, Index)), key=str)
            ):
                if i not in inside and i not in free:
                    free.append(i)
    free.extend(
        sorted((i for i in s.free_symbols if isinstance(i, Index) and i not in inside and i not in free), key=str)
    )
    mapping = {i: Index(f"_f{k}") for k, i in enumerate(free)}
    return by_shape(s.xreplace(mapping)), tuple(free)


@lru_cache(maxsize=2**12)
def by_shape(s: Expr) -> Any:
    """A canonical form in which summed indices are numbered by the accesses that use them, in the order of tensor names."""
    if not isinstance(s, Sigma):
        return canonical(s)
    order: list[Index] = []
    inside = {i for i, _ in s.limits}
    for a in sorted(
        accesses(s.body),
        key=lambda a: (name_of(a), [i in inside for i in a.indices], str([i for i in a.indices if i not in inside])),
    ):
        order.extend(i for i in a.indices if i in inside and i not in order)  # pyright: ignore[reportArgumentType]
    order.extend(i for i, _ in s.limits if i not in order)
    sizes = dict(s.limits)
    names = {i: Index(f"_s{k}") for k, i in enumerate(order)}  # sums inside are numbered by themselves
    return Sigma(canonical(s.body.xreplace(names)), *[sp.Tuple(names[i], sizes[i]) for i in order])


__all__ = ["by_shape", "determined", "fact_key", "holding", "matched"]
