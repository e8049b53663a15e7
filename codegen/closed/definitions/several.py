# pyright: basic
"""Sums of several exponentials, one after the other and not over an axis: z = exp(f) + exp(g) + exp(h).

Their logarithm l is `logaddexp` twice, and the shares exp(f) / z, of which its derivative is made, are exp(f - l) over the sum of
such: nothing overflows, and what l was rounded by cancels. The sum itself is then not made where nothing else reads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.regions.called import share_name
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sympy import Expr

RULE = "exp(f) / z is exp(f - log z) over the sum of such, for a sum z of several exponentials"
MOST = 8
"""How many there may be."""


def terms_of(c: Cell, known: Mapping[str, Cell]) -> list[Any]:
    """The exponentials that a cell adds up, three or more, each times a positive number; a one is exp(0); [] for any other cell."""
    if not isinstance(c.expr, sp.Add) or c.kind != "float" or not 3 <= len(c.expr.args) <= MOST:
        return []
    parts = [cast("Any", t).as_coeff_Mul() for t in c.expr.args]
    fits = all(number.is_positive and exponent_of_term(e, known) is not None for number, e in parts)
    fits = fits and all(number == 1 for number, e in parts if e == 1)
    return [e for _, e in parts] if fits else []


def exponent_of_term(e: Any, known: Mapping[str, Cell]) -> Expr | None:
    """f of what is exp(f) in a sum, where a one is exp(0)."""
    return sp.S.Zero if e == 1 else exponent_of(e, known)


def exponent_of(e: Any, known: Mapping[str, Cell]) -> Expr | None:
    """f of what is exp(f), or an element of a cell that is; None for anything else."""
    if isinstance(e, sp.exp):
        return e.args[0]
    cell = known.get(name_of(e)) if isinstance(e, Indexed) else None
    written: Any = at(cell, e.indices) if cell is not None and isinstance(cell.expr, sp.exp) else None
    return None if written is None else written.args[0]


def with_logarithms(cells: list[Cell]) -> list[Cell]:
    """The cells, with the logarithm and the shares of every such sum that is divided by or that a logarithm is taken of."""
    cells = with_sums(flattened(cells))
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    logarithms: dict[str, Cell] = {}
    for c in cells:
        if any(c is d for d in out):  # a logarithm that came before
            continue
        out.append(c)
        terms = terms_of(c, known) if c.differentiable else []
        if not terms or not any(c.name in d.reads for d in cells) or not divides(c, cells):
            continue
        logarithm = logarithm_of(c.element(c.indices), known)
        if logarithm is None:
            name = free_name(f"{c.name}_log", known)
            known[name] = made(c, name, sp.log(c.element(c.indices)), positive=False)
            out.append(known[name])
            logarithms[c.name] = known[name]
        elif known[name_of(logarithm)].reads == (c.name,):
            out.append(known[name_of(logarithm)])
        for new in without_scale(c, known):
            known[new.name] = new
            out.append(new)
        for e in terms:
            if e == 1 or any(same_share(d, e, c) for d in cells):
                continue
            name = free_name(share_name(e, known, c.name), known)
            known[name] = made(c, name, e / c.element(c.indices), positive=True)
            out.append(known[name])
    return reading_logarithms(out, logarithms)


def reading_logarithms(cells: list[Cell], logarithms: Mapping[str, Cell]) -> list[Cell]:
    """The cells, reading the logarithm of a sum where that is a cell of its own by now."""
    out: list[Cell] = []
    for c in cells:
        there: dict[Any, Any] = {
            x: logarithms[name_of(x.args[0])].element(x.args[0].indices)
            for x in (c.expr.atoms(sp.log) if c.expr is not None else ())
            if isinstance(x.args[0], Indexed) and logarithms.get(name_of(x.args[0]), c) is not c
        }
        out.append(replace(c, expr=cast("Any", c.expr).xreplace(there), text=None) if there else c)
    return out


def flattened(cells: list[Cell]) -> list[Cell]:
    """The cells with sums of exponentials and sums of such, `(exp(f) + exp(g)) + exp(h)`, as one sum."""
    known: dict[str, Cell] = {}
    sums: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        if isinstance(c.expr, sp.Add) and c.kind == "float":
            whole = cast("Expr", substituted(c.expr, sums))
            parts = [cast("Any", t).as_coeff_Mul()[1] for t in whole.args]
            if 1 < len(parts) <= MOST and all(exponent_of_term(e, known) is not None for e in parts):
                c = replace(c, expr=whole, text=None) if whole != c.expr else c
                sums[c.name] = c
        known[c.name] = c
        out.append(c)
    return out


def with_sums(cells: list[Cell]) -> list[Cell]:
    """The cells, with every such sum that a logarithm is taken of as a cell of its own, if none of those before it is that sum."""
    known = {c.name: c for c in cells}
    exponentials = {n: c for n, c in known.items() if isinstance(c.expr, sp.exp)}
    before: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        for x in (
            sorted(c.expr.atoms(sp.log), key=str) if c.expr is not None and c.differentiable and not c.call else ()
        ):
            inside = x.args[0]
            sizes = c.ranges
            free = [i for i in c.indices if i in inside.free_symbols]
            fits = all(i in sizes for i in inside.free_symbols if isinstance(i, Index))
            z = replace(c, indices=tuple(free), shape=tuple(sizes[cast("Any", i)] for i in free), expr=inside)
            if fits and terms_of(z, known):
                own = found(substituted(inside, exponentials), before)
                if own is None:
                    name = free_name(f"{c.name}_sum", known)
                    known[name] = made(z, name, inside, positive=True)
                    before[name] = replace(known[name], expr=substituted(known[name].expr, exponentials))
                    out.append(known[name])
                    own = known[name].element(free)
                c = replace(c, expr=cast("Any", c.expr).xreplace({inside: own}), text=None)
        if terms_of(c, known):
            before[c.name] = replace(c, expr=substituted(c.expr, exponentials))
        known[c.name] = c
        out.append(c)
    return out


def without_scale(z: Cell, known: Mapping[str, Cell]) -> list[Cell]:
    """exp(f - log z) of every exponential, and the sum of these, which is one but for rounding."""
    logarithm = logarithm_of(z.element(z.indices), known)
    taken = {*known}
    out: list[Cell] = []
    total: Any = sp.S.Zero
    for t in cast("Any", z.expr).args:
        number, e = t.as_coeff_Mul()
        name = free_name(f"{share_name(e, known, z.name)}_scaled", taken)
        taken.add(name)
        new = replace(
            made(z, name, sp.exp(cast("Any", exponent_of_term(e, known)) - logarithm), True), differentiable=False
        )
        out.append(new)
        total += number * new.element(z.indices)
    return [*out, replace(made(z, free_name(f"{z.name}_scaled", taken), total, True), differentiable=False)]


def made(c: Cell, name: str, expr: Any, positive: bool) -> Cell:
    """A cell like another one."""
    own = {i: fresh() for i in c.indices if i != 0}
    indices = tuple(own.get(i, i) for i in c.indices)
    new = replace(c, name=name, indices=indices, expr=expr.xreplace(own), node=None, text=None, call=False, named=False)
    return replace(new, positive=positive)


def same_share(d: Cell, e: Any, z: Cell) -> bool:
    """Whether a cell is the quotient of an exponential and the sum."""
    if not isinstance(d.expr, Mul) or z.name not in d.reads or len(d.indices) != len(z.indices):
        return False
    there = dict(zip(d.indices, z.indices, strict=True))
    return bool(d.expr.xreplace(there) == e / z.element(z.indices))


def divides(z: Cell, cells: list[Cell]) -> bool:
    """Whether all that is read of a cell is what it divides, and its logarithm: `p z` may have lost an exponential's last digits."""
    for c in cells:
        if c.expr is None or z.name not in c.reads:
            continue
        hidden = {x: sp.Dummy() for x in c.expr.atoms(sp.Pow, sp.log) if isinstance(x.args[0], Indexed)}
        hidden = {x: d for x, d in hidden.items() if isinstance(x, sp.log) or cast("Any", x).exp.is_negative}
        if accesses(c.expr.xreplace(hidden), z.name):
            return False
    return True


def logarithm_of(z: Any, known: Mapping[str, Cell]) -> Indexed | None:
    """The element of a cell that is the logarithm of an element; None where there is no such cell."""
    exponentials = {n: c for n, c in known.items() if isinstance(c.expr, sp.exp)}
    cell = known[name_of(z)]
    sums = {**exponentials, cell.name: cell}
    target = sp.log(substituted(substituted(z, sums), exponentials))
    for c in known.values():
        if isinstance(c.expr, sp.log):
            whole = sp.log(substituted(substituted(c.expr.args[0], sums), exponentials))
            own = holding(c, whole, target)
            if own is not None:
                return own
    return None


def by_logarithm(c: Cell, known: Mapping[str, Cell]) -> Any:
    """A cell that is exp(f) / z for such a sum z, by exp(f - log z) and the sum of these; None for any other."""
    if not isinstance(c.expr, Mul):
        return None
    for p in c.expr.args:
        z = (
            known.get(name_of(p.base))
            if isinstance(p, sp.Pow) and p.exp == -1 and isinstance(p.base, Indexed)
            else None
        )
        exponent = exponent_of(c.expr / p, known)
        if z is None or exponent is None or not terms_of(z, known):
            continue
        bottom = cast("Indexed", cast("Any", p).base)
        logarithm = logarithm_of(bottom, known)
        if logarithm is None:
            return None
        parts = [cast("Any", t).as_coeff_Mul() for t in cast("Any", at(z, bottom.indices)).args]
        scaled = [
            (number, found(sp.exp(cast("Any", exponent_of_term(e, known)) - logarithm), known)) for number, e in parts
        ]
        top = found(sp.exp(exponent - logarithm), known)
        if top is None or any(s is None for _, s in scaled):
            return None
        total = found(sp.Add(*[number * s for number, s in scaled]), known)
        return None if total is None else top / total
    return None


def found(target: Any, known: Mapping[str, Cell]) -> Any:
    """The element of a cell that holds an expression; None where there is none."""
    cells = (d for d in known.values() if d.expr is not None and d.expr.func is target.func)
    return next((own for d in cells for own in [holding(d, cast("Expr", d.expr), target)] if own is not None), None)


__all__ = ["RULE", "by_logarithm", "terms_of", "with_logarithms"]
