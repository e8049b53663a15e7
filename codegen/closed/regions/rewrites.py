"""The trail of the forward: what each rule made of the definitions of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.notation import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sympy import Expr

    from codegen.closed.regions.cells import Cell


@dataclass(frozen=True)
class Rewrite:
    """A tensor's definition at `indices` before and after a rule: no `before` where the rule made it, no `after` where it went.

    Names in a rule stand in braces, `{c3}`.
    """

    name: str
    rule: str
    indices: tuple[Expr, ...]
    before: Expr | None
    after: Expr | None


def compared(rule: str, before: Iterable[Cell], after: Iterable[Cell]) -> tuple[Rewrite, ...]:
    """What a rule did: a note for every cell that it changed, made or left out."""
    known = {c.name: c for c in before}
    out: list[Rewrite] = []
    for c in after:
        was = known.pop(c.name, None)
        if c.expr is None or (was is not None and was.expr is None):
            continue
        note = rewritten(rule, was, c)
        out.extend([] if note is None else [note])
    gone = [c for c in known.values() if c.expr is not None]
    return (*out, *[Rewrite(c.name, rule, c.indices, c.expr, None) for c in gone])


def rewritten(rule: str, was: Cell | None, now: Cell) -> Rewrite | None:
    """The note of one cell that a rule made, or changed; None where it is what it was."""
    if was is None or was.expr is None:
        return Rewrite(now.name, rule, now.indices, None, now.expr)
    if was.expr is now.expr or now.expr is None:
        return None
    # an index that is 0 now stands at every place of what the tensor was: the note is of all of these
    indices = tuple(i if j == 0 else j for i, j in zip(was.indices, now.indices, strict=True))
    old = was.expr.xreplace({i: j for i, j in zip(was.indices, indices, strict=True) if i != 0})
    if old == now.expr or canonical(old) == canonical(now.expr):
        return None
    return Rewrite(now.name, rule, indices, old, now.expr)


__all__ = ["Rewrite", "compared", "rewritten"]
