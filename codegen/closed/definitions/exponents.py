# pyright: basic
"""Products of powers of exponentials that are added up, as the exponentials that they are: `exp(a) + exp(b) + sqrt(exp(a) exp(b))` is a sum of
exp(a), exp(b) and exp((a + b) / 2), and the density of a mixture, `Sum_k p_k exp(q_k) / s_k^d` with shares p = softmax(l) and s = exp(g),
that of exp(l_k - log Sum exp l + q_k - d g_k). The logarithms and shares of such sums do not overflow, nor are they lost to zeros.

Only where all that reads the sum divides by it or takes its logarithm, and where one factor runs over all that the product does: an outer
product of exponentials is cheaper than the exponentials of all sums.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.several import divides, exponent_of
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a product of powers of exponentials is the exponential of a sum"


def with_exponents(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells, with each such product as an exponential; none of those `kept`, which are read as they are."""
    known = {c.name: c for c in cells}
    found: dict[str, tuple[Cell, ...]] = {}
    read = {r for c in cells for r in c.reads}.difference(kept)
    for c in cells:
        for e in added(c, cells, known) if c.name in read else ():
            cell = known[name_of(e)] if isinstance(e, Indexed) else None
            if cell is None or cell.name in kept or cell.expr is None or cell.call:
                continue
            exponent = exponent_in(cell.expr, known)
            if exponent is not None and spans(cell.expr, {*cell.ranges}, known):
                found[cell.name] = as_exponential(cell, sp.factor_terms(exponent), {*known, *found})
                known[cell.name] = found[cell.name][-1]
    return [d for c in cells for d in found.get(c.name, (c,))]


def as_exponential(cell: Cell, exponent: Any, taken: set[str]) -> tuple[Cell, ...]:
    """A cell as the exponential of what it is, which is a cell before it where it is a sum."""
    whole = replace(cell, text=None, positive=True)
    if not isinstance(exponent, sp.Add) and not any(isinstance(f, sp.Add) for f in Mul.make_args(exponent)):
        return (replace(whole, expr=sp.exp(exponent)),)
    own = {i: fresh() for i in cell.indices if i != 0}
    indices = tuple(own.get(i, i) for i in cell.indices)
    name = free_name(f"{cell.name}_exponent", taken)
    inner = replace(
        cell, name=name, indices=indices, expr=exponent.xreplace(own), node=None, text=None, named=False, positive=False
    )
    return inner, replace(whole, expr=sp.exp(inner.element(cell.indices)))


def added(c: Cell, cells: list[Cell], known: Mapping[str, Cell]) -> list[Any]:
    """What a cell adds up, over an axis or beside exponentials, that is none; [] unless it is only divided by and taken logarithms of."""
    if c.expr is None or c.kind != "float" or not c.differentiable or not divides(c, cells):
        return []
    total = reduction(c.expr)[1]
    if total is not None:
        return [] if exponential(total.body, known) else [total.body]
    terms: list[Any] = []
    left: list[Any] = [*c.expr.args] if isinstance(c.expr, sp.Add) else []
    while left:
        e = left.pop(0).as_coeff_Mul()[1]
        cell = known.get(name_of(e)) if isinstance(e, Indexed) else None
        if cell is not None and isinstance(cell.expr, sp.Add):
            left += at(cell, e.indices).args
        else:
            terms.append(e)
    others = [e for e in terms if exponent_of(e, known) is None]
    return others if len(others) < len(terms) else []


def exponent_in(e: Any, known: Mapping[str, Cell]) -> Any:
    """f of what is exp(f) as a product of powers of exponentials, sums of such and positive numbers; None for anything else."""
    total: Any = sp.S.Zero
    for f in Mul.make_args(e):
        b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
        inner = logarithm_in(b, known)
        if inner is None or x.has(Indexed) or x.atoms(Index):
            return None
        total += x * inner
    return total


def logarithm_in(b: Any, known: Mapping[str, Cell]) -> Any:
    """The logarithm of a factor; None where it is none of those."""
    if not b.has(Indexed) and not b.atoms(Index):
        return sp.log(b) if b.is_positive else None
    inner = exponent_of(b, known)
    cell = known.get(name_of(b)) if isinstance(b, Indexed) else None
    if inner is not None or cell is None or cell.expr is None or cell.call:
        return inner
    total = reduction(cell.expr)[1]
    if total is not None:
        return sp.log(b) if exponential(total.body, known) and cell.expr == total else None
    whole: Any = at(cell, cast("Any", b).indices)
    return exponent_in(whole, known) if isinstance(whole, (Mul, sp.Pow)) and not whole.has(Sigma) else None


def spans(e: Any, own: set[Any], known: Mapping[str, Cell]) -> bool:
    """Whether one exponential among the factors runs over all indices of a product."""
    for f in Mul.make_args(e):
        b = f if isinstance(f, sp.exp) else f.as_base_exp()[0]
        cell = known.get(name_of(b)) if isinstance(b, Indexed) else None
        if exponent_of(b, known) is not None:
            if own <= b.free_symbols:
                return True
        elif cell is not None and isinstance(cell.expr, (Mul, sp.Pow)) and spans(at(cell, b.indices), own, known):
            return True
    return False


__all__ = ["RULE", "with_exponents"]
