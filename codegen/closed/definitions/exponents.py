# pyright: basic
"""Products of powers of exponentials that are added to exponentials, as the exponentials that they are: `exp(a) + exp(b) + sqrt(exp(a) exp(b))`
is a sum of exp(a), exp(b) and exp((a + b) / 2), whose logarithm and shares do not overflow.

Only where all that reads the sum divides by it or takes its logarithm, and where every factor of the product runs over what the sum does or is
one number: products of rows and columns are cheaper than exponentials of their sums.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.several import divides, exponent_of
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a product of powers of exponentials is the exponential of a sum"


def with_exponents(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells, with each such product as an exponential; none of those `kept`, which are read as they are."""
    known = {c.name: c for c in cells}
    found: dict[str, tuple[Cell, ...]] = {}
    for c in cells:
        for e in added(c, cells, known):
            cell = known[name_of(e)] if isinstance(e, Indexed) else None
            if cell is None or cell.name in kept or isinstance(cell.expr, sp.exp) or cell.expr is None:
                continue
            exponent = exponent_in(cell.expr, known, {*cell.ranges})
            if exponent is not None:
                found[cell.name] = exponential(cell, sp.factor_terms(exponent), {*known, *(n for n in found)})
    return [d for c in cells for d in found.get(c.name, (c,))]


def exponential(cell: Cell, exponent: Any, taken: set[str]) -> tuple[Cell, ...]:
    """A cell as the exponential of what it is, which is a cell before it where it is a sum."""
    whole = replace(cell, text=None, positive=True)
    if not isinstance(exponent, sp.Add) and not any(isinstance(f, sp.Add) for f in Mul.make_args(exponent)):
        return (replace(whole, expr=sp.exp(exponent)),)
    own = {i: fresh() for i in cell.indices if i != 0}
    indices = tuple(own.get(i, i) for i in cell.indices)
    name = free_name(f"{cell.name}_exponent", taken)
    inner = replace(cell, name=name, indices=indices, expr=exponent.xreplace(own), node=None, text=None, named=False)
    return inner, replace(whole, expr=sp.exp(inner.element(cell.indices)))


def added(c: Cell, cells: list[Cell], known: Mapping[str, Cell]) -> list[Any]:
    """What a cell adds up besides exponentials, through sums that it alone reads; [] unless it is only divided by and taken logarithms of."""
    if not isinstance(c.expr, sp.Add) or c.kind != "float" or not c.differentiable or not divides(c, cells):
        return []
    terms: list[Any] = []
    left: list[Any] = [*c.expr.args]
    while left:
        e = left.pop(0).as_coeff_Mul()[1]
        cell = known.get(name_of(e)) if isinstance(e, Indexed) else None
        if cell is not None and isinstance(cell.expr, sp.Add):
            left += at(cell, e.indices).args
        else:
            terms.append(e)
    others = [e for e in terms if exponent_of(e, known) is None]
    return others if len(others) < len(terms) else []


def exponent_in(e: Any, known: Mapping[str, Cell], own: set[Any]) -> Any:
    """f of what is exp(f) as a product of powers of exponentials, each over the indices `own` or none; None for anything else."""
    total: Any = sp.S.Zero
    for f in Mul.make_args(e):
        b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
        inner = exponent_of(b, known)
        if inner is None:
            cell = known.get(name_of(b)) if isinstance(b, Indexed) else None
            whole = at(cell, b.indices) if cell is not None and cell.expr is not None and not cell.call else b
            inner = exponent_in(whole, known, own) if isinstance(whole, (Mul, sp.Pow)) else None
        if inner is None or not x.is_Rational or (inner.free_symbols & own) not in (own, set()):
            return None
        total += x * inner
    return total


__all__ = ["RULE", "with_exponents"]
