"""Whether the trail of a forward leads from what was traced to what is emitted, without a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.notation import Index, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.rewrites import Rewrite
    from codegen.program import Program


def form(indices: Any, e: Any) -> Any:
    """A definition whatever its indices are called."""
    return canonical(e, {i: Index(f"_t{k}") for k, i in enumerate(indices) if i != 0})


def followed(cells: Iterable[Cell], notes: Iterable[Rewrite]) -> tuple[dict[str, Any], list[str]]:
    """The definitions that the notes lead to, and every tensor whose notes do not begin where the last one ended."""
    now = {c.name: form(c.indices, c.expr) for c in cells if c.expr is not None}
    gaps: list[str] = []
    for n in notes:
        before = now.pop(n.name, None)
        if before != (None if n.before is None else form(n.indices, n.before)):
            gaps.append(f"{n.name}: {n.rule}")
        if n.after is not None:
            now[n.name] = form(n.indices, n.after)
    return now, gaps


def gaps_of(program: Program) -> list[str]:
    """Every tensor of a program whose definition changed without a note."""
    assert program.writer is not None
    structure = program.writer.structure
    now, gaps = followed(structure.traced, structure.notes)
    gaps += [c.name for c in structure.cells if c.expr is not None and now.get(c.name) != form(c.indices, c.expr)]
    for region in program.writer.regions.values():
        code = region.code.origin or region.code
        assert code.region is not None
        now, found = followed(code.region.cells, code.notes)
        gaps += found
        gaps += [x.name for x in code.forward if now.get(x.name) != form(x.indices, x.expr)]
    return gaps


__all__ = ["gaps_of"]
