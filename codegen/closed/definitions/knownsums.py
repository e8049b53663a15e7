# pyright: basic
"""Sums told by sums that are there: with `t = Sum p y`, `Sum (1 - y) p` is `Sum p - t`, which reads one tensor once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.sums import summed_term
from codegen.closed.algebra.terms import expanded
from codegen.closed.regions.cells import Cell, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Sigma, base, element, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Container

RULE = "a sum is told by sums that are there already"
DEPTH = 2
"""How far the summands are written out."""


def by_known_sums(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """Cells that sum products of sums, as sums that are known and at most one more, of a tensor as it is, in a cell of its own.

    Where sums are subtracted digits may be lost, so that this is done only where in all that reads them they are added up:
    `t + 0.3 (Sum p - t)` is fine, `Sum p - t` by itself is not. Cells that are `kept` are read from elsewhere.

    Tensors that several cells read, as the `p + b` of `Sum (p + b) y` and `Sum (p + b) (1 - y)`, stay as they are, unless more
    sums are told where they are written out.
    """
    readers = Counter(r for c in cells for r in c.reads)
    several = {n for n, count in readers.items() if count > 1}
    best, most = cells, 0
    for whole in (several, set[str]()) if several else (set[str](),):
        out = rewritten(cells, whole)
        changed = {c.name for c, d in ((c, d) for c in cells for d in out if d.name == c.name) if c.expr != d.expr}
        if len(changed) > most and adds_up(out, changed, kept):
            best, most = out, len(changed)
    return best


def adds_up(cells: list[Cell], changed: set[str], kept: tuple[str, ...]) -> bool:
    """Whether every sum of what was changed that something else than a sum reads has one sign in all sums that it is made of."""
    forms: dict[str, dict[str, Any]] = {}
    reached = set(changed)
    for c in cells:
        found = linear(c.expr)
        if found is None:
            forms[c.name] = {c.name: sp.S.One}
            continue
        reached |= {c.name} if reached & set(found) else set()
        form: dict[str, Any] = {}
        for name, number in found.items():
            for base_name, coefficient in forms.get(name, {name: sp.S.One}).items():
                form[base_name] = form.get(base_name, sp.S.Zero) + number * coefficient
        forms[c.name] = form
    for name in reached:
        readers = [c for c in cells if name in c.reads]
        alone = name in kept or not readers or any(linear(c.expr) is None for c in readers)
        signs = {x.is_positive for x in forms[name].values() if x != 0}
        if alone and len(signs) > 1:
            return False
    return True


def linear(e: Expr | None) -> dict[str, Any] | None:
    """The tensors of a sum of multiples of tensors, with what they are multiplied by; None for anything else."""
    if e is None:
        return None
    found: dict[str, Any] = {}
    for t in sp.Add.make_args(e):
        number, rest = t.as_coeff_Mul()
        if isinstance(rest, Indexed):
            found[name_of(rest)] = found.get(name_of(rest), sp.S.Zero) + number
        elif not t.is_number:
            return None
    return found or None


def rewritten(cells: list[Cell], whole: Container[str]) -> list[Cell]:
    """The cells with every sum that is told by others so. Those of the names `whole` are not written out."""
    taken = {c.name for c in cells}
    inside: dict[str, Cell] = {}
    sums: dict[Any, tuple[Cell, tuple[Any, ...], Expr]] = {}
    out: list[Cell] = []
    for c in cells:
        scale, total = reduction(c.expr)
        if total is not None:
            parts = told(total, inside, sums)
            if parts is not None:
                known, left = parts
                value: Any = known
                for body, number in left:
                    name = free_name(f"{c.name}_sum", taken)
                    taken.add(name)
                    own = tuple(i if i == 0 else fresh() for i in c.indices)
                    there = {i: j for i, j in zip(c.indices, own, strict=True) if i != 0}
                    extra = replace(
                        c, name=name, indices=own, expr=body.xreplace(there), node=None, named=False, text=None
                    )
                    out.append(extra)
                    remember(extra, inside, sums)
                    value += number * element(base(name), list(c.indices))
                c = replace(c, expr=scale * value)
            else:
                remember(c, inside, sums)
        if c.name not in whole:
            inside[c.name] = c
        out.append(c)
    return out


def reduction(e: Expr | None) -> tuple[Any, Sigma | None]:
    """(c, sum) of a definition c * sum."""
    sums = [] if e is None else [f for f in Mul.make_args(e) if isinstance(f, Sigma)]
    rest = sp.S.One if e is None else Mul(*[f for f in Mul.make_args(e) if not isinstance(f, Sigma)])
    return (rest, sums[0]) if len(sums) == 1 and not rest.has(Indexed) else (sp.S.One, None)


def remember(c: Cell, before: dict[str, Cell], sums: dict[Any, tuple[Cell, tuple[Any, ...], Expr]]) -> None:
    """A cell by the sum of one product that it is."""
    scale, total = reduction(c.expr)
    terms = [] if total is None else written(total, before)
    if total is not None and len(terms) == 1:
        number, rest = cast("Any", terms[0]).as_coeff_Mul()
        whole = summed_term(rest, list(total.limits), dict(total.limits))
        if isinstance(whole, Sigma):
            key, own = fact_key(whole)
            sums.setdefault(key, (c, own, scale * number))


def written(total: Sigma, before: dict[str, Cell]) -> tuple[Any, ...]:
    """The terms of what is summed, with products and sums of products written out."""
    small = {
        n: c for n, c in before.items() if c.expr is not None and c.kind == "float" and not c.call and plain(c.expr)
    }
    body: Any = total.body
    for _ in range(DEPTH):
        body = expanded(substituted(body, small))
    return sp.Add.make_args(body)


def told(
    total: Sigma, before: dict[str, Cell], sums: dict[Any, tuple[Cell, tuple[Any, ...], Expr]]
) -> tuple[Expr, list[tuple[Expr, Expr]]] | None:
    """What is known of a sum, and the sums of one tensor that are not, with what they are multiplied by; None where that is no gain."""
    terms = written(total, before)
    if len(terms) < 2:
        return None
    known: Any = sp.S.Zero
    left: list[tuple[Expr, Expr]] = []
    for t in terms:
        number, rest = t.as_coeff_Mul()
        s = summed_term(cast("Expr", rest), list(total.limits), dict(total.limits))
        if not isinstance(s, Sigma):
            return None
        key, free = fact_key(s)
        if key in sums:
            cell, own, scale = sums[key]
            there = dict(zip(own, free, strict=True))
            known += number / scale * cell.element([there.get(i, i) for i in cell.indices])
        elif isinstance(rest, Indexed):
            left.append((s, cast("Expr", number)))
        else:
            return None
    return (cast("Expr", known), left) if known != 0 and len(left) < 2 else None


def plain(e: Expr) -> bool:
    """A product of tensors, or a sum of such and of numbers."""
    return all(
        all(isinstance(f, Indexed) or f.is_number for f in Mul.make_args(t)) for t in sp.Add.make_args(e)
    ) and not isinstance(e, Indexed)


__all__ = ["RULE", "by_known_sums"]
