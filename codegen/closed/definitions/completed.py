# pyright: basic
"""A sum under a mask, and one under its complement: `Sum_j m_j e_j + Sum_j (1 - m_j) e_j` is Sum_j e_j.

So is a sum over all places but one with what stands at that one: `1 + Sum_j (1 - [i = j]) exp(s_ij - s_ii)` is
Sum_j exp(s_ij - s_ii). The number is what is left out, exp(s_ii - s_ii), which definitions written out show. What is left is a sum
like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.definitions.logistic import DEPTH, elementwise_cells
from codegen.closed.regions.cells import Cell, at, is_positive, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import BRACKETS, Delta, Index, Sigma, Where, fresh, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RULE = "what is summed under a mask and under its complement, or at the one place that is left out, is summed over all"


def completed(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells with every such addition as the sum over all. Sums that are `kept`, or read elsewhere, stay what they are."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    shared = {*kept, *(n for n in {c.name for c in cells} if sum(n in c.reads for c in cells) > 1)}
    for c in cells:
        found = whole_sum(c, known, shared) if isinstance(c.expr, sp.Add) and not c.call else None
        if found is not None:
            new, rest = found
            name = free_name(f"{c.name}_whole", {d.name for d in cells} | {*known})
            own = {i: fresh() for i in c.indices if i != 0}
            expr = instantiate(new, own)
            indices = tuple(own.get(i, i) for i in c.indices)
            total = replace(
                c, name=name, indices=indices, expr=expr, node=None, text=None, named=False, positive=is_positive(expr)
            )
            known[name] = total
            out.append(total)
            c = replace(c, expr=cast("Expr", total.element(c.indices) + rest))
        known[c.name] = c
        out.append(c)
    return without(out, cells, kept)


def without(out: list[Cell], before: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """Cells without those that only what was changed has read."""
    was = {r for c in before for r in c.reads}
    read = {*kept, *(r for c in out for r in c.reads)}
    while True:
        gone = {c.name for c in out if c.name in was and c.name not in read and c.expr is not None}
        if not gone:
            return out
        out = [c for c in out if c.name not in gone]
        read = {*kept, *(r for c in out for r in c.reads)}


def whole_sum(c: Cell, known: Mapping[str, Cell], shared: Collection[str]) -> tuple[Expr, Expr] | None:
    """The sum over all that a cell adds up, and what else it adds; None where there is no such sum."""
    added = sp.Add.make_args(cast("Expr", c.expr))
    for t in added:
        total = sum_of(t, known)
        if total is None:
            continue
        others = [o for o in added if o is not t]
        for o in others:
            other = sum_of(o, known)
            sums = [x for x, y in ((t, total), (o, other)) if y is not None]
            if all(isinstance(x, Indexed) and name_of(x) in shared for x in sums):
                continue
            found = with_the_one(total, o, c, known) if other is None else one_sum(total, other)
            if found is not None:
                return found, cast("Expr", sp.Add(*[x for x in others if x is not o]))
    return None


def sum_of(t: Any, known: Mapping[str, Cell]) -> Sigma | None:
    """The sum over one index that a term is, with its products and masks written out; None where it is none."""
    cell = known.get(name_of(t)) if isinstance(t, Indexed) else None
    total = at(cell, t.indices) if cell is not None and isinstance(cell.expr, Sigma) else t
    if not isinstance(total, Sigma) or len(total.limits) != 1:
        return None
    usable = {n: d for n, d in known.items() if isinstance(d.expr, (Mul, Where)) or is_complement(d.expr)}
    return cast("Sigma", total.func(within(total.body, usable), *total.args[1:]))


def is_complement(e: Any) -> bool:
    """Whether an expression is one minus a tensor or a truth."""
    return isinstance(e, sp.Add) and isinstance(1 - e, (Indexed, *BRACKETS))


def factors_of(body: Any) -> list[Any]:
    """The factors of what is summed: of a choice between something and zero, the truth that it is chosen by and what is chosen."""
    out: list[Any] = []
    for f in Mul.make_args(body):
        if isinstance(f, Where) and f.args[1] == 0:
            out += [1 - cast("Any", f.args[0]), *Mul.make_args(f.args[2])]
        elif isinstance(f, Where) and f.args[2] == 0:
            out += [f.args[0], *Mul.make_args(f.args[1])]
        else:
            out.append(f)
    return out


def one_sum(total: Sigma, other: Sigma) -> Expr | None:
    """The sum without masks, of two under a mask and its complement; None where they are not that."""
    ((i, size),), ((j, count),) = total.limits, other.limits
    if size != count:
        return None
    mine, theirs = factors_of(total.body), factors_of(other.body.xreplace({j: i}))
    both = [f for f in mine if f in theirs]
    one, complement = (Mul(*[f for f in factors if f not in both]) for factors in (mine, theirs))
    chosen = {w.args[0] for s in (total, other) for w in s.atoms(Where)}
    if not both or one.is_number or not chosen.isdisjoint(both) or sp.expand(one + complement) != 1:
        return None
    return cast("Expr", total.func(Mul(*both), *total.args[1:]))


def with_the_one(total: Sigma, rest: Any, c: Cell, known: Mapping[str, Cell]) -> Expr | None:
    """The sum over all of one over all places but one, where what is added to it stands at that one; None for all others."""
    ((j, size),) = total.limits
    factors = factors_of(total.body)
    for f in factors:
        d = 1 - f
        i = next((a for a in d.args if a != j), None) if isinstance(d, Delta) and j in d.args else None
        body = Mul(*[g for g in factors if g is not f])
        same = isinstance(i, Index) and c.ranges.get(i) == size
        there = written_out(body, known).xreplace({j: i}) if same else None
        if there is not None and there == written_out(rest, known):
            return cast("Expr", total.func(body, *total.args[1:]))
    return None


def written_out(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with the definitions of what it reads."""
    return within(e, elementwise_cells(known))


def within(e: Any, usable: Mapping[str, Cell]) -> Any:
    """An expression with the definitions of these cells in it, and in them."""
    for _ in range(DEPTH):
        step = substituted(e, usable)
        if step == e:
            break
        e = step
    return e


__all__ = ["RULE", "completed"]
