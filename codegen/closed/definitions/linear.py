# pyright: basic
"""Sums of multiples of tensors in one another, where what they have in common comes together: `2 ((e + 1) / 2) - 1` is e.

`r - (s - r) / (k - 1)` is `k / (k - 1) r - s / (k - 1)`, which reads r once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.notation import Index, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "sums of multiples of the same come together"


LEAST = 1e-3
"""How much of a sum of numbers each of them is at least, so that a float of the sum has enough of its digits."""


def collected(cells: list[Cell], kept: tuple[str, ...], careful: bool = False) -> list[Cell]:
    """The cells without sums and multiples that another sum alone reads, where terms come together. `kept` cells stay.

    What others read, too, is written out where one term is left: with `u = m + t`, `u - m` is t. Where that is `careful`, small
    numbers stay apart from large ones: 1 - h + 1e-7 is not 1.0000001 - h, which is rounded.
    """
    readers = Counter(r for c in cells for r in c.reads)
    known = {c.name: c for c in cells}
    linear = {n for n, c in known.items() if is_linear(c)}
    within = {r for n in linear for r in within_terms(known[n])}  # which is read there even if all else is written out
    alone = {n for n, c in known.items() if readers[n] == 1 and n not in kept and n in linear} - within
    gone: set[str] = set()
    for c in reversed(cells):
        if c.name not in gone and isinstance(c.expr, sp.Add) and is_linear(c):
            terms, count, taken = written_out(c, alone, known, careful)
            if len(terms) < count and any(what.has(Indexed) for what in terms):
                numbers = {what: sp.factor(number) for what, number in terms.items()}
                known[c.name] = replace(c, expr=sp.Add(*[n * what for what, n in numbers.items()]), text=None)
                gone |= taken
                continue
            single, _, others = written_out(c, linear, known, careful)
            if len(single) == 1 and all(what.has(Indexed) for what in single) and others.isdisjoint(alone):
                ((what, number),) = single.items()
                known[c.name] = replace(c, expr=sp.factor(number) * what, text=None)
    changed = any(known[c.name] is not c for c in cells)
    copies = {c.name for c in cells if known[c.name] is not c and isinstance(known[c.name].expr, Indexed)} - {*kept}
    left = [known[c.name] for c in cells if c.name not in gone]
    return without_factors(left, kept, copies) if copies else left if changed else cells


def without_factors(cells: list[Cell], kept: tuple[str, ...], copies: set[str]) -> list[Cell]:
    """The cells without copies, and without those that are a product over one of its factors, which is positive: of `(e s) / s` e is left."""
    known = {c.name: c for c in cells}
    gone: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        if any(n in gone for n in c.reads):
            c = replace(c, expr=substituted(c.expr, gone), text=None)
        if c.name in copies:
            gone[c.name] = c
            continue
        factors = (
            [f.as_base_exp() for f in sp.Mul.make_args(c.expr)] if c.kind == "float" and c.expr is not None else []
        )
        if c.name not in kept and len(factors) == 2 and {p for _, p in factors} == {1, -1}:
            ((over, _), (under, _)) = sorted(factors, key=lambda f: -f[1])
            whole = known.get(name_of(over)) if isinstance(over, Indexed) else None
            if (
                whole is not None
                and isinstance(whole.expr, sp.Mul)
                and under.is_positive
                and isinstance(under, Indexed)
            ):
                rest = at(whole, over.indices) / under
                if isinstance(rest, Indexed):
                    gone[c.name] = replace(c, expr=rest)
                    continue
        out.append(c)
    return out


def is_linear(c: Cell) -> bool:
    """Whether a cell is a sum of terms, each a multiple of one tensor or function, or a number."""
    if c.expr is None or c.call or c.kind != "float" or isinstance(c.expr, Indexed):
        return False
    return all(multiple(t) is not None for t in sp.Add.make_args(c.expr))


def within_terms(c: Cell) -> set[str]:
    """What a sum reads elsewhere than as a term: inside of functions, and in sums over an axis."""
    terms = [cast("Any", multiple(t))[0] for t in sp.Add.make_args(cast("Any", c.expr))]
    return {name_of(a) for what in terms if not isinstance(what, Indexed) for a in accesses(what)}


def multiple(term: Any) -> tuple[Any, Any] | None:
    """What a term is a multiple of, and by what, a number or sizes; None where it is a product of several tensors, or a power."""
    moving = [f for f in sp.Mul.make_args(term) if f.has(Indexed) or f.atoms(Index)]
    if len(moving) > 1 or any(isinstance(f, sp.Pow) and not isinstance(f, sp.exp) for f in moving):
        return None
    what = sp.Mul(*moving)
    return what, term / what


def written_out(
    c: Cell, alone: set[str], known: Mapping[str, Cell], careful: bool
) -> tuple[dict[Any, Any], int, set[str]]:
    """A sum as what it is a multiple of, by what, with cells that are read `alone` as what they are; how many terms these were; and the cells."""
    terms: dict[Any, Any] = {}
    numbers: list[Any] = []
    count, taken = 0, set[str]()
    stack = [(t, sp.S.One) for t in sp.Add.make_args(c.expr)]
    while stack:
        term, by = stack.pop()
        what, number = cast("Any", multiple(term))
        d = known[name_of(what)] if isinstance(what, Indexed) and name_of(what) in alone else None
        if d is not None and (d.differentiable, d.dtype) == (c.differentiable, c.dtype):
            taken.add(d.name)
            stack.extend((t, by * number) for t in sp.Add.make_args(at(d, cast("Any", what).indices)))
            continue
        count += 1
        numbers += [by * number] if what == 1 else []
        terms[what] = sp.expand(terms.get(what, 0) + by * number)
    if careful and is_lost(numbers):
        return {}, 0, taken
    return {what: n for what, n in terms.items() if n != 0}, count, taken


def is_lost(numbers: list[Any]) -> bool:
    """Whether one of several numbers is so small beside all together that these would not have its digits: of 1 + 1e-7."""
    total = sp.Add(*numbers)
    return bool(total.is_number) and any(n != 0 and abs(n) < LEAST * abs(total) for n in numbers)


__all__ = ["RULE", "collected"]
