# pyright: basic
"""Products of powers of exponentials that are added up, as the exponentials that they are: `exp(a) + exp(b) + sqrt(exp(a) exp(b))` is a sum of
exp(a), exp(b) and exp((a + b) / 2), and the density of a mixture, `Sum_k p_k exp(q_k) / s_k^d` with shares p = softmax(l) and s = exp(g),
that of exp(l_k - log Sum exp l + q_k - d g_k). The logarithms and shares of such sums do not overflow, nor are they lost to zeros.

Only where all that reads the sum divides by it or takes its logarithm, and where one factor runs over all that the product does: an outer
product of exponentials is cheaper than the exponentials of all sums. A sum over an axis beside another exponential, as in
`exp(a) + Sum_j exp(b_j)`, is the exponential of its logarithm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.definitions.several import divides, exponent_of, exponent_of_term
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Amax, Index, Sigma, Smallest, Where, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "a product of powers of exponentials is the exponential of a sum"


def with_exponents(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells, with each such product as an exponential; none of those `kept`, which are read as they are."""
    cells = with_sums(cells, kept)
    known = {c.name: c for c in cells}
    found: dict[str, tuple[Cell, ...]] = {}
    read = {r for c in cells for r in c.reads}.difference(kept)
    for c in cells:
        for e in added(c, cells, known) if c.name in read else ():
            cell = known[name_of(e)] if isinstance(e, Indexed) else None
            if cell is None or cell.name in kept or cell.expr is None or cell.call:
                continue
            exponent = exponent_in(cell.expr, known)
            total = total_in(cell, known)
            if total is not None:
                if not below_largest(total.body, known) and all(
                    isinstance(d.expr, sp.Add) for d in cells if cell.name in d.reads
                ):  # its shares are told by it else
                    found[cell.name] = by_logarithm(cell, {*known, *found})
                    known[cell.name] = found[cell.name][-1]
            elif exponent is not None and spans(cell.expr, {*cell.ranges}, known):
                found[cell.name] = as_exponential(cell, sp.factor_terms(exponent), {*known, *found})
                known[cell.name] = found[cell.name][-1]
    return [d for c in cells for d in found.get(c.name, (c,))]


def with_sums(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells, with a number beside such a product as a cell before the logarithm that is taken of the sum, as log1p does."""
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        for x in sorted(c.expr.atoms(sp.log), key=str) if c.expr is not None and not c.call else ():
            moving = [t for t in sp.Add.make_args(x.args[0]) if not t.is_positive or t.has(Indexed)]
            product = known.get(name_of(moving[0])) if len(moving) == 1 and isinstance(moving[0], Indexed) else None
            if product is None or product.name in kept or x.args[0] == moving[0] or not is_product(product, known):
                continue
            name = free_name(f"{c.name}_sum", known)
            order = [i for i in moving[0].indices if i != 0]
            ranges = dict(zip(moving[0].indices, product.shape, strict=True))
            own = {i: fresh() for i in order}
            known[name] = replace(
                product,
                name=name,
                indices=tuple(own.values()),
                shape=tuple(ranges[i] for i in order),
                expr=x.args[0].xreplace(own),
                node=None,
                text=None,
                named=False,
                positive=True,
            )
            out.append(known[name])
            c = replace(c, expr=cast("Any", c.expr).xreplace({x: sp.log(known[name].element(order))}))
        known[c.name] = c
        out.append(c)
    return out


def is_product(cell: Cell, known: Mapping[str, Cell]) -> bool:
    """Whether a cell is a product of powers of exponentials that is an exponential as well."""
    if cell.expr is None or cell.call or not isinstance(cell.expr, (Mul, sp.Pow)) or total_in(cell, known) is not None:
        return False
    return exponent_in(cell.expr, known) is not None and spans(cell.expr, {*cell.ranges}, known)


def as_exponential(cell: Cell, exponent: Any, taken: set[str]) -> tuple[Cell, ...]:
    """A cell as the exponential of what it is, which is a cell before it where it is a sum."""
    whole = replace(cell, text=None, positive=True)
    if not isinstance(exponent, sp.Add) and not any(isinstance(f, sp.Add) for f in Mul.make_args(exponent)):
        return (replace(whole, expr=sp.exp(exponent)),)
    indices, own = fresh_of(cell)
    name = free_name(f"{cell.name}_exponent", taken)
    inner = replace(
        cell, name=name, indices=indices, expr=exponent.xreplace(own), node=None, text=None, named=False, positive=False
    )
    return inner, replace(whole, expr=sp.exp(inner.element(cell.indices)))


def by_logarithm(total: Cell, taken: set[str]) -> tuple[Cell, ...]:
    """A multiple of a sum of exponentials as the exponential of a logarithm; that and the sum are cells before it."""
    number, terms = reduction(total.expr)
    inner, outer = fresh_of(total), fresh_of(total)
    plain = replace(total, name=free_name(f"{total.name}_sum", taken), node=None, text=None, named=False, positive=True)
    summed = replace(plain, indices=inner[0], expr=cast("Any", terms).xreplace(inner[1]))
    name = free_name(f"{total.name}_exponent", taken)
    logarithm = sp.log(summed.element(outer[0])) + sp.log(number)
    exponent = replace(plain, name=name, indices=outer[0], expr=logarithm, positive=False)
    return summed, exponent, replace(total, expr=sp.exp(exponent.element(total.indices)), text=None, positive=True)


def fresh_of(cell: Cell) -> tuple[tuple[Any, ...], dict[Any, Any]]:
    """Indices of its own for a copy of a cell, and which of the cell's they stand for."""
    own = {i: fresh() for i in cell.indices if i != 0}
    return tuple(own.get(i, i) for i in cell.indices), own


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
    others = [e for e in terms if exponent_of_term(e, known) is None]
    return others if len(others) < len(terms) or all(is_power(e, known) for e in terms) else []


def is_power(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether an element of a cell is a product of powers of exponentials, or a multiple of a sum of exponentials."""
    cell = known.get(name_of(e)) if isinstance(e, Indexed) else None
    if cell is None or cell.expr is None or cell.call:
        return False
    return total_in(cell, known) is not None or (
        exponent_in(cell.expr, known) is not None and spans(cell.expr, {*cell.ranges}, known)
    )


def total_in(cell: Cell, known: Mapping[str, Cell]) -> Sigma | None:
    """The sum of exponentials that a cell is a positive multiple of; None for any other cell."""
    number, total = reduction(cell.expr)
    return total if total is not None and number.is_positive and exponential(total.body, known) else None


def below_largest(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether an exponential is that of a difference from a maximum, which does not overflow."""
    terms: list[Any] = [-cast("Any", t) for t in sp.Add.make_args(exponent_of(e, known))]
    subtracted = [t for t in terms if isinstance(t, Indexed)]
    return any(name_of(m) in known and is_largest(known[name_of(m)].expr, known) for m in subtracted)


def is_largest(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether an expression is a maximum over an axis, or the larger one of that and 0."""
    if isinstance(e, Indexed):
        return name_of(e) in known and is_largest(known[name_of(e)].expr, known)
    return (isinstance(e, Amax) and not isinstance(e, Smallest)) or (
        isinstance(e, Where) and is_largest(e.args[2], known)
    )


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
        total = cell is not None and total_in(cell, known) is not None
        if total or exponent_of(b, known) is not None:
            if own <= b.free_symbols:
                return True
        elif cell is not None and isinstance(cell.expr, (Mul, sp.Pow)) and spans(at(cell, b.indices), own, known):
            return True
    return False


__all__ = ["RULE", "with_exponents"]
