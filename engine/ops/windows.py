"""What convolutions and poolings share: where a window reads, and how many windows there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Integer

from engine.errors import TraceError
from engine.notation import Index, Quo
from engine.ops.layout import steps
from engine.ops.padding import inside
from engine.sizes import expression
from engine.table import equal, fresh_of, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def numbers(value: Any, count: int, default: Any = None) -> list[Expr]:
    """One number for each dimension: `3` and `(3, 3)` are the same."""
    if value is None or value == () or value == []:
        value = default
    given = list(cast("Sequence[Any]", value)) if isinstance(value, (tuple, list)) else [value]
    if len(given) not in (1, count):
        raise TraceError(f"{len(given)} numbers were given for {count} dimensions")
    return [expression(v) for v in (given * count if len(given) == 1 else given)]


@dataclass(frozen=True)
class Window:
    """A window over one dimension: output size, its index, the index within the window, and the place that is read."""

    size: Expr
    out: Expr
    within: Expr
    extent: Expr
    place: Expr
    source: Expr
    before: Expr
    after: Expr

    @property
    def limits(self) -> list[tuple[Index, Expr]]:
        """What a sum over the window runs over."""
        return [(cast("Index", self.within), self.extent)] if self.extent != 1 else []

    def guarded(self, value: Any, fill: Any = 0) -> Any:
        """`value`, or `fill` where the place lies in the padding."""
        return inside(self.place, self.source, value, value_of(self.before) > 0, value_of(self.after) > 0, fill)


def window(
    source: Expr, extent: Expr, stride: Expr, before: Expr, after: Expr, dilation: Expr, up: bool = False
) -> Window:
    """A window of `extent` over a dimension of size `source`; with `up` a last one that sticks out counts as well."""
    span = sp.expand(source + before + after - dilation * (extent - 1) - 1)
    size = steps(span, stride)
    reach = after
    if up and value_of(span) % int(cast("Any", stride)):
        count = value_of(span) // int(cast("Any", stride)) + 2
        if (count - 1) * int(cast("Any", stride)) < value_of(source + before):
            equal(source, Integer(value_of(source)))
            size, reach = Integer(count), (after + stride)
    if value_of(size) <= 0:
        raise TraceError("a window is larger than what it slides over")
    out, within = fresh_of(size), fresh_of(extent)
    place = sp.expand(out * stride + within * dilation - before)
    return Window(size, out, within, extent, place, source, before, reach)


def uneven(source: Expr, size: Expr) -> tuple[Expr, Expr, Expr]:
    """For adaptive pooling: index, first place and end of each of `size` windows that cover a dimension."""
    out = fresh_of(size)
    if size == 1:
        return out, sp.S.Zero, source
    start = Quo(out * source, size)
    return out, cast("Expr", start), cast("Expr", Quo((out + 1) * source + size - 1, size))
