"""Running sums of what is turned round, turned round again: running sums from the end, for which nothing is turned."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import Cell, is_plain
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, LessEqual, Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

RULE = "a running sum of what is turned round, turned round again, is one from the end"


def from_the_end(cells: list[Cell], kept: Sequence[str]) -> list[Cell]:
    """The cells with `Sum_j [j <= n - 1 - i] x[n - 1 - j]`, and functions of it, as `Sum_j [i <= j] x[j]`.

    What is `kept`, and what others read, stays as it is.
    """
    turning = Turning({c.name: c for c in cells}, {*kept}, Counter(r for c in cells for r in reads(c)))
    out: dict[str, list[Cell]] = {}
    gone: set[str] = set()
    for c in cells:
        out[c.name] = [c]
        axis = turned_axis(c)
        inner = None if axis is None else turning.turned(c, axis)
        if inner:
            gone.update(turning.passed)
            last = inner[-1]
            own: dict[Any, Any] = {i: j for i, j in zip(last.indices, c.indices, strict=True) if i != 0}
            expr = cast("Any", last.expr).xreplace(own)
            out[c.name] = [*inner[:-1], replace(c, expr=expr, positive=last.positive, call=False, text=None)]
    return [c for name, mine in out.items() if name not in gone or len(mine) > 1 for c in mine]


def reads(c: Cell) -> tuple[str, ...]:
    """What a cell is computed from."""
    return tuple(dict.fromkeys((*c.node.operands, *c.reads))) if c.node is not None and c.call else c.reads


def turned_axis(c: Cell) -> int | None:
    """The axis along which a cell is another one from the last to the first; None for any other cell."""
    if not isinstance(c.expr, Indexed) or len(c.expr.indices) != len(c.indices):
        return None
    pairs = [(k, i, j) for k, (i, j) in enumerate(zip(c.indices, c.expr.indices, strict=True)) if i != j]
    if len(pairs) != 1:
        return None
    ((k, i, j),) = pairs
    return k if i != 0 and sp.expand(cast("Any", c.shape[k]) - 1 - i - j) == 0 else None


class Turning:
    """Cells as they are read from the last to the first. `passed` are those that nothing else reads then."""

    def __init__(self, cells: dict[str, Cell], kept: set[str], readers: Counter[str]) -> None:
        self.cells, self.kept, self.readers = cells, kept, readers
        self.passed: set[str] = set()

    def turned(self, c: Cell, axis: int) -> list[Cell] | None:
        """What a turned tensor is made of, without turning, itself last; None where something has to be turned."""
        self.passed = set()
        found: list[Cell] = []
        name = self.of(name_of(cast("Indexed", c.expr)), axis, found)
        return found if name is not None and found and found[-1].name == name else None

    def of(self, name: str, axis: int, found: list[Cell]) -> str | None:
        """The name of a cell that is another one turned round, which is `found` with what it reads; None where there is none."""
        c = self.cells[name]
        if turned_axis(c) == axis:
            if self.readers[name] == 1 and name not in self.kept:
                self.passed.add(name)
            return name_of(cast("Indexed", c.expr))
        if not (c.is_local or self.adds_up(c)) or name in self.kept or self.readers[name] != 1 or c.indices[axis] == 0:
            return None
        i = cast("Index", c.indices[axis])
        e: Any = c.expr
        brackets = [b for b in e.atoms(LessEqual) if i in b.args]
        along: set[Any] = {i} | ({b.args[0] for b in brackets} if self.runs(e, brackets, i, c.shape[axis]) else set())
        if brackets and len(along) == 1:
            return None
        there: dict[Any, Any] = {b: LessEqual(b.args[1], b.args[0]) for b in brackets}
        for a in accesses(e):
            places = [k for k, x in enumerate(a.indices) if x.free_symbols & along]
            if len(places) > 1 or any(a.indices[k] not in along for k in places):
                return None
            if places:
                source = self.of(name_of(a), places[0], found)
                if source is None:
                    return None
                cell = next((d for d in found if d.name == source), None) or self.cells[source]
                there[a] = cell.element(a.indices)
        hidden: Any = e.xreplace({x: sp.Dummy() for x in there})
        left = hidden.free_symbols - {
            j for s in hidden.atoms(Sigma) for j, _ in s.limits if j not in s.body.free_symbols
        }
        if along & left or not is_plain(e):
            return None
        self.passed.add(name)
        own = free_name(f"{name}_turned", self.cells) if c.named else name
        found.append(replace(c, name=own, expr=e.xreplace(there), node=None, call=False, text=None, named=False))
        return own

    def adds_up(self, c: Cell) -> bool:
        """Whether a cell is a running sum of a tensor of its own precision."""
        sources = [self.cells[r] for r in c.reads]
        return (
            c.node is not None
            and c.node.op == "cumsum"
            and c.expr is not None
            and all(d.dtype == c.dtype for d in sources)
        )

    def runs(self, e: Any, brackets: list[Any], i: Index, n: Any) -> bool:
        """Whether the only bracket with an index is that of a running sum up to it, over the same size."""
        sums = [s for s in e.atoms(Sigma) if len(s.limits) == 1]
        return len(brackets) == 1 and brackets[0].args[1] == i and any(
            s.limits[0][0] == brackets[0].args[0] and sp.expand(s.limits[0][1] - n) == 0 for s in sums
        )  # fmt: skip


__all__ = ["RULE", "from_the_end"]
