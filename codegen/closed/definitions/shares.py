# pyright: basic
"""Definitions read backwards, so that an exponential is told by what it was made into, which does not overflow.

`p = e / z` with `z = Sum e` says e = p z (p is a share: it sums to one); `p = 1 / (a + b e)` says e = (1/p - a) / b.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import determined, holding, matched
from codegen.closed.algebra.terms import is_monomial, powers, scalar_part
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.notation import Index, Sigma, accesses, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class Shares:
    """What atoms are by definitions of cells read backwards: (atom, free indices, value, cell)."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells = cells
        self.known: list[tuple[Expr, tuple[Index, ...], Expr, str]] = []
        for cell in cells.values():
            self.learn(cell)

    @property
    def names(self) -> set[str]:
        """The cells by which atoms are told."""
        return {name for _, _, _, name in self.known}

    def of(self, e: Expr) -> tuple[Expr, str] | None:
        """What an atom is, and by which cell's definition."""
        for atom, free, value, name in self.known:
            mapping = determined(atom, e, free) if atom.func is e.func else None
            if mapping is not None:
                return instantiate(value, mapping), name
        return None

    def learn(self, cell: Cell) -> None:
        """What a cell's definition says when it is read backwards."""
        e = cell.expr
        if e is None or cell.kind != "float" or not is_monomial(e):
            return
        table = powers(e)
        bottoms = [b for b, x in table.items() if x == -1 and isinstance(b, Indexed)]
        if len(bottoms) != 1:
            return
        bottom = bottoms[0]
        z = self.cells.get(name_of(bottom))
        if z is None or z.expr is None:
            return
        tops = [b for b, x in table.items() if x == 1]
        coefficient, total = reduction(z.expr)
        if total is not None and coefficient == 1 and len(tops) == 1 and len(table) == 2 and self.exponential(tops[0]):
            self.learn_share(cell, z, bottom, tops[0])
        elif len(table) == 1 and isinstance(z.expr, sp.Add):
            self.learn_moebius(cell, z, bottom)
        elif len(tops) == 1 and len(table) == 2 and scalar_part(e) == 1 and isinstance(z.expr, sp.Add):
            self.learn_part(cell, z, bottom, tops[0])

    def learn_share(self, cell: Cell, z: Cell, bottom: Indexed, top: Expr) -> None:
        """`p = c e / z` with `z = Sum e`: e = p z / c."""
        free = free_indices(cell)
        inner = at(z, bottom.indices)
        body = inner.body if isinstance(inner, Sigma) else None
        if body is None or self.has(top):
            return
        if matched(self.written(top), self.written(body), set(free)) is not None:
            self.put(top, free, cell.element(cell.indices) * bottom / scalar_part(cast("Expr", cell.expr)), cell.name)

    def learn_moebius(self, cell: Cell, z: Cell, bottom: Indexed) -> None:
        """`p = c / (a + b e)`: e = (c/p - a) / b."""
        own, free = cell.element(cell.indices), free_indices(cell)
        parts = sp.Add.make_args(at(z, bottom.indices))
        moving = [t for t in parts if accesses(t)]
        fixed = sp.Add(*[t for t in parts if not accesses(t)])
        if len(moving) != 1 or not fixed.is_number:
            return
        b, atom = moving[0].as_coeff_Mul()
        if not self.exponential(atom) or not set(free) <= atom.free_symbols:
            return
        c = scalar_part(cast("Expr", cell.expr))
        self.put(atom, free, ((c / own - fixed) / b), cell.name)
        self.put(bottom, free, (c / own), cell.name)

    def learn_part(self, cell: Cell, z: Cell, bottom: Indexed, top: Expr) -> None:
        """`p = e / z` with `z = e + f`, both exponentials: e = p z and f = (1 - p) z."""
        own, free = cell.element(cell.indices), free_indices(cell)
        parts = sp.Add.make_args(at(z, bottom.indices))
        others = [t for t in parts if t != top]
        if len(parts) != 2 or len(others) != 1 or any(self.has(t) for t in parts):
            return
        if all(self.exponential(t) and set(free) <= t.free_symbols for t in parts):
            self.put(top, free, (own * bottom), cell.name)
            self.put(others[0], free, ((1 - own) * bottom), cell.name)

    def has(self, e: Expr) -> bool:
        """Whether an atom is told already."""
        return any(matched(atom, e, set(free)) is not None for atom, free, _, _ in self.known)

    def exponential(self, e: Expr) -> bool:
        """An exponential, or an access to a cell that is one."""
        return exponential(e, self.cells)

    def written(self, e: Any) -> Expr:
        """An exponential as one, also where it is read from a cell that is one."""
        return at(self.cells[name_of(e)], e.indices) if isinstance(e, Indexed) and self.exponential(e) else e

    def put(self, atom: Expr, free: tuple[Index, ...], value: Expr, name: str) -> None:
        """`atom` is `value`; the cell `name` is a generator from now on, and so are all spellings of the atom replaced."""
        atoms = [atom]
        if isinstance(atom, Indexed):
            cell = self.cells[name_of(atom)]
            if isinstance(cell.expr, sp.exp):
                atoms.append(at(cell, atom.indices))
        else:
            written = [c for c in self.cells.values() if isinstance(c.expr, sp.exp)]
            found = [holding(c, cast("Expr", c.expr), atom) for c in written]
            atoms.extend(a for a in found if a is not None)
        self.known.extend((a, free, value, name) for a in atoms)


def free_indices(cell: Cell) -> tuple[Index, ...]:
    """The indices of a cell that run."""
    return tuple(cast("Index", i) for i in cell.indices if i != 0)


def exponential(e: Expr, cells: Mapping[str, Cell]) -> bool:
    """An exponential, or an access to a cell that is one."""
    if isinstance(e, sp.exp):
        return True
    cell = cells.get(name_of(e)) if isinstance(e, Indexed) else None
    return cell is not None and isinstance(cell.expr, sp.exp)


def held(total: Sigma, known: dict[str, Cell]) -> Indexed | None:
    """The element of a cell that is a sum."""
    exponentials = {n: c for n, c in known.items() if isinstance(c.expr, sp.exp)}
    written = substituted(total, exponentials)
    for cell in known.values():
        whole = substituted(cell.expr, exponentials) if isinstance(cell.expr, Sigma) else None
        own = None if whole is None else holding(cell, whole, written)
        if own is not None:
            return own
    return None


def reduction(e: Any) -> tuple[Expr, Sigma | None]:
    """(c, sum) of a definition c * sum."""
    sums = [f for f in Mul.make_args(e) if isinstance(f, Sigma)]
    rest = cast("Expr", Mul(*[f for f in Mul.make_args(e) if not isinstance(f, Sigma)]))
    fixed = not rest.has(Indexed) and not rest.atoms(Index)
    return (rest, sums[0]) if len(sums) == 1 and fixed else (sp.S.One, None)


__all__ = ["Shares", "exponential", "held", "reduction"]
