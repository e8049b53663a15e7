"""What products are called: a product is named in the cheapest way by cells that are products, `u * r` is `xhat`.

A name depends on the product and on those allowed cells alone that stand for something of it, so every product is named
once for each choice among these, however many statements and plans it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.facts import divisors
from codegen.closed.algebra.masks import mask_of
from codegen.closed.algebra.matching import matched
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import indices_of, powers, scalar_part
from codegen.closed.regions.cells import Cell, at
from codegen.derive import distribute
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, Sign, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.algebra.algebra import Algebra

ZERO, ONE = sp.S.Zero, sp.S.One
FUNCTIONS = (sp.exp, sp.erf, sp.tanh, sp.log, sp.sin, sp.cos)
"""What is computed of one argument."""
FUNCTION = 50_000
"""What a function of tensors weighs, in elements."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """A cell as the product that it names."""

    cell: Cell
    product: Cell
    """The cell defined in generators."""
    table: Mapping[Expr, Expr]
    head: Expr
    """The factor that tells at which indices the cell is meant."""
    free: frozenset[Index]
    tensors: frozenset[str]
    heads: frozenset[str]
    masked: bool
    """Whether it is zero where a truth does not hold."""
    single: bool
    """Whether the cell may pay where it stands for one factor: for a root, or for what is no tensor."""

    def concerns(self, tensors: frozenset[str]) -> bool:
        """Whether a product of these tensors may hold what the cell stands for: two factors of it, if it has two."""
        if not self.heads <= tensors:
            return False
        return self.single or len(self.tensors & tensors) >= min(2, len(self.tensors))


def pattern_of(cell: Cell, product: Cell | None) -> Pattern | None:
    """The pattern of a cell; None where it is no product."""
    if product is None or product.expr is None:
        return None
    table = powers(product.expr)
    head = max((b for b in table if mask_of(b)[1] is None), key=lambda b: len(b.free_symbols))
    free = frozenset(cast("Index", i) for i in product.indices if i != 0)
    plain = all(isinstance(b, Indexed) and x.is_Integer for b, x in table.items())
    distinct = len({name_of(b) for b in table if isinstance(b, Indexed)}) == len(table)
    masked = any(mask_of(b)[1] is not None for b in table)
    tensors, heads = tensors_of(product.expr), tensors_of(head)
    return Pattern(cell, product, table, head, free, tensors, heads, masked, not (plain and distinct))


def tensors_of(e: Expr) -> frozenset[str]:
    """The tensors that an expression reads."""
    return frozenset(name_of(a) for a in accesses(e))


class Names:
    """Names products by the cells that an algebra knows to be products."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra = algebra
        found = ((c, pattern_of(c, algebra.down.get(c.name) or algebra.masked.get(c.name))) for c in algebra.ups)
        self.patterns = {c.name: p for c, p in found if p is not None}
        self.ups = frozenset(c.name for c in algebra.ups)
        self.known: dict[Any, tuple[Expr, tuple[str, ...]]] = {}
        self.concerned: dict[Expr, tuple[str, ...]] = {}
        self.below: dict[Expr, set[Expr]] = {}
        self.weights: dict[Expr, float] = {}
        self.written: dict[tuple[Expr, str], list[Expr]] = {}

    def concerning(self, e: Expr) -> tuple[str, ...]:
        """The cells that may stand for something of an expression, in order."""
        if e not in self.concerned:
            if isinstance(e, sp.Add):
                found = {n for t in e.args for n in self.concerning(t)}
            else:
                tensors = tensors_of(e)
                found = {n for n, p in self.patterns.items() if p.concerns(tensors)}
            self.concerned[e] = tuple(n for n in self.patterns if n in found)
        return self.concerned[e]

    def choice(self, e: Expr, allowed: frozenset[str] | None) -> tuple[str, ...]:
        """Those of them that are allowed; all where nothing is said of it."""
        found = self.concerning(e)
        return found if allowed is None else tuple(n for n in found if n in allowed)

    def folded(self, e: Any, allowed: frozenset[str] | None = None) -> Any:
        """An expression with every product named; the rules it took are noted."""
        if isinstance(e, sp.Add):
            return sp.Add(*[self.folded(t, allowed) for t in e.args])
        if isinstance(e, Sigma):
            out = distribute(self.folded(e.body, allowed), list(e.limits))
            return Mul(*[self.algebra.intern(f) if isinstance(f, Sigma) else f for f in Mul.make_args(out)])
        if isinstance(e, Indexed) and any(isinstance(i, Indexed) for i in e.indices):
            return self.remembered(e, allowed)
        if isinstance(e, (Indexed, Delta)) or not e.args:
            return e
        if isinstance(e, (sp.Mul, sp.Pow)) and not isinstance(e, sp.exp):
            return self.remembered(e, allowed)
        return rebuilt(e, lambda a: self.folded(a, allowed))

    def remembered(self, e: Expr, allowed: frozenset[str] | None) -> Expr:
        """A product named, once for every choice of cells that concern it."""
        key = e, self.choice(e, allowed)
        if key not in self.known:
            before, self.algebra.rules = self.algebra.rules, []
            if isinstance(e, Indexed):
                named = self.product(e, allowed)
            else:
                named = self.absorbed(cast("Expr", Mul(*[self.factor(f, allowed) for f in Mul.make_args(e)])), allowed)
            self.known[key] = named, tuple(self.algebra.rules)
            self.algebra.rules = before
        named, rules = self.known[key]
        for r in rules:
            self.algebra.note(r)
        return named

    def factor(self, f: Any, allowed: frozenset[str] | None) -> Any:
        """A factor with what it is made of named."""
        b, x = f.as_base_exp() if not isinstance(f, sp.exp) else (f, ONE)
        return self.folded(b, allowed) ** x if isinstance(b, (Sigma, Sign, Where, sp.Add)) else f

    def within(self, e: Any, allowed: frozenset[str] | None) -> Any:
        """An expression that is named, with what the functions that are left in it are of named as well."""
        if isinstance(e, (Indexed, Delta)) or not e.has(*FUNCTIONS):
            return e
        if isinstance(e, FUNCTIONS):
            return e.func(self.within(self.folded(e.args[0], allowed), allowed))
        return rebuilt(e, lambda a: self.within(a, allowed))

    def weight(self, term: Expr) -> float:
        """What a product costs to read and compute: elements of every factor, more for roots, powers and functions."""
        if term not in self.weights:
            self.weights[term] = self._weight(term)
        return self.weights[term]

    def _weight(self, term: Expr) -> float:
        total = 0.0
        for b, x in powers(term).items():
            if isinstance(b, Sigma):
                total += 1 - 0.01 * len(self.ups & tensors_of(b))  # among equals, a sum of what has a name
                continue
            size = self.algebra.elements(b) if isinstance(b, Indexed) else FUNCTION
            total += size * (1.0 if x in (1, -1) else 1.5 if x.is_Integer else 4.0) + (0.1 if x == 1 else 0.2)
        return total

    def divides_by_more(self, new: Expr, old: Expr) -> bool:
        """Whether a product divides by what may be zero and what the other one does not divide by."""
        return not self.divisors(new) <= self.divisors(old)

    def divisors(self, e: Expr) -> set[Expr]:
        """What a product divides by and what may be zero, in generators."""
        if e not in self.below:
            self.below[e] = divisors(e, self.algebra)
        return self.below[e]

    # -- names for parts of a product ------------------------------------------------------------------------------

    def absorbed(self, e: Expr, allowed: frozenset[str] | None) -> Expr:
        """A factor in front of a sum taken into it, where the sum reads a cell then: `r Sum(g u)` is `Sum(g xhat)`."""
        best = self.product(e, allowed)
        for total in [f for f in Mul.make_args(best) if isinstance(f, Sigma) and not f.body.is_Add]:
            for name in self.choice(best, allowed):
                for new in self.taken_in(best, total, self.patterns[name]):
                    named = self.unmixed(self.absorbed(new, allowed))
                    if self.weight(named) < self.weight(best) - 1e-9:
                        self.algebra.note(f"definition of {name}")
                        best = named
        return best

    def taken_in(self, e: Expr, total: Sigma, pattern: Pattern) -> list[Expr]:
        """A product with a sum in which a cell stands for what it is a product of; what of that is no summand's own is divided out."""
        summed = {i for i, _ in total.limits}
        out: list[Expr] = []
        for b, x in powers(total.body).items():
            if x != pattern.table[pattern.head]:
                continue
            mapping = matched(pattern.head, b, set(pattern.free))
            if mapping is None or any(i not in mapping for i in pattern.free):
                continue
            at_these = [i.xreplace(mapping) for i in pattern.product.indices]
            written = at(pattern.product, at_these)
            value = powers(written)
            outside = Mul(*[a**y for a, y in value.items() if not a.free_symbols & summed])
            inside = Mul(*[a**y for a, y in value.items() if a.free_symbols & summed])
            if outside == 1 or scalar_part(written) != 1:
                continue
            body = total.body / inside * pattern.cell.element(at_these)
            new = e / total / outside
            if not self.divides_by_more(new, e / total) and not self.divides_by_more(body, total.body):
                out.append(new * self.algebra.intern(cast("Any", Sigma(body, *total.args[1:]))))
        return out

    def unmixed(self, e: Any) -> Any:
        """A product in which no name stands beside what it names, as in `sqrt(v)/s` where s is the root of v."""
        if isinstance(e, Sigma):
            return self.algebra.intern(cast("Any", Sigma(self.unmixed(e.body), *e.args[1:])))
        e = Mul(*[self.unmixed(f) if isinstance(f, Sigma) and not f.body.is_Add else f for f in Mul.make_args(e)])
        table = powers(e)
        for b, x in table.items():
            pattern = self.patterns.get(name_of(b)) if isinstance(b, Indexed) else None
            if pattern is None:
                continue
            written = at(pattern.product, cast("Any", b).indices)
            if all(table.get(a, ZERO) * x * y < 0 for a, y in powers(written).items()):
                new = e / b**x * written**x
                if self.weight(new) < self.weight(e):
                    return self.unmixed(new)
        return e

    def product(self, e: Expr, allowed: frozenset[str] | None) -> Expr:
        """Greedy: whichever cell makes the product cheapest, until none does."""
        while True:
            best, best_weight, name = None, self.weight(e), ""
            for candidate in self.choice(e, allowed):
                for new in self.with_cell(e, candidate):
                    w = self.weight(new)
                    if w < best_weight - 1e-9:
                        best, best_weight, name = new, w, candidate
            if best is None:
                return e
            self.algebra.note(f"definition of {name}")
            e = best

    def with_cell(self, e: Expr, name: str) -> list[Expr]:
        """The product with a cell (to a power) in place of what it is a product of."""
        if (e, name) not in self.written:
            self.written[e, name] = self.written_with(e, self.patterns[name])
        return self.written[e, name]

    def written_with(self, e: Expr, pattern: Pattern) -> list[Expr]:
        """The product with a cell in place of each of its factors that may be one of the cell's."""
        have = powers(e)
        out: list[Expr] = []
        for b, there in have.items():
            mapping = matched(pattern.head, b, set(pattern.free))
            if mapping is None or any(i not in mapping for i in pattern.free):
                continue
            k = there / pattern.table[pattern.head]
            if k == 0 or not k.is_Rational:
                continue
            for exponent in dict.fromkeys((k, ONE, -ONE)) if k.is_Integer else (k,):
                if not sp.sympify(exponent).is_Integer:
                    continue
                indices = [i.xreplace(mapping) for i in pattern.product.indices]
                named = pattern.cell.element(indices)
                new = quotient(e, at(pattern.product, indices), exponent) * named**exponent
                if pattern.masked and not (exponent == 1 and self.needs_no_mask(new / named, indices_of(named))):
                    continue
                if not self.divides_by_more(new, e):
                    out.append(new)
        return out

    def needs_no_mask(self, rest: Expr, own: frozenset[Index]) -> bool:
        """Whether what a masked cell is multiplied with, along all of its axes, is a number wherever it is zero; no truth is divided by."""
        for b, x in powers(rest).items():
            truth = mask_of(b)[1] is not None
            if (truth and x < 0) or (not truth and indices_of(b) >= own and not (x > 0 and self.is_finite(b))):
                return False
        return True

    def is_finite(self, b: Expr, depth: int = 4) -> bool:
        """Whether a factor is made of what is given by sums and products alone, so that it is no number only where that is none."""
        if isinstance(b, Indexed):
            cell = self.algebra.cells.get(name_of(b))
            if cell is None:  # a cotangent, as good as given where it comes from elsewhere
                return name_of(b).removeprefix("d_") in self.algebra.kept
            return cell.expr is None or (depth > 0 and self.is_finite(cell.expr, depth - 1))
        if isinstance(b, sp.Pow):
            return bool(b.exp.is_Integer and b.exp.is_positive) and self.is_finite(b.base, depth)
        return b.is_number or (
            isinstance(b, (sp.Add, Mul, Sigma)) and all(self.is_finite(a, depth) for a in parts_of(b))
        )


def parts_of(e: Any) -> tuple[Any, ...]:
    """What a sum or a product is of."""
    return (e.body,) if isinstance(e, Sigma) else e.args


def quotient(e: Expr, product: Expr, power: Any) -> Expr:
    """A product divided by a power of another one, exponentials of sums too, of which sympy does not see that they cancel."""
    if not product.has(sp.exp):
        return e / product**power
    table = dict(powers(e))
    for b, x in powers(product).items():
        table[b] = table.get(b, ZERO) - power * x
    return cast("Expr", scalar_part(e) / scalar_part(product) ** power * Mul(*[b**x for b, x in table.items()]))


__all__ = ["Names", "Pattern"]
