# pyright: basic
"""What is divided by a sum of exponentials, as the exponential of a difference of logarithms: exp(f) / z is exp(f - log z).

So is a quotient of two sums, and every product of powers of exponentials and such sums. exp(f) and z overflow where the quotient
does not, and log z, which kernels of torch compute, does not at all. A share, where exp(f) is one of what z adds up, stays one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.completed import without
from codegen.closed.definitions.logistic import gate_argument
from codegen.closed.definitions.several import exponent_of, flattened
from codegen.closed.definitions.shares import reduction
from codegen.closed.regions.cells import Cell, at, is_contraction
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, fresh, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.region import Region

RULE = "exp(f) / z is exp(f - log z) for a sum z of exponentials, so that neither overflows"


def in_logarithms(region: Region, kept: tuple[str, ...]) -> Region | None:
    """The region with such quotients by logarithms, without what only they have read; None where there is none."""
    writing = Writing()
    before = list(region.cells)
    cells = without(writing.written(flattened(before)), before, kept)
    return region.by(RULE, lambda _: cells) if writing.changed else None


@dataclass
class Writing:
    """The cells so far, those added to them, and the logarithms of sums among them."""

    known: dict[str, Cell] = field(default_factory=dict[str, Cell])
    out: list[Cell] = field(default_factory=list[Cell])
    logarithms: dict[str, Cell] = field(default_factory=dict[str, Cell])
    taken: set[str] = field(default_factory=set[str])
    changed: bool = False

    def written(self, cells: list[Cell]) -> list[Cell]:
        """The cells with quotients by logarithms, which are cells before those that read them."""
        self.taken = {c.name for c in cells}
        for c in cells:
            own = c.expr is not None and c.kind == "float" and not c.call and not is_contraction(c.expr)
            if own and not self.is_gate(c):
                new = self.of(c.expr, c)
                if new != c.expr:
                    c, self.changed = replace(c, expr=new, text=None), True
            self.known[c.name] = c
            self.out.append(c)
            if c.expr is not None and isinstance(c.expr, sp.log) and isinstance(c.expr.args[0], Indexed):
                self.learn(c, c.expr.args[0])
        return self.out

    def learn(self, c: Cell, z: Indexed) -> None:
        """A cell that is the logarithm of another one."""
        order = [i for i in z.indices if i != 0]
        if len(set(order)) == len(order) and set(order) == {i for i in c.indices if i != 0}:
            self.logarithms.setdefault(name_of(z), replace(c, expr=z))

    def of(self, e: Any, c: Cell) -> Any:
        """An expression of a cell with its quotients by logarithms."""
        if isinstance(e, Indexed) or not e.args:
            return e
        if isinstance(e, (Mul, sp.Pow)) and not isinstance(e, sp.exp):
            new = self.quotient(e, c)
            if new is not None:
                return new
        return rebuilt(e, lambda a: self.of(a, c))

    def quotient(self, e: Any, c: Cell) -> Any:
        """A product of powers with the exponentials in it as one; None where none of these is divided by."""
        rest: list[Any] = []
        made: list[Any] = []
        for f in Mul.make_args(e):
            (made if f.atoms(Indexed) and self.exponential(f) else rest).append(f)
        whole = Mul(*made)
        several = sum(exponent_of(f, self.known) is not None for f in made) > 1
        if not made or not (several or self.divides(whole)) or not all(i in c.ranges for i in e.atoms(Index)):
            return None
        for top in [f for f in Mul.make_args(e) if self.is_mixed(f)]:
            terms = at(cast("Cell", self.inside(top)), top.indices)
            return sp.Add(*[self.part(t * e / top, c) for t in sp.Add.make_args(terms)])
        return e if self.is_share(whole) else Mul(*rest) * self.exponent(whole, c)

    def is_mixed(self, e: Any) -> bool:
        """Whether a factor is a cell that adds multiples of exponentials up, of whatever sign."""
        cell = self.inside(e)
        terms = cell.expr.args if cell is not None and isinstance(cell.expr, sp.Add) else ()
        return any(isinstance(self.inside(f), Cell) and self.exponential(f) for t in terms for f in Mul.make_args(t))

    def part(self, e: Any, c: Cell) -> Any:
        """One term of a quotient: a share is a cell of its own, which others read too."""
        made = Mul(*[f for f in Mul.make_args(e) if f.atoms(Indexed) and self.exponential(f)])
        if not self.is_share(made):
            return e / made * self.exponent(made, c)
        return e / made * self.cell(made, c, "share", positive=True)

    def exponent(self, e: Any, c: Cell) -> Any:
        """A product of powers of exponentials as one; written out, exp(f - log z) were exp(f) / z."""
        return sp.exp(self.cell(self.logarithm(e), c, "exponent"))

    def cell(self, e: Any, c: Cell, label: str, positive: bool = False) -> Any:
        """A part of a cell as one of its own."""
        ranges = c.ranges
        free = [i for i in c.indices if i != 0 and i in e.free_symbols]
        own = {i: fresh() for i in free}
        name = free_name(f"{c.name}_{label}", self.taken)
        self.add(
            replace(
                c,
                name=name,
                indices=tuple(own[i] for i in free),
                shape=tuple(ranges[cast("Index", i)] for i in free),
                expr=e.xreplace(own),
                node=None,
                text=None,
                named=False,
                positive=positive,
            )
        )
        return self.known[name].element(free)

    def add(self, c: Cell) -> None:
        """One more cell."""
        self.taken.add(c.name)
        self.known[c.name] = c
        self.out.append(c)

    def exponential(self, e: Any) -> bool:
        """Whether an expression is a product of powers of exponentials, sums of such and positive numbers."""
        if isinstance(e, sp.exp):
            return True
        if not e.atoms(Indexed) and not e.atoms(Index):
            return bool(e.is_positive)
        if isinstance(e, Mul):
            return all(self.exponential(f) for f in e.args)
        if isinstance(e, sp.Pow):
            return bool(e.exp.is_number) and self.exponential(e.base)
        cell = self.inside(e)
        return cell is not None and not self.is_gate(cell) and (self.adds(cell) or self.exponential(cell.expr))

    def is_gate(self, c: Cell) -> bool:
        """Whether a cell is a sigmoid, which does not overflow: a quotient of gates stays one."""
        below = self.inside(c.expr.base) if isinstance(c.expr, sp.Pow) else None
        whole = c.expr if below is None else at(below, cast("Any", c.expr).base.indices) ** cast("Any", c.expr).exp
        return gate_argument(whole) is not None

    def inside(self, e: Any) -> Cell | None:
        """The cell that an expression reads, where its definition may be looked into."""
        cell = self.known.get(name_of(e)) if isinstance(e, Indexed) else None
        return cell if cell is not None and cell.expr is not None and not cell.call and cell.kind == "float" else None

    def adds(self, c: Cell) -> bool:
        """Whether a cell is a sum of exponentials, over an axis or one after the other."""
        number, total = reduction(c.expr)
        if total is not None:
            return bool(number.is_positive) and self.exponential(total.body)
        return isinstance(c.expr, sp.Add) and all(self.exponential(t) for t in c.expr.args)

    def divides(self, e: Any) -> bool:
        """Whether a sum of exponentials is divided by in a product."""
        for f in Mul.make_args(e):
            b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
            cell = self.inside(b)
            if cell is not None and ((x.is_negative and self.adds(cell)) or self.divides(at(cell, b.indices) ** x)):
                return True
        return False

    def is_share(self, e: Any) -> bool:
        """Whether a product is one exponential over the sum that it is a part of."""
        bottoms = [f.base for f in Mul.make_args(e) if isinstance(f, sp.Pow) and f.exp == -1 and self.inside(f.base)]
        if len(bottoms) != 1:
            return False
        z = cast("Cell", self.inside(bottoms[0]))
        top = exponent_of(e * bottoms[0], self.known)
        total = reduction(z.expr)[1]
        if total is not None:
            body = replace(z, indices=(*z.indices, *[i for i, _ in total.limits]), expr=total.body)
            exponent = exponent_of(body.expr, self.known)
            return top is not None and exponent is not None and holding(body, exponent, top) is not None
        parts = [cast("Any", t).as_coeff_Mul()[1] for t in cast("Any", at(z, bottoms[0].indices)).args]
        return top is not None and any(exponent_of(t, self.known) == top for t in parts)

    def logarithm(self, e: Any) -> Any:
        """The logarithm of such a product, in which those of sums are cells."""
        if isinstance(e, sp.exp):
            return e.args[0]
        if isinstance(e, Mul):
            return sp.Add(*[self.logarithm(f) for f in e.args])
        if isinstance(e, sp.Pow):
            return e.exp * self.logarithm(e.base)
        cell = self.inside(e)
        if cell is None:
            return sp.log(e)
        if not self.adds(cell):
            return self.logarithm(at(cell, e.indices))
        if cell.name not in self.logarithms:
            own = {i: fresh() for i in cell.indices if i != 0}
            indices = tuple(own.get(i, i) for i in cell.indices)
            name = free_name(f"{cell.name}_log", self.taken)
            plain = replace(cell, name=name, indices=indices, node=None, text=None, named=False, positive=False)
            self.add(replace(plain, expr=sp.log(cell.element(indices))))
            self.learn(self.known[name], cell.element(indices))
        held = self.logarithms[cell.name]
        there = dict(zip(cast("Any", held.expr).indices, e.indices, strict=True))
        return self.known[held.name].element([there.get(i, i) for i in held.indices])


__all__ = ["RULE", "in_logarithms"]
