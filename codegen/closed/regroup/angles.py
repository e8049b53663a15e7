# pyright: basic
"""Sines and cosines of differences that are summed: `Sum_j sin(t_j - t_i)` is `cos t_i Sum_j sin t_j - sin t_i Sum_j cos t_j`.

The angle addition formulas make products of what was one matrix, and the sums over them are taken in the order that moves least:
no matrix is left, where nothing else is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, substituted
from codegen.closed.regroup import accuracy
from codegen.closed.regroup.among import Among
from codegen.closed.regroup.without import Without
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RULE = "angles are added, sin(a - b) = sin a cos b - cos a sin b, where the sum is over one of them"


def with_angles_apart(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells without matrices of sines and cosines that are only summed, where that costs less."""
    for c in [c for c in cells if isinstance(c.expr, (sp.sin, sp.cos)) and len(c.ranges) > 1]:
        known = {d.name: d for d in cells}
        made = apart(c, known) if c.name in known and c.name not in {*outputs, *fixed} else None
        if made is None:
            continue
        among = Among([d for x in cells for d in (made if x is c else (x,))], outputs, fixed, example)
        trial = Without(made[-1], among)
        if trial.possible() and trial.made() and trial.cheaper() and passes(c, trial, made[:-1], among):
            cells = among.with_instead(trial.added)
    return cells


def apart(c: Cell, known: Mapping[str, Cell]) -> list[Cell] | None:
    """A sine or cosine of a sum of two angles, each with an index that the other has not, as products, after the cells that these read."""
    angle = written_out(c, known)
    if angle is None:
        return None
    new: list[Cell] = []
    (sin_a, cos_a), (sin_b, cos_b) = (of_angle(sp.Add(*terms), c, known, new) for terms in angle.groups)
    whole = sin_a * cos_b + cos_a * sin_b if isinstance(c.expr, sp.sin) else cos_a * cos_b - sin_a * sin_b
    return [*new, replace(c, expr=cast("Expr", whole), call=False, text=None)]


@dataclass(frozen=True)
class Angle:
    """The terms of two angles that are added, each with an index that the other has not, and the cells that were written out."""

    groups: tuple[list[Any], list[Any]]
    taken: tuple[Cell, ...]


def written_out(c: Cell, known: Mapping[str, Cell]) -> Angle | None:
    """The angle of a cell with tensors that are sums or multiples of others written out, so far that it has the fewest terms."""
    e: Any = cast("Any", c.expr).args[0]
    taken: dict[str, Cell] = {}
    best: Angle | None = None
    while True:
        groups: dict[frozenset[Any], list[Any]] = {}
        terms = sp.Add.make_args(e)
        for t in terms:
            groups.setdefault(indices_of(t), []).append(t)
        apart = len(groups) == 2 and not any(a <= b for a in groups for b in groups if a is not b)
        if apart and all(isinstance(t.as_coeff_Mul()[1], Indexed) for t in terms):
            one, other = groups.values()
            if best is None or len(terms) <= len([*best.groups[0], *best.groups[1]]):
                best = Angle((one, other), tuple(taken.values()))
        linear = {n: known[n] for n in map(name_of, e.atoms(Indexed)) if is_linear(known[n])}
        if not linear:
            return best
        taken |= linear
        e = sp.expand(substituted(e, linear))


def is_linear(c: Cell) -> bool:
    """Whether a cell with several indices is a sum of multiples of tensors."""
    terms = () if c.expr is None or len(c.ranges) < 2 else sp.Add.make_args(c.expr)
    return bool(terms) and all(isinstance(t.as_coeff_Mul()[1], Indexed) for t in terms)


def of_angle(angle: Any, c: Cell, known: Mapping[str, Cell], new: list[Cell]) -> tuple[Any, Any]:
    """The sine and the cosine of an angle; cells for them are taken from those that there are, or are `new`."""
    first = sp.Add.make_args(angle)[0]
    sign = -1 if first.as_coeff_Mul()[0].is_negative else 1
    at = [i for i in c.indices if i in indices_of(angle)]
    found: list[Any] = []
    for function in (sp.sin, sp.cos):
        own = {i: fresh() for i in at}
        expr = function((sign * angle).xreplace(own))
        cell = next((d for d in (*known.values(), *new) if is_equal(d, expr, list(own.values()))), None)
        if cell is None:
            label = name_of(next(iter(sp.ordered(angle.atoms(Indexed)))))
            name = free_name(f"{label}_{function.__name__}", {*known, *(d.name for d in new)})
            shape = tuple(c.ranges[cast("Index", i)] for i in at)
            cell = Cell(name, tuple(own.values()), shape, expr, "float", c.differentiable, c.dtype)
            new.append(cell)
        found.append(cell.element(at))
    return sign * found[0], found[1]


def is_equal(d: Cell, expr: Any, at: list[Any]) -> bool:
    """Whether a cell is an expression at its indices."""
    same = d.expr is not None and isinstance(d.expr, type(expr)) and len(d.indices) == len(at) and 0 not in d.indices
    return same and cast("Any", d.expr).xreplace(dict(zip(d.indices, at, strict=True))) == expr


def passes(c: Cell, trial: Without, angles: list[Cell], among: Among) -> bool:
    """Whether the cells have the values that they had, at a random point and in float32 around several offsets."""
    old = [*before(c, among), *trial.affected]
    new = [*angles, *trial.new]
    return not any(d in trial.parts.shared.values() for d in new) and accuracy.passes_gates(old, new, among)


def before(c: Cell, among: Among) -> list[Cell]:
    """A cell after those that its angle was written out from."""
    angle = written_out(c, among.known)
    taken = angle.taken if angle is not None else ()
    return sorted([*taken, c], key=lambda d: among.place[d.name])


__all__ = ["RULE", "with_angles_apart"]
