# pyright: basic
"""The simplifier: everything in generators, sums normalised and replaced by what is known of them.

A region's cells give it everything it knows. Three kinds of definition are told apart by their form alone:

- a product of powers (`xhat = u * r`, `s = r^-2`, `p = e / z`) is a relation between monomials, used to bring every term
  to the same generators, where what cancels cancels, and afterwards to name what is left in the cheapest way;
- a sum over an axis (`z = Sum_j e`) is a fact about its body, and every other cell is summed over each of its axes to see
  what facts follow (`Sum_j p = 1`, `Sum_i (x - m) = 0`, `Sum_i xhat^2 = n v r^2`);
- everything else (`x - m`, `tanh(z)`) is a generator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.facts import (
    Facts,
    divisors,
    learn_axes,
    learn_means,
    learn_sum,
    learn_weighted,
    single_sum,
    summed_together,
)
from codegen.closed.algebra.gated import gated, sigmoid_cells
from codegen.closed.algebra.masks import at_places, masked_product, unmasked, within_choice
from codegen.closed.algebra.matching import by_shape, holding
from codegen.closed.algebra.mirrored import parities
from codegen.closed.algebra.sums import PUT, gathered_up, rebuilt, summed_term
from codegen.closed.algebra.terms import expanded, is_monomial
from codegen.closed.algebra.ties import RULE, as_sign
from codegen.closed.definitions.outer import RULE as APART
from codegen.closed.definitions.outer import outer_differences, taken_apart
from codegen.closed.definitions.shares import Shares, exponential, reduction
from codegen.closed.regions.cells import Cell, at
from codegen.closed.regions.constants import learn
from codegen.lowering.ranges import simplified
from engine.indexed import Indexed
from engine.notation import BRACKETS, Amax, Delta, Equal, Head, Index, Less, Sigma, Sign, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from codegen.closed.regions.constants import Sums


class Algebra:
    """What is known of the cells of a region, and simplification by it."""

    def __init__(
        self,
        cells: Mapping[str, Cell],
        values: Mapping[Any, int],
        relations: Sequence[tuple[Expr, Expr]] = (),
        folds: bool = True,
        apart: bool = True,
        sums: Sums = (),
        kept: Collection[str] = (),
        masked: bool = False,
        signs: bool = True,
    ) -> None:
        """With `folds` a sum over what a cell of the region sums is that cell; without, it is summed anew.

        With `apart` a sum of outer differences is a difference of sums, which are `masked` where the difference is zero.
        With `signs` a choice by which of two is larger is made of the sign of their difference.
        `sums` are known from elsewhere.
        The cells `kept` are tensors in the forward in any case, as others read them.
        """
        self.kept = frozenset(kept)
        self.cells = dict(cells)
        self.values = dict(values)
        self.folds = folds
        self.signs = signs
        self.outer = outer_differences(self.cells, masked) if apart else {}
        self.down: dict[str, Cell] = {}
        """Cells that are products of powers, by what they are in generators."""
        self.ups: list[Cell] = []
        """The same cells as they are defined: they name products."""
        self.masked: dict[str, Cell] = {}
        """Cells that are such products where a truth holds, else zero, as the products with the truth that they name."""
        self.rules: list[str] = []
        self.memo: dict[Any, Expr] = {}
        self.interned: dict[Any, Sigma] = {}
        self.facts = Facts()
        self.facts.pairs = parities(self.cells.values())
        self.shares = Shares(self.cells)
        self.sigmoids = sigmoid_cells(self.cells)
        self.written = written_out(self.cells.values())
        learn(self, sums)
        together = summed_together(self.cells.values())
        for cell in self.cells.values():
            self.learn(cell, together)
        self.learn_of_means(together)
        for left, right in relations:
            self.relate(left, right)

    # -- learning ------------------------------------------------------------------------------------------------

    def learn(self, cell: Cell, together: list[tuple[int, ...]]) -> None:
        """What a cell's definition says."""
        e = cell.expr
        if e is None or cell.kind != "float":
            return
        coefficient, total = reduction(e)
        if total is not None and not (self.folds or exponential(total.body, self.cells)):
            pass
        elif total is not None:
            learn_sum(self, cell, coefficient, total)
        elif is_monomial(e) and not isinstance(e, Indexed) and cell.name not in self.shares.names:
            lowered = self.lowered(e)
            if not isinstance(e, sp.exp) or lowered != e or cell.name in self.written:
                self.down[cell.name] = replace(cell, expr=lowered)
            self.ups.append(cell)
        product = masked_product(e)
        if product is not None:
            self.masked[cell.name] = replace(cell, expr=self.lowered(product))
            self.ups.append(cell)
        if isinstance(e, Indexed) and any(isinstance(i, Indexed) for i in e.indices):
            self.down[cell.name] = replace(cell, expr=self.lowered(e))
            self.ups.append(cell)
        if total is None and cell.shape:
            learn_axes(self, cell, together)
            if isinstance(e, sp.Add) and self.facts.products:
                learn_weighted(self, cell)

    def learn_of_means(self, together: list[tuple[int, ...]]) -> None:
        """What the mean of all says of the means of rows, and what then follows for sums of these: deviations from both."""
        found = [(c, *reduction(c.expr)) for c in self.cells.values() if c.expr is not None and c.kind == "float"]
        told = [learn_means(self, c, number, total) for c, number, total in found if total is not None]
        sums = {c.name for c, _, total in found if total is not None}
        nested = any(name_of(total.body) in sums for _, _, total in found if total and isinstance(total.body, Indexed))
        for cell, _, _ in found if nested or any(told) else []:
            if isinstance(cell.expr, sp.Add) and cell.shape:
                learn_axes(self, cell, together)

    def relate(self, left: Expr, right: Expr) -> None:
        """A sum that equals another one because of what reads the region: sums exchanged and folded into a tensor that exists."""
        normal = self.normal(left, {})
        one = single_sum(normal)
        if one is None:
            return
        value = right / (normal / one)
        if divisors(value, self) <= divisors(left, self):
            self.add_fact(one, value, "sums exchanged")

    def add_fact(self, total: Sigma, value: Expr, why: str) -> None:
        """`total` equals `value`, for all values of its free indices."""
        self.facts.add(total, value, why)
        self.memo.clear()

    def note(self, rule: str) -> None:
        """Remember a rule for the trail."""
        if rule not in self.rules:
            self.rules.append(rule)

    # -- normal form ---------------------------------------------------------------------------------------------

    def lowered(self, e: Any) -> Any:
        """An expression in generators: every access to a cell that is a product of powers replaced by its definition."""
        if self.sigmoids and isinstance(e, (sp.Mul, sp.Pow)) and e.has(sp.exp):
            e = gated(e, self)
        if isinstance(e, (Indexed, sp.exp)):
            known = self.shares.of(e)
            if known is not None:
                self.note(f"definition of {known[1]}")
                return self.lowered(known[0])
        if isinstance(e, Indexed):
            cell = self.down.get(name_of(e))
            return e if cell is None else at(cell, e.indices)
        if isinstance(e, (Delta, Index, Equal, Less)) or not e.args:
            return e  # what is compared stays the tensor that the forward compared: another order of operations rounds it differently
        new = rebuilt(e, self.lowered)
        number, rest = new.args[0].as_coeff_Mul() if isinstance(new, Sign) else (sp.S.One, new)
        return Sign(rest) if number is not sp.S.One and number.is_positive else new

    def normal(self, e: Expr, ranges: Mapping[Index, Expr]) -> Expr:
        """Generators only, products expanded, sums taken apart and replaced by what is known of them."""
        key = (e, tuple(ranges.items()))
        if key not in self.memo:
            self.memo[key] = self.normal_form(self.lowered(e), dict(ranges))
        return self.memo[key]

    def normal_form(self, e: Any, ranges: dict[Index, Expr]) -> Any:
        """The same of an expression that is in generators."""
        if isinstance(e, Sigma):
            inner = {**ranges, **dict(e.limits)}
            body = expanded(self.normal_form(e.body, inner))
            return sp.Add(*[self.sum_term(t, list(e.limits), inner) for t in sp.Add.make_args(body)])
        if isinstance(e, (Indexed, Amax)) or not e.args:
            return e
        if isinstance(e, Where):
            condition, chosen, other = e.args
            out = Where(condition, self.normal_form(chosen, ranges), self.normal_form(other, ranges))
            if isinstance(out, Where) and out.args[1] == 0 and any(map(is_place, Mul.make_args(out.args[2]))):
                places = [f for f in Mul.make_args(out.args[2]) if is_place(f)]
                rest = Mul(*[f for f in Mul.make_args(out.args[2]) if f not in places])
                return Mul(*places, Where(condition, 0, rest))
            sign = as_sign(out) if self.signs and isinstance(out, Where) else None
            if sign is None:
                return out
            self.note(RULE)
            return sign
        if isinstance(e, Head):
            return e
        out = rebuilt(e, lambda a: self.normal_form(a, ranges))
        if isinstance(out, (sp.Mul, sp.Pow)):
            out = self.products_of_sums(expanded(out), ranges)
        return out

    def products_of_sums(self, e: Any, ranges: dict[Index, Expr]) -> Any:
        """Products multiplied out, each with what its choices and brackets say."""
        out = simplified(e, ranges)
        if out.has(Where):
            out = sp.Add(*[within_choice(t, ranges, self) for t in sp.Add.make_args(out)])
        return sp.Add(*[self.unmasked(t) for t in sp.Add.make_args(out)]) if out.has(*BRACKETS) else out

    def unmasked(self, term: Any) -> Any:
        """A product without brackets that say nothing."""
        return at_places(unmasked(term, self))

    def sum_term(self, term: Expr, limits: list[tuple[Index, Expr]], ranges: Mapping[Index, Expr]) -> Expr:
        """One product summed: deltas solved, constants in front, then facts."""
        parts = taken_apart(term, [i for i, _ in limits], self.outer) if self.outer else None
        if parts is not None:
            self.note(APART)
            return cast("Expr", sp.Add(*[self.sum_term(p, limits, ranges) for p in parts]))
        there, places = gathered_up(term, limits)
        if places is not limits:
            self.note(PUT)
            whole = Sigma(there, *[sp.Tuple(i, n) for i, n in places]) if places else there
            return self.normal_form(cast("Expr", whole), dict(ranges))
        out = summed_term(term, limits, ranges)
        out = cast("Expr", Mul(*[self.intern(f) if isinstance(f, Sigma) else f for f in Mul.make_args(out)]))
        return self.by_facts(out, ranges)

    def intern(self, s: Sigma) -> Sigma:
        """The first sum met that is equal to this one, so that equal sums are equal objects."""
        return self.interned.setdefault(by_shape(s), s)

    def by_facts(self, e: Any, ranges: Mapping[Index, Expr]) -> Any:
        """Sums replaced by what is known of them, also of one of several summed indices at a time."""
        result: list[Any] = []
        changed = False
        for f in Mul.make_args(e):
            known = self.facts.told(f) if isinstance(f, Sigma) else None
            if known is not None:
                self.note(known[1])
            changed = changed or known is not None
            result.append(f if known is None else known[0])
        return self.normal_form(self.lowered(Mul(*result)), dict(ranges)) if changed else e

    # -- sizes ---------------------------------------------------------------------------------------------------

    def elements(self, e: Expr) -> int:
        """How many elements an access has at the example's sizes."""
        count = 1
        cell = self.cells.get(name_of(e)) if isinstance(e, Indexed) else None
        shape = cell.shape if cell is not None else ()
        for s in shape:
            count *= max(2, int(cast("Any", s.xreplace({k: sp.Integer(v) for k, v in self.values.items()}))))
        return count


def written_out(cells: Collection[Cell]) -> frozenset[str]:
    """The cells that are an exponential which the definition of another cell has, too: what the two make cancels as one."""
    held = [(c.name, c, c.expr) for c in cells if c.expr is not None and c.kind == "float"]
    atoms = [e for _, _, whole in held if not isinstance(whole, sp.exp) for e in whole.atoms(sp.exp)]
    return frozenset(
        name for name, c, whole in held if isinstance(whole, sp.exp) and any(holding(c, whole, e) for e in atoms)
    )


def is_place(f: Any) -> bool:
    """Whether a factor is one at places that an equality says and else zero, or the other way round."""
    return isinstance(f, Delta) or isinstance(1 - f, Delta)


__all__ = ["Algebra"]
