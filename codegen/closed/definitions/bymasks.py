# pyright: basic
"""Masks of ones and zeros choose: with a truth m, `m a + (1 - m) b` is a where m holds, else b.

Several masks choose one after the other, and where one of them decides another, as x > 1 does x < -1, only what is left is asked:
with `low = x <= -1` and `high = x >= 1`, `(1 - low - high) a + high x` is x where it is high, else 0 where it is low, else a.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.definitions.pieces import UndecidedError, breaks, elementwise, samples
from codegen.closed.definitions.pieces import at as decided
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.notation import BRACKETS, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "m a + (1 - m) b is a where the mask m holds, else b"
MASKS = 3
"""By how many truths a cell chooses at most."""
DEEPEST = 4
"""Through how many cells a comparison is written out at most."""


@dataclass(frozen=True)
class Term:
    """A term `rest * weight`, whose weight is made of truths and numbers alone."""

    rest: Any
    weight: Any

    def given(self, truths: Mapping[Any, Any]) -> Term:
        """The term where these truths hold (1) or do not (0)."""
        return replace(self, weight=sp.expand(self.weight.xreplace(truths)))


def by_masks(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """The cells, with sums of products with masks as choices; products that something else reads, and `kept` ones, stay."""
    masks = Masks(cells, kept)
    return [masks.chosen(c) for c in cells] if masks.weights else cells


class Masks:
    """The cells of a region, those that are made of truths and numbers alone (written out), and the products that are read once."""

    def __init__(self, cells: list[Cell], kept: tuple[str, ...]) -> None:
        readers = Counter(r for c in cells for r in c.reads)
        self.known = {c.name: c for c in cells}
        self.weights: dict[str, Cell] = {}
        for c in cells:
            written = substituted(c.expr, self.weights) if c.expr is not None and elementwise(c) else None
            if written is not None and self.truths(written) and self.is_weight(written):
                self.weights[c.name] = replace(c, expr=written)
        once = (c for c in cells if readers[c.name] == 1 and c.name not in kept and isinstance(c.expr, Mul))
        self.products: dict[str, Cell] = {}
        for c in (c for c in once if elementwise(c)):
            if any(self.is_truth(f) or self.held(f) for f in Mul.make_args(cast("Expr", c.expr))):
                self.products[c.name] = c

    def is_truth(self, e: Any) -> bool:
        """Whether an expression is a comparison, or an element of a tensor of truths."""
        cell = self.known.get(name_of(e)) if isinstance(e, Indexed) else None
        return isinstance(e, BRACKETS) or (cell is not None and cell.kind == "bool")

    def held(self, e: Any) -> bool:
        """Whether an expression is an element of a cell that is made of truths, or of a product with one."""
        return isinstance(e, Indexed) and (name_of(e) in self.weights or name_of(e) in self.products)

    def is_weight(self, e: Any) -> bool:
        """Whether an expression is made of sums and products of truths and numbers."""
        if self.is_truth(e) or e.is_number:
            return True
        return isinstance(e, (sp.Add, Mul)) and all(self.is_weight(a) for a in e.args)

    def truths(self, e: Any) -> list[Any]:
        """The truths in the sums and products of a weight."""
        if self.is_truth(e):
            return [e]
        return [t for a in e.args for t in self.truths(a)] if isinstance(e, (sp.Add, Mul)) else []

    def chosen(self, c: Cell) -> Cell:
        """A cell that is a sum of products with masks, as choices; any other as it is."""
        if not isinstance(c.expr, sp.Add) or not elementwise(c):
            return c
        terms = [self.term(t) for t in sp.Add.make_args(c.expr)]
        if not 1 <= len(self.masks(terms)) <= MASKS or all(t.rest.is_number for t in terms):
            return c
        parts = list[Any]()
        new = self.by_choices(terms, parts)
        both = any(0 not in w.args[1:] for w in new.atoms(Where))
        return replace(c, expr=new, text=None) if both and len(parts) <= len(terms) else c

    def term(self, term: Any) -> Term:
        """A term with what it weighs by apart, products with masks that are read here alone written out."""
        rest, weight = list[Any](), list[Any]()
        stack = list(Mul.make_args(term))
        while stack:
            f = stack.pop()
            if self.is_weight(f):
                weight.append(f)
            elif isinstance(f, Indexed) and name_of(f) in self.weights:
                weight.append(at(self.weights[name_of(f)], f.indices))
            elif isinstance(f, Indexed) and name_of(f) in self.products:
                stack.extend(Mul.make_args(at(self.products[name_of(f)], f.indices)))
            else:
                rest.append(f)
        return Term(Mul(*rest), Mul(*weight))

    def masks(self, terms: list[Term]) -> list[Any]:
        """The truths that terms are weighed by, those first that most terms have."""
        found = Counter(b for t in terms for b in dict.fromkeys(self.truths(t.weight)))
        return sorted(found, key=lambda b: (-found[b], sp.default_sort_key(b)))

    def by_choices(self, terms: list[Term], parts: list[Any], given: tuple[Any, ...] = ()) -> Any:
        """A sum of terms as choices by one truth after the other; `parts` gets every term that stands in it."""
        terms = [t for t in terms if t.weight != 0]
        masks = self.masks(terms)
        if not masks:
            parts.extend(t for t in terms if not t.rest.is_number)
            return sp.Add(*[t.rest * t.weight for t in terms])
        mask, *others = masks
        plain = [t for t in terms if not self.truths(t.weight)]
        weighed = [t for t in terms if self.truths(t.weight)]
        sides = list[Any]()
        for truth in (1, 0):
            facts = (*given, (mask, truth))
            told = {mask: sp.Integer(truth)} | self.implied(others, facts)
            sides.append(self.by_choices([t.given(told) for t in weighed], parts, facts))
        return self.by_choices(plain, parts, given) + Where(mask, *sides)

    def implied(self, masks: list[Any], facts: tuple[Any, ...]) -> dict[Any, Any]:
        """Which of the masks the facts decide: those that are functions of the same number."""
        out: dict[Any, Any] = {}
        for m in masks:
            values = self.values(m, [f for f in facts if self.origin(sp.Tuple(m, f[0])) is not None])
            if len(values) == 1:
                out[m] = sp.Integer(values.pop())
        return out

    def origin(self, e: Any) -> tuple[Any, Any] | None:
        """Comparisons written out until they are functions of one number, with it; None where they are not."""
        order = {n: k for k, n in enumerate(self.known)}
        for _ in range(DEEPEST):
            read = {*accesses(e)}
            if len(read) == 1:
                return (e, read.pop()) if all(isinstance(b, BRACKETS) for b in e) else None
            usable = [n for n in map(name_of, read) if n in self.known and elementwise(self.known[n])]
            if not usable:
                return None
            last = max(usable, key=lambda n: order[n])
            e = substituted(e, {last: self.known[last]})
        return None

    def values(self, mask: Any, facts: list[Any]) -> set[int]:
        """What a truth may be where the facts, of the same number, hold; both where that cannot be told."""
        found = self.origin(sp.Tuple(mask, *[b for b, _ in facts])) if facts else None
        if found is None:
            return {0, 1}
        written, x = found
        t = sp.Dummy("t", real=True)
        own, *others = written.xreplace({x: t})
        try:
            places = breaks(sp.Tuple(own, *others), t)
            points = [*places, *samples(places)] if places else []
            return {
                int(decided(own, t, p))
                for p in points
                if all(decided(b, t, p) == truth for b, (_, truth) in zip(others, facts, strict=True))
            } or {0, 1}
        except (UndecidedError, TypeError):
            return {0, 1}


__all__ = ["RULE", "by_masks"]
