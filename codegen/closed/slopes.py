# pyright: basic
"""Products with the slope of a function, as torch's kernel for them: `g (1 - h^2)` is `tanh_backward(g, h)` for a tanh h.

The slope of gelu, `(1 + erf(x/sqrt 2))/2 + x exp(-x^2/2)/sqrt(2 pi)`, is `gelu_backward`, which reads x alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.cells import substituted
from engine.indexed import Indexed
from engine.notation import Delta, Equal, Index, Less, Sigma, Where, bound, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.cells import Cell


class TanhBackward(sp.Function):
    """`TanhBackward(g, h)` is `g (1 - h^2)`."""

    nargs = 2


class GeluBackward(sp.Function):
    """`GeluBackward(g, x)` is g times the slope of gelu at x."""

    nargs = 2


def tanh_of(e: Any, cells: Mapping[str, Cell]) -> Indexed | None:
    """h of `1 - h^2`, where a cell says that it is a tanh."""
    if not isinstance(e, sp.Add) or len(e.args) != 2 or sp.S.One not in e.args:
        return None
    root = (1 - e).as_base_exp()
    h = root[0] if root[1] == 2 and isinstance(root[0], Indexed) else None
    cell = None if h is None else cells.get(name_of(h))
    return h if cell is not None and isinstance(cell.expr, sp.tanh) else None


def gelu_of(e: Any, cells: Mapping[str, Cell]) -> tuple[Indexed, Any] | None:
    """x and c of c times the slope of gelu at x, with what cells hold of it written out."""
    if not isinstance(e, sp.Add) or not e.has(sp.exp):
        return None
    whole = sp.expand(substituted(e, {n: c for n, c in cells.items() if c.expr is not None and c.expr.has(sp.erf)}))
    for f in sorted(whole.atoms(sp.erf), key=str):
        x, number = sp.sqrt(2) * f.args[0], 2 * whole.coeff(f)
        if isinstance(x, Indexed) and number.is_number and sp.expand(whole - number * slope_of_gelu(x)) == 0:
            return x, number
    return None


def slope_of_gelu(x: Any) -> Any:
    """The derivative of x (1 + erf(x / sqrt 2)) / 2."""
    return (1 + sp.erf(x / sp.sqrt(2))) / 2 + x * sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)


def written_out(e: Any) -> Any:
    """An expression as the formula that its kernels compute."""
    e = e.replace(TanhBackward, lambda g, h: g * (1 - h**2))
    return e.replace(GeluBackward, lambda g, x: g * slope_of_gelu(x))


def with_slopes(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression whose terms have their slopes of tanh and gelu in kernels."""
    if isinstance(e, sp.Add):
        terms = [with_slopes(t, cells) for t in e.args]
        return e if all(x is y for x, y in zip(terms, e.args, strict=True)) else sp.Add(*terms)
    if not isinstance(e, sp.Mul) or e.has(Delta, Less, Equal, Where):
        return e
    slopes = [(f, h) for f in e.args for h in [tanh_of(f, cells)] if h is not None]
    rest = sp.Mul(*[with_slopes(f, cells) for f in e.args if f not in [s for s, _ in slopes]])
    if slopes and rest.has(Indexed):
        for _, h in slopes:
            rest = TanhBackward(rest, h)
        return rest
    for f in e.args:
        found = gelu_of(f, cells)
        if found is not None and running(found[0]) == running(e / f):
            return GeluBackward(found[1] * e / f, found[0])
    return e


def running(e: Any) -> frozenset[Any]:
    """The indices that run in an expression, without those that it sums over."""
    return frozenset(i for i in e.free_symbols if isinstance(i, Index)) - (bound(e) if e.has(Sigma) else set())


__all__ = ["GeluBackward", "TanhBackward", "tanh_of", "with_slopes", "written_out"]
