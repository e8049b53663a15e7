# pyright: basic
"""Lengths as torch takes them, `0 if Sum x^2 = 0 else sqrt(Sum x^2)`: one call, and the sum of squares is told by what comes out.

Where a length is at least some positive number, as where one divides by no less, it is not 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Equal, LessEqual, Sigma, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from codegen.closed.regions.cells import Cell

NORM = "a length is one call of torch"
SQUARED = "the square of a length is the sum of squares"
"""The rules, as the trail of the forward names them."""


def square_of(cell: Cell | None) -> Indexed | None:
    """s of a cell that is `0 if s = 0 else sqrt(s)`."""
    e: Any = None if cell is None else cell.expr
    if not isinstance(e, Where) or not isinstance(e.args[0], Equal) or e.args[0].args[1] != 0 or e.args[1] != 0:
        return None
    s = e.args[0].args[0]
    return s if isinstance(s, Indexed) and e.args[2] == sp.sqrt(s) else None


def lengths(cells: Mapping[str, Cell]) -> dict[str, tuple[Cell, Indexed]]:
    """By the name of a sum of squares, the cell that is its root, and what that cell reads."""
    found = ((c, square_of(c)) for c in cells.values())
    return {name_of(s): (c, s) for c, s in found if s is not None and is_square(cells.get(name_of(s)))}


def is_square(cell: Cell | None) -> bool:
    """Whether a cell is a sum of squares."""
    return cell is not None and isinstance(cell.expr, Sigma) and cell.expr.body.as_base_exp()[1] == 2


def by_lengths(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with powers of sums of squares as powers of their roots, where cells are these."""
    known = lengths(cells)
    return without_zeros(told(e, known)) if any(name_of(a) in known for a in accesses(e)) else e


def told(e: Any, known: Mapping[str, tuple[Cell, Indexed]]) -> Any:
    """An expression with the roots read in the place of what they are roots of."""
    if isinstance(e, Equal) and e.args[1] == 0:
        root = root_of(e.args[0], known)
        return e if root is None else Equal(root, 0)
    base, power = e.args if isinstance(e, sp.Pow) else (e, sp.S.One)
    root = root_of(base, known)
    if root is not None:
        return root ** (2 * power)
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, lambda a: told(a, known))


def root_of(e: Any, known: Mapping[str, tuple[Cell, Indexed]]) -> Indexed | None:
    """The element of a cell that is the root of an element."""
    if not isinstance(e, Indexed) or name_of(e) not in known:
        return None
    cell, read = known[name_of(e)]
    return holding(cell, read, e)


def without_zeros(e: Any) -> Any:
    """`[c <= r] (0 if r = 0 else f)` as `f if c <= r else 0` for a positive number c, and numbers where f is."""
    if isinstance(e, Indexed) or not e.args or not e.has(Where):
        return e
    e = rebuilt(e, without_zeros)
    if not isinstance(e, sp.Mul):
        return e
    number, rest = e.as_coeff_Mul()
    choice = next((w for w in sp.Mul.make_args(rest) if isinstance(w, Where) and is_length(w)), None)
    if choice is None:
        return e
    condition, _, chosen = choice.args
    bounds = (b for b in sp.Mul.make_args(rest) if isinstance(b, LessEqual))
    least = next((b for b in bounds if b.args[1] == condition.args[0] and b.args[0].is_positive), None)
    others = [sp.sign(number), *[f for f in sp.Mul.make_args(rest) if f is not choice and f is not least]]
    number = abs(number)
    own = Where(condition, 0, number * chosen) if least is None else Where(least, number * chosen, 0)
    return sp.Mul(own, *others)


def is_length(w: Any) -> bool:
    """Whether a choice is 0 where a tensor is."""
    return isinstance(w.args[0], Equal) and w.args[0].args[1] == w.args[1] == 0


def length_in_whole(cell: Cell, known: Mapping[str, Cell], needed: Container[str]) -> Any:
    """The definition of a length with its sum of squares written out, where nothing else reads that."""
    s = square_of(cell)
    if s is None or name_of(s) in needed or not is_square(known.get(name_of(s))):
        return cell.expr
    others = (c for c in known.values() if c.name != cell.name and c.expr is not None and name_of(s) in c.reads)
    return cell.expr if any(others) else substituted(cell.expr, {name_of(s): known[name_of(s)]})


def squared(cells: list[Cell]) -> list[Cell]:
    """The cells with even powers of lengths as powers of the sums of squares that they are roots of."""
    roots = {c.name: (c, s) for c in cells for s in [square_of(c)] if s is not None}
    out: list[Cell] = []
    for c in cells:
        powers: list[Any] = [] if c.expr is None or c.call else [*c.expr.atoms(sp.Pow)]
        even = [p for p in powers if isinstance(p.base, Indexed) and name_of(p.base) in roots and p.exp.is_even]
        change: dict[Any, Any] = {}
        for p in (p for p in even if p.exp.is_positive):
            root, read = roots[name_of(p.base)]
            own = dict(zip(root.indices, p.base.indices, strict=False))
            change[p] = read.xreplace({i: j for i, j in own.items() if i != 0}) ** (p.exp / 2)
        out.append(replace(c, expr=cast("Any", c.expr).xreplace(change), text=None) if change else c)
    return out


__all__ = ["NORM", "SQUARED", "by_lengths", "length_in_whole", "squared"]
