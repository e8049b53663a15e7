"""A region written out: its cells, and its forward and backward as statements, by position or for the sizes of one graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from codegen.lowering import tensors as tt

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.constants import Sums
    from codegen.closed.regions.region import Region
    from codegen.closed.regions.rewrites import Rewrite
    from codegen.closed.write.line import Line


@dataclass(frozen=True)
class RegionCode:
    """A region's statements, the cells its backward reads, and the statements of its derivation."""

    cells: tuple[Cell, ...]
    forward: tuple[Line, ...]
    backward: tuple[Line, ...]
    gradients: tuple[tuple[str, str], ...]
    saved: tuple[str, ...]
    statements: tuple[Statement, ...]
    refused: tuple[str, ...] = ()
    region: Region | None = None
    """What was closed, as it was before."""
    values: tuple[tuple[Any, int], ...] = ()
    """The sizes of the example it was closed for."""
    sums: Sums = ()
    """What its cells sum to over an axis, as far as others need to know."""
    notes: tuple[Rewrite, ...] = ()
    """What the rules of the forward made of its tensors' definitions, in order; sizes by position."""
    simplified: bool = True
    """Whether the algebra had a part in its backward, which is else the chain as it was derived."""
    origin: RegionCode | None = None
    """The code with sizes by position that this one was made from."""
    sized: dict[Any, RegionCode] = field(default_factory=dict[Any, "RegionCode"], init=False, compare=False, repr=False)


def resized(code: RegionCode, sizes: dict[Any, Expr]) -> RegionCode:
    """The code of a region for the sizes of one graph; layers of equal sizes share it."""
    key = tuple(sizes.items())
    if key not in code.sized:
        code.sized[key] = _resized(code, sizes)
    return code.sized[key]


def _resized(code: RegionCode, sizes: dict[Any, Expr]) -> RegionCode:
    shapes = {c.shape for c in code.cells} | {x.shape for x in (*code.forward, *code.backward, *code.statements)}
    known = {s: tuple(n.xreplace(sizes) for n in s) for s in shapes}

    def line(x: Line) -> Line:
        dense = x.value.dense
        new = None if dense is None else replace(dense, t=tt.rename(dense.t, {}, sizes))
        scatters = tuple(
            replace(s, items=tuple(tt.rename(i, {}, sizes) for i in s.items), value=tt.rename(s.value, {}, sizes))
            for s in x.value.scatters
        )
        return replace(
            x, shape=known[x.shape], expr=x.expr.xreplace(sizes), value=replace(x.value, dense=new, scatters=scatters)
        )

    return replace(
        code,
        origin=code,
        cells=tuple(
            replace(c, shape=known[c.shape], expr=None if c.expr is None else c.expr.xreplace(sizes))
            for c in code.cells
        ),
        forward=tuple(line(x) for x in code.forward),
        backward=tuple(line(x) for x in code.backward),
        statements=tuple(
            replace(s, shape=known[s.shape], expr=s.expr.xreplace(sizes), naive=s.naive.xreplace(sizes))
            for s in code.statements
        ),
    )
