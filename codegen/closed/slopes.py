# pyright: basic
"""Products with the slope of a tanh, as torch's kernel for them: `g (1 - h^2)` is `tanh_backward(g, h)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Delta, Equal, Less, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.cells import Cell


class TanhBackward(sp.Function):
    """`TanhBackward(g, h)` is `g (1 - h^2)`."""

    nargs = 2


def tanh_of(e: Any, cells: Mapping[str, Cell]) -> Indexed | None:
    """h of `1 - h^2`, where a cell says that it is a tanh."""
    if not isinstance(e, sp.Add) or len(e.args) != 2 or sp.S.One not in e.args:
        return None
    root = (1 - e).as_base_exp()
    h = root[0] if root[1] == 2 and isinstance(root[0], Indexed) else None
    cell = None if h is None else cells.get(name_of(h))
    return h if cell is not None and isinstance(cell.expr, sp.tanh) else None


def with_slopes(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression whose terms have their slopes of tanh in kernels."""
    if isinstance(e, sp.Add):
        terms = [with_slopes(t, cells) for t in e.args]
        return e if all(x is y for x, y in zip(terms, e.args, strict=True)) else sp.Add(*terms)
    if not isinstance(e, sp.Mul) or e.has(Delta, Less, Equal, Where):
        return e
    slopes = [(f, h) for f in e.args for h in [tanh_of(f, cells)] if h is not None]
    rest = sp.Mul(*[with_slopes(f, cells) for f in e.args if f not in [s for s, _ in slopes]])
    if not slopes or not rest.has(Indexed):
        return e
    for _, h in slopes:
        rest = TanhBackward(rest, h)
    return rest


__all__ = ["TanhBackward", "tanh_of", "with_slopes"]
