# pyright: basic
"""Tensors of equal values that differ in what is passed back alone, as `q - z` with either of them detached: one is computed.

What is passed back to each stays its own. The statements read the first of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from engine.notation import Index, accesses, base, canonical, element, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codegen.closed.regions.cells import Cell

RULE = "what differs from another tensor in nothing but what is detached has its values"

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


def twins(cells: Sequence[Cell], copies: Copies) -> dict[str, str]:
    """The cells that have the values of an earlier one because of what is detached, and which that is."""
    same = dict(copies)
    seen: dict[Any, str] = {}
    for c in cells if copies else ():
        if c.expr is None or c.kind != "float":
            continue
        own = {i: Index(f"_t{k}") for k, i in enumerate(c.indices) if i != 0}
        key = canonical(renamed(c.expr, same), own), c.shape, c.dtype
        first = seen.setdefault(key, c.name)
        if first != c.name:
            same[c.name] = first
    return same


def renamed(e: Any, same: Mapping[str, str]) -> Any:
    """An expression that reads the first of equal tensors; unchanged where that would cancel, which rounding does not."""
    change = {
        a: element(base(same[name_of(a)], bool(a.is_positive)), list(cast("Any", a).indices))
        for a in accesses(e)
        if name_of(a) in same
    }
    new = e.xreplace(change) if change else e
    return new if {*map(name_of, accesses(new))} == {same.get(n, n) for n in map(name_of, accesses(e))} else e


__all__ = ["RULE", "Copies", "copies_of", "renamed", "twins"]
