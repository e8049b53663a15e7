# pyright: basic
"""A function of a truth and of smaller tensors as a choice between what it is where the truth holds and where not: `|t_j - [u_ij < 0]|` is
`|t_j - 1|` where u_ij < 0, else `|t_j|`. It is computed of the smaller tensors then, and once chosen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.terms import indices_of
from codegen.closed.definitions.completed import without
from codegen.closed.definitions.pieces import elementwise
from codegen.closed.regions.cells import Cell, substituted
from engine.notation import BRACKETS, Head, Less, Sign, Where, accesses

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a function of a truth is a choice between its values"
DEEPEST = 4
"""Through how many cells a function is written out at most."""


def by_truths(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells, with such functions as choices; what others read of them, or is `kept`, stays beside."""
    if not any(c.expr is not None and c.expr.has(Less) for c in cells):
        return cells
    readers = Counter(r for c in cells for r in c.reads)
    alone = {c.name: c for c in cells if readers[c.name] == 1 and c.name not in kept and elementwise(c) and not c.named}
    out = [replace(c, expr=new, text=None) if (new := chosen(c, alone)) is not None else c for c in cells]
    return without(out, cells, kept) if any(c is not d for c, d in zip(out, cells, strict=True)) else cells


def chosen(c: Cell, alone: Mapping[str, Cell]) -> Any:
    """A cell that is a sign or an absolute value of what one truth and smaller tensors are made to, as a choice; None for any other."""
    if not elementwise(c) or not cast("Any", c.expr).has(Sign) or cast("Any", c.expr).has(Where):
        return None
    e: Any = c.expr
    for _ in range(DEEPEST):
        truths = e.atoms(*BRACKETS)
        if len(truths) == 1:
            break
        step = substituted(e, alone)
        if truths or step == e:
            return None
        e = step
    (truth,) = truths if len(truths) == 1 else (None,)
    if not isinstance(truth, Less):
        return None
    mark = sp.Dummy("truth")
    plain = e.xreplace({truth: mark})
    smaller = all(indices_of(cast("Any", a)) < indices_of(cast("Any", truth)) for a in accesses(plain))
    one, other = plain.xreplace({mark: sp.S.One}), plain.xreplace({mark: sp.S.Zero})
    heads = any(isinstance(x, Head) and not isinstance(x, Sign) for x in sp.preorder_traversal(plain))
    return Where(truth, one, other) if smaller and not heads else None


__all__ = ["RULE", "by_truths"]
