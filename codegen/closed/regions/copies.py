# pyright: basic
"""Tensors of equal values that differ in what is passed back alone, as `q - z` with either of them detached: one is computed.

What is passed back to each stays its own. The statements read the first of them. So they do of what is added and taken away again:
`z + (q - z)` with the difference detached is q.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import at
from engine.indexed import Indexed
from engine.notation import Index, accesses, base, canonical, element, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codegen.closed.regions.cells import Cell

RULE = "what differs from another tensor in nothing but what is detached has its values"

Twins = dict[str, tuple[str, int]]
"""The first of the cells of equal values, and whether it is the negative."""

Copies = tuple[tuple[str, str], ...]
"""Boundary cells of a region that have the values of another one."""


def copies_of(edge: Iterable[Cell], by_name: Mapping[str, Cell]) -> Copies:
    """The detached cells among those that a region reads, each with the first one there that has its values."""
    first: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for name, source in sorted(((c.name, attached(c.name, by_name)) for c in edge), key=lambda x: x[0] != x[1]):
        same = first.setdefault(source, name)
        if same != name:
            found.append((name, same))
    return tuple(found)


def attached(name: str, by_name: Mapping[str, Cell]) -> str:
    """What a detached tensor was, itself where it is none."""
    while name in by_name:
        c = by_name[name]
        if c.expr is not None or c.node is None or c.node.op != "detach":
            break
        name = c.node.operands[0]
    return name


def twins(cells: Sequence[Cell], copies: Copies) -> Twins:
    """The cells that have the values of an earlier one, or its negatives, because of what is detached: which that is, and the sign."""
    same: Twins = {one: (other, 1) for one, other in copies}
    seen: dict[Any, str] = {}
    sums: dict[str, Cell] = {}
    stopped = any(c.expr is not None and c.kind == "float" and not c.differentiable for c in cells)
    for c in cells if copies or stopped else ():
        if c.expr is None or c.kind != "float":
            continue
        left = straight_through(c, same, sums)
        if left is not None:
            same[c.name] = left
            continue
        own = {i: Index(f"_t{k}") for k, i in enumerate(c.indices) if i != 0}
        expr = renamed(c.expr, same)
        keys = [(canonical(e, own), c.shape, c.dtype) for e in (expr, -expr)]
        for key, sign in zip(keys, (1, -1), strict=True):
            if key in seen:
                same[c.name] = seen[key], sign
                break
        else:
            seen[keys[0]] = c.name
    return same


def straight_through(c: Cell, same: Twins, sums: dict[str, Cell]) -> tuple[str, int] | None:
    """The tensor whose values are left of a sum, and its sign, as q of `z + (q - z)`, of which one z is detached; None for others.

    Sums of tensors that are met are put beside the `sums` there are, written out.
    """
    terms = sp.Add.make_args(c.expr)
    if len(terms) < 2 or not all(isinstance(abs_of(t), Indexed) for t in terms):
        return None
    plain = sp.Add(
        *[t.xreplace({a: first_of(a, same)}) if name_of(a) in same else t for t in terms for a in accesses(t)]
    )
    whole = sp.Add(*[t.xreplace({a: at(sums[name_of(a)], a.indices)}) if name_of(a) in sums else t
                     for t in sp.Add.make_args(plain) for a in accesses(t)])  # fmt: skip
    sums[c.name] = replace(c, expr=cast("Any", whole))
    left = abs_of(whole)
    if not isinstance(left, Indexed) or left.indices != c.element(c.indices).indices:
        return None
    return name_of(left), 1 if whole == left else -1


def abs_of(term: Any) -> Any:
    """A term without its sign."""
    return -term if isinstance(-term, Indexed) else term


def renamed(e: Any, same: Twins) -> Any:
    """An expression that reads the first of equal tensors; unchanged where that would cancel, which rounding does not."""
    change = {a: first_of(a, same) for a in accesses(e) if name_of(a) in same}
    new = e.xreplace(change) if change else e
    first = {same[n][0] if n in same else n for n in map(name_of, accesses(e))}
    return new if {*map(name_of, accesses(new))} == first else e


def first_of(a: Any, same: Twins) -> Any:
    """The first of equal tensors at the place of an access, with the sign that the access has of it."""
    name, sign = same[name_of(a)]
    return sign * element(base(name, sign == 1 and bool(a.is_positive)), list(a.indices))


__all__ = ["RULE", "Copies", "copies_of", "renamed", "twins"]
