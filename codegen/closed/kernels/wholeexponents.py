# pyright: basic
"""Exponentials of exponentials times what is in their exponent: `exp(a) exp(b - exp(a))` is `exp(a + b - exp(a))`, as in the densities of
extreme values. Where exp(a) overflows, the other factor is 0, and so is the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.cells import at
from engine.indexed import Indexed
from engine.notation import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell


def with_whole_exponents(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every such product as one exponential; sums that hold a factor of one are multiplied out."""
    if isinstance(e, Indexed) or not e.args:
        return e
    if isinstance(e, Mul):
        for outer in e.args:
            found = parts(outer, cells)
            new = None if found is None else product(e / outer, *found)
            if new is not None:
                return new
    return rebuilt(e, lambda a: with_whole_exponents(a, cells))


def parts(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Any, dict[Any, Any]] | None:
    """(c, f, the exponents of exponentials by these) of c exp(f), whose exponent f falls with exponentials; None for anything else."""
    front, exponent = apart(e, cells)
    if exponent == 0:
        return None
    inner: dict[Any, Any] = {}
    for t in sp.Add.make_args(sp.expand(exponent, power_exp=False)):
        number, a = t.as_coeff_Mul()
        own = written(a, cells)
        if number.is_negative and isinstance(own, sp.exp) and not own.args[0].has(sp.exp, sp.log):
            inner[a] = own.args[0]
    return (front, exponent, inner) if inner else None


def apart(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Any]:
    """(c, f) of an element c exp(f), by the definitions of what it is made of; f is 0 where it has no exponential."""
    own = written(e, cells)
    if isinstance(own, sp.exp):
        number, f = own.args[0].as_coeff_Mul()
        inside = written(f, cells)
        return sp.S.One, number * (inside if isinstance(inside, (sp.Add, Mul)) else f)
    if not isinstance(own, Mul):
        return e, sp.S.Zero
    pairs = [(sp.S.One, f.args[0]) if isinstance(f, sp.exp) else apart(f, cells) for f in own.args]
    return Mul(*[c for c, _ in pairs]), sp.Add(*[f for _, f in pairs])


def written(e: Any, cells: Mapping[str, Cell]) -> Any:
    """The definition of an element of a cell; None where it has none, or is none."""
    cell = cells.get(name_of(e)) if isinstance(e, Indexed) else None
    return None if cell is None or cell.expr is None or cell.call else at(cell, e.indices)


def product(rest: Any, front: Any, exponent: Any, inner: Mapping[Any, Any]) -> Any:
    """What else stands in a product with `front exp(exponent)`, the powers of exponentials of each term in the exponent.

    None where there are none. All terms have such exponents, so that what these are rounded by cancels where the terms do.
    """
    factors = Mul.make_args(rest)
    moved = [f for f in factors if any(f.has(a) for a in inner)]
    if not moved:
        return None
    terms: list[Any] = []
    for t in sp.Add.make_args(sp.expand(Mul(*moved), power_exp=False)):
        powers = {a: sp.sympify(t.as_powers_dict()[a]) for a in inner}
        left = t / Mul(*[a**k for a, k in powers.items()])
        if any(left.has(a) for a in inner) or not all(k.is_Integer and k >= 0 for k in powers.values()):
            return None
        terms.append(left * sp.exp(exponent + sp.Add(*[k * inner[a] for a, k in powers.items()])))
    return Mul(*[f for f in factors if f not in moved], front, sp.Add(*terms))


__all__ = ["with_whole_exponents"]
