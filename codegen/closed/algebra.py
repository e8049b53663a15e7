# pyright: basic
"""The simplifier: definitions read in either direction, facts found by summing them, sums normalised, factors pulled out.

A region's cells give it everything it knows. Three kinds of definition are told apart by their form alone:

- a product of powers (`xhat = u * r`, `s = r^-2`, `p = e / z`) is a relation between monomials, used to bring every term
  to the same generators, where what cancels cancels, and afterwards to name what is left in the cheapest way;
- a sum over an axis (`z = Sum_j e`) is a fact about its body, and every other cell is summed over each of its axes to see
  what facts follow (`Sum_j p = 1`, `Sum_i (x - m) = 0`, `Sum_i xhat^2 = n v r^2`);
- everything else (`x - m`, `tanh(z)`) is a generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.cells import Cell, at
from codegen.closed.logistic import as_power, gate_argument, softplus_argument
from codegen.closed.sums import rebuilt, summed_term
from codegen.ranges import simplified
from engine.indexed import Indexed
from engine.notation import (
    BRACKETS,
    Amax,
    Delta,
    Head,
    Index,
    Sigma,
    Where,
    accesses,
    base,
    bound,
    canonical,
    element,
    fresh,
    instantiate,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ZERO, ONE = sp.S.Zero, sp.S.One


@dataclass(frozen=True)
class Monomial:
    """coefficient * product of atoms^exponents."""

    coefficient: Expr
    powers: tuple[tuple[Expr, Expr], ...]


@lru_cache(maxsize=2**14)
def powers(term: Expr) -> Mapping[Expr, Expr]:
    """The atoms of a product with their exponents; numbers and sizes are left out."""
    out: dict[Expr, Expr] = {}
    for f in Mul.make_args(term):
        if f.has(Indexed) or f.atoms(Index):
            b, x = f.as_base_exp() if not isinstance(f, sp.exp) else (f, ONE)
            out[cast("Expr", b)] = out.get(cast("Expr", b), ZERO) + x
    return MappingProxyType(out)


@lru_cache(maxsize=2**14)
def scalar_part(term: Expr) -> Expr:
    """The numbers and sizes of a product."""
    return cast("Expr", Mul(*[f for f in Mul.make_args(term) if not (f.has(Indexed) or f.atoms(Index))]))


def is_monomial(e: Expr) -> bool:
    """A product of powers of accesses and functions, also of positions, no sum on top."""
    table = powers(e)
    return (
        all(isinstance(b, (Indexed, sp.exp, Index)) and x.is_Rational for b, x in table.items())
        and any(not isinstance(b, Index) for b in table)
        and not e.is_Add
    )


class Algebra:
    """What is known of the cells of a region, and simplification by it."""

    def __init__(
        self,
        cells: Mapping[str, Cell],
        values: Mapping[Any, int],
        relations: Sequence[tuple[Expr, Expr]] = (),
        folds: bool = True,
    ) -> None:
        """With `folds` a sum over what a cell of the region sums is that cell; without, it is summed anew."""
        self.cells = dict(cells)
        self.values = dict(values)
        self.folds = folds
        self.down: dict[str, Cell] = {}
        self.facts: dict[Any, tuple[tuple[Index, ...], Expr, str]] = {}
        self.ups: list[Cell] = []
        self.rules: list[str] = []
        self.memo: dict[Any, Expr] = {}
        self.shares: list[tuple[Expr, tuple[Index, ...], Expr, str]] = []
        self.interned: dict[Any, Sigma] = {}
        self.summed_together = summed_together(self.cells.values())
        self.gates = [
            (c, g) for c in self.cells.values() for g in [gate_argument(c.expr)] if g is not None and c.kind == "float"
        ]
        for cell in self.cells.values():
            self.learn_share(cell)
        for cell in self.cells.values():
            self.learn(cell)
        for left, right in relations:
            self.relate(left, right)

    # -- learning ------------------------------------------------------------------------------------------------

    def learn(self, cell: Cell) -> None:
        """What a cell's definition says."""
        e = cell.expr
        if e is None or cell.kind != "float":
            return
        coefficient, total = self.reduction(e)
        if total is not None and not (self.folds or self.exponential(total.body)):
            pass
        elif total is not None:
            self.fact_of_sum(cell, coefficient, total)
        elif is_monomial(e) and not isinstance(e, Indexed) and all(n != cell.name for _, _, _, n in self.shares):
            lowered = self.lowered(e)
            self.down[cell.name] = Cell(
                cell.name, cell.indices, cell.shape, lowered, cell.kind, cell.differentiable, cell.dtype
            )
            if isinstance(e, sp.exp) and lowered == e:
                del self.down[cell.name]
            self.ups.append(cell)
        if isinstance(e, Indexed) and any(isinstance(i, Indexed) for i in e.indices):
            self.down[cell.name] = replace(cell, expr=self.lowered(e))
            self.ups.append(cell)
        if total is None and cell.shape:
            self.facts_of_axes(cell)

    def relate(self, left: Expr, right: Expr) -> None:
        """A sum that equals another one because of what reads the region: sums exchanged and folded into a tensor that exists."""
        normal = self.normal(left, {})
        sums = [f for f in Mul.make_args(normal) if isinstance(f, Sigma)]
        if len(sums) == 1:
            self.add_fact(sums[0], (right / (normal / sums[0])), "sums exchanged")

    def reduction(self, e: Expr) -> tuple[Expr, Sigma | None]:
        """(c, sum) of a definition c * sum."""
        sums = [f for f in Mul.make_args(e) if isinstance(f, Sigma)]
        rest = cast("Expr", Mul(*[f for f in Mul.make_args(e) if not isinstance(f, Sigma)]))
        return (rest, sums[0]) if len(sums) == 1 and not rest.has(Indexed) and not rest.atoms(Index) else (ONE, None)

    def access(self, cell: Cell, indices: Iterable[Expr]) -> Expr:
        """The cell's element at indices."""
        return element(base(cell.name, cell.positive, cell.kind != "float"), list(indices))

    def fact_of_sum(self, cell: Cell, coefficient: Expr, total: Sigma) -> None:
        """`z = c * Sum body` says `Sum body = z / c`; a positive body also gives its share, with `Sum share = 1`."""
        ranges = {**cell.ranges, **dict(total.limits)}
        whole = self.normal(total, ranges)
        terms = sp.Add.make_args(whole)
        here = self.access(cell, cell.indices)
        if len(terms) == 1:
            sums = [f for f in Mul.make_args(whole) if isinstance(f, Sigma)]
            if len(sums) == 1:
                rest = whole / sums[0]
                self.add_fact(sums[0], (here / coefficient / rest), f"definition of {cell.name}")

    def facts_of_axes(self, cell: Cell) -> None:
        """A cell summed over each of its axes, and over those that the region sums at once, where that is simpler than a sum."""
        free = tuple(k for k, i in enumerate(cell.indices) if i != 0)
        together = [at for at in self.summed_together if set(at) <= set(free)] if len(free) > 1 else []
        for axes in [*((k,) for k in free), *together]:
            self.fact_of_axes(cell, [sp.Tuple(cell.indices[k], cell.shape[k]) for k in axes])

    def fact_of_axes(self, cell: Cell, limits: list[Any]) -> None:
        """A cell summed over some of its axes, where what comes out is no sum."""
        ranges = cell.ranges
        definition = self.normal(cast("Expr", cell.expr), ranges)
        own = self.normal(self.access(cell, cell.indices), ranges)
        total = self.normal(cast("Expr", Sigma(definition, *limits)), ranges)
        if total.has(Sigma):
            return
        target = self.normal(cast("Expr", Sigma(own, *limits)), ranges)
        sums = [f for f in Mul.make_args(target) if isinstance(f, Sigma)]
        if not target.is_Add and len(sums) == 1:
            self.add_fact(sums[0], (total / (target / sums[0])), f"{cell.name} summed over its definition")

    def add_fact(self, total: Sigma, value: Expr, why: str) -> None:
        """`total` equals `value`, for all values of its free indices."""
        key, free = fact_key(total)
        self.facts.setdefault(key, (free, value, why))
        self.memo.clear()

    def learn_share(self, cell: Cell) -> None:
        """Definitions read backwards, so that an exponential is told by what it was made into, which does not overflow.

        `p = e / z` with `z = Sum e` says e = p z (p is a share: it sums to one); `p = 1 / (a + b e)` says e = (1/p - a) / b.
        """
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
        own = self.access(cell, cell.indices)
        free = tuple(cast("Index", i) for i in cell.indices if i != 0)
        coefficient, total = self.reduction(z.expr)
        tops = [b for b, x in table.items() if x == 1]
        if total is not None and coefficient == 1 and len(tops) == 1 and len(table) == 2 and self.exponential(tops[0]):
            inner = at(z, bottom.indices)
            body = inner.body if isinstance(inner, Sigma) else None
            known = any(matched(a, tops[0], set(its)) is not None for a, its, _, _ in self.shares)
            if body is not None and not known and matched(tops[0], body, set(free)) is not None:
                value = own * bottom / scalar_part(e)
                self.put_share(tops[0], free, value, cell.name)
        elif len(table) == 1 and isinstance(z.expr, sp.Add):
            self.learn_moebius(cell, z, bottom, own, free)
        elif len(tops) == 1 and len(table) == 2 and scalar_part(e) == 1 and isinstance(z.expr, sp.Add):
            self.learn_part(z, bottom, tops[0], own, free)

    def learn_moebius(self, cell: Cell, z: Cell, bottom: Indexed, own: Expr, free: tuple[Index, ...]) -> None:
        """`p = c / (a + b e)`: e = (c/p - a) / b."""
        parts = sp.Add.make_args(at(z, bottom.indices))
        moving = [t for t in parts if accesses(t)]
        fixed = sp.Add(*[t for t in parts if not accesses(t)])
        if len(moving) != 1 or not fixed.is_number:
            return
        b, atom = moving[0].as_coeff_Mul()
        if not self.exponential(atom) or not set(free) <= atom.free_symbols:
            return
        c = scalar_part(cast("Expr", cell.expr))
        self.put_share(atom, free, ((c / own - fixed) / b), cell.name)
        self.put_share(bottom, free, (c / own), cell.name)

    def learn_part(self, z: Cell, bottom: Indexed, top: Expr, own: Expr, free: tuple[Index, ...]) -> None:
        """`p = e / z` with `z = e + f`, both exponentials: e = p z and f = (1 - p) z."""
        parts = sp.Add.make_args(at(z, bottom.indices))
        others = [t for t in parts if t != top]
        known = any(matched(a, t, set(its)) is not None for a, its, _, _ in self.shares for t in parts)
        if len(parts) != 2 or len(others) != 1 or known or not all(self.exponential(t) for t in parts):
            return
        if all(set(free) <= t.free_symbols for t in parts):
            name = name_of(cast("Indexed", own))
            self.put_share(top, free, (own * bottom), name)
            self.put_share(others[0], free, ((1 - own) * bottom), name)

    def exponential(self, e: Expr) -> bool:
        """An exponential, or an access to a cell that is one."""
        if isinstance(e, sp.exp):
            return True
        cell = self.cells.get(name_of(e)) if isinstance(e, Indexed) else None
        return cell is not None and isinstance(cell.expr, sp.exp)

    def put_share(self, atom: Expr, free: tuple[Index, ...], value: Expr, name: str) -> None:
        """`atom` is `value`; the cell `name` is a generator from now on, and so are all spellings of the atom replaced."""
        atoms = [atom]
        if isinstance(atom, Indexed):
            cell = self.cells[name_of(atom)]
            if isinstance(cell.expr, sp.exp):
                atoms.append(at(cell, atom.indices))
        else:
            for cell in self.cells.values():
                mapping = (
                    matched(cell.expr, atom, set(cast("Any", [i for i in cell.indices if i != 0])))
                    if isinstance(cell.expr, sp.exp)
                    else None
                )
                if mapping is not None:
                    atoms.append(self.access(cell, [i.xreplace(mapping) for i in cell.indices]))
        self.shares.extend((a, free, value, name) for a in atoms)

    def share_of(self, e: Expr) -> Expr | None:
        """What an atom is by a definition read backwards."""
        for atom, free, value, name in self.shares:
            if atom.func is not e.func:
                continue
            mapping = matched(atom, e, set(free))
            if mapping is not None and all(i in mapping for i in free):
                self.note(f"definition of {name}")
                return instantiate(value, mapping)
        return None

    def gated(self, e: Any) -> Any:
        """`exp(g)^k (1 + exp(g))^-m` with k <= m as `s^k (1 - s)^(m-k)`, where some cell s is sigmoid(g)."""
        table = dict(map(as_power, Mul.make_args(e)))
        for b, x in list(table.items()):
            g = softplus_argument(b)
            if g is None or not (x.is_Integer and x.is_negative):
                continue
            k = table.get(sp.exp(g), ZERO)
            s = self.gate_of(g)
            if s is None or not (k.is_Integer and 0 <= k <= -x):
                continue
            rest = Mul(*[c**y for c, y in table.items() if c not in (b, sp.exp(g))])
            return self.gated(rest * s**k * (1 - s) ** (-x - k))
        return e

    def gate_of(self, g: Expr) -> Expr | None:
        """sigmoid(g) by a cell that is it, or by one that is sigmoid(-g)."""
        plain = self.lowered(g)
        for cell, argument in self.gates:
            pattern = self.lowered(argument)
            free = {cast("Index", i) for i in cell.indices if i != 0}
            for sign in (1, -1):
                mapping = matched(pattern, cast("Expr", sign * plain), free)
                if mapping is not None and all(i in mapping for i in free):
                    self.note(f"definition of {cell.name}")
                    own = self.access(cell, [i.xreplace(mapping) for i in cell.indices])
                    return own if sign == 1 else (1 - own)
        return None

    # -- normal form ---------------------------------------------------------------------------------------------

    def lowered(self, e: Any) -> Any:
        """An expression in generators: every access to a cell that is a product of powers replaced by its definition."""
        if self.gates and isinstance(e, (sp.Mul, sp.Pow)) and e.has(sp.exp):
            e = self.gated(e)
        if isinstance(e, (Indexed, sp.exp)) and self.shares:
            known = self.share_of(e)
            if known is not None:
                return self.lowered(known)
        if isinstance(e, Indexed):
            cell = self.down.get(name_of(e))
            return e if cell is None else at(cell, e.indices)
        if isinstance(e, (Delta, Index)) or not e.args:
            return e
        return rebuilt(e, self.lowered)

    def normal(self, e: Expr, ranges: Mapping[Index, Expr]) -> Expr:
        """Generators only, products expanded, sums taken apart and replaced by what is known of them."""
        key = (e, tuple(ranges.items()))
        if key not in self.memo:
            self.memo[key] = self._normal(self.lowered(e), dict(ranges))
        return self.memo[key]

    def _normal(self, e: Any, ranges: dict[Index, Expr]) -> Any:
        if isinstance(e, Sigma):
            inner = {**ranges, **dict(e.limits)}
            body = expanded(self._normal(e.body, inner))
            return sp.Add(*[self.sum_term(t, list(e.limits), inner) for t in sp.Add.make_args(body)])
        if isinstance(e, (Indexed, Amax)) or not e.args:
            return e
        if isinstance(e, Where):
            condition, chosen, other = e.args
            return Where(condition, self._normal(chosen, ranges), self._normal(other, ranges))
        if isinstance(e, Head):
            return e
        out = rebuilt(e, lambda a: self._normal(a, ranges))
        if isinstance(out, (sp.Mul, sp.Pow)):
            out = self.products_of_sums(expanded(out), ranges)
        return out

    def products_of_sums(self, e: Any, ranges: dict[Index, Expr]) -> Any:
        out = simplified(e, ranges)
        if out.has(Where):
            out = sp.Add(*[self.within_choice(t, ranges) for t in sp.Add.make_args(out)])
        return sp.Add(*[self.unmasked(t) for t in sp.Add.make_args(out)]) if out.has(*BRACKETS) else out

    def within_choice(self, term: Any, ranges: dict[Index, Expr]) -> Any:
        """`z (a/z if c else 0)` is `a if c else 0`: what a product shares with a choice between it and zero cancels inside."""
        factors = list(Mul.make_args(term))
        choice = next((f for f in factors if isinstance(f, Where) and ZERO in f.args[1:]), None)
        if choice is None:
            return term
        condition, chosen, other = choice.args
        table = powers(cast("Expr", chosen if other == 0 else other))
        inside = [
            f for f in factors if f is not choice and any(table.get(b, ZERO) * x < 0 for b, x in powers(f).items())
        ]
        if not inside:
            return term
        rest = [f for f in factors if f is not choice and f not in inside]
        branches = [ZERO if b == 0 else self._normal(Mul(*inside, b), ranges) for b in (chosen, other)]
        return Mul(*rest, Where(condition, *branches))

    def unmasked(self, term: Any) -> Any:
        """[c] p is p where p is made of exp(f if c else -oo) or of (f if c else 0): it is zero where c does not hold.

        So is 1 - [c] with what is made of the other mask, and [c] p is zero where p is zero wherever c holds.
        """
        factors = list(Mul.make_args(term))
        atoms = [f for f in factors if isinstance(f, (Indexed, sp.exp))]
        for f in list(factors):
            b = f if isinstance(f, BRACKETS) else 1 - f if isinstance(1 - f, BRACKETS) else None
            if b is None:
                continue
            if any(self.vanishes(b, b == f, a) for a in atoms):
                return ZERO
            if any(self.vanishes(b, b != f, a) for a in atoms):
                factors.remove(f)
                self.note("what is masked is zero where the mask does not hold")
        return Mul(*factors)

    def vanishes(self, bracket: Any, holds: bool, e: Any, depth: int = 4) -> bool:
        """Whether an atom is zero wherever a bracket `holds`, or wherever it does not."""
        taken = 1 if holds else 2
        if isinstance(e, sp.exp):
            inner = e.args[0]
            if isinstance(inner, Indexed):
                cell = self.cells.get(name_of(inner))
                inner = at(cell, inner.indices) if cell is not None and cell.expr is not None else inner
            masked = isinstance(inner, Where) and inner.args[taken] is sp.S.NegativeInfinity
            return masked and self.agree(inner.args[0], bracket)
        if isinstance(e, Where):
            return e.args[taken] == 0 and self.agree(e.args[0], bracket)
        cell = self.cells.get(name_of(e)) if isinstance(e, Indexed) else None
        if cell is None or cell.expr is None or depth == 0 or cell.expr.is_Add:
            return False
        return any(
            self.vanishes(bracket, holds, f, depth - 1)
            for f in Mul.make_args(at(cell, e.indices))
            if isinstance(f, (Indexed, sp.exp, Where))
        )

    def agree(self, one: Any, other: Any) -> bool:
        """Whether two brackets are the same, with products of powers written out."""
        return bool(one == other) or bool(self.lowered(one) == self.lowered(other))

    def sum_term(self, term: Expr, limits: list[tuple[Index, Expr]], ranges: Mapping[Index, Expr]) -> Expr:
        """One product summed: deltas solved, constants in front, then facts."""
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
            new = self.one_fact(f, ranges) if isinstance(f, Sigma) else f
            changed = changed or new is not f
            result.append(new)
        if not changed:
            return e
        return self._normal(self.lowered(Mul(*result)), dict(ranges)) if len(result) >= 1 else e

    def one_fact(self, s: Sigma, ranges: Mapping[Index, Expr]) -> Any:
        key, free = fact_key(s)
        known = self.facts.get(key)
        if known is not None:
            own, value, why = known
            self.note(why)
            return instantiate(value, dict(zip(own, free, strict=True)))
        if len(s.limits) > 1:
            for j, n in s.limits:
                mine = [f for f in Mul.make_args(s.body) if j in f.free_symbols]
                part = Sigma(Mul(*mine), sp.Tuple(j, n))
                key, free = fact_key(part)
                if key in self.facts:
                    own, value, why = self.facts[key]
                    self.note(why)
                    rest = Mul(*[f for f in Mul.make_args(s.body) if f not in mine])
                    left = [(i, m) for i, m in s.limits if i != j]
                    return Sigma(
                        rest * instantiate(value, dict(zip(own, free, strict=True))), *[sp.Tuple(*x) for x in left]
                    )
        return s

    def note(self, rule: str) -> None:
        """Remember a rule for the trail."""
        if rule not in self.rules:
            self.rules.append(rule)

    def elements(self, e: Expr) -> int:
        """How many elements an access has at the example's sizes."""
        count = 1
        cell = self.cells.get(name_of(e)) if isinstance(e, Indexed) else None
        shape = cell.shape if cell is not None else ()
        for s in shape:
            count *= max(2, int(cast("Any", s.xreplace({k: sp.Integer(v) for k, v in self.values.items()}))))
        return count


def summed_together(cells: Iterable[Cell]) -> list[tuple[int, ...]]:
    """The sets of two or more axes over which some definition sums a tensor at once."""
    found: dict[tuple[int, ...], None] = {}
    for cell in cells:
        for total in [] if cell.expr is None else sorted(cell.expr.atoms(Sigma), key=str):
            summed = {i for i, _ in total.limits}
            for a in accesses(total.body):
                at = tuple(k for k, i in enumerate(a.indices) if i in summed)
                if len(at) == len(summed) > 1:
                    found[at] = None
    return list(found)


def expanded(e: Any) -> Any:
    """Products over additions multiplied out; arguments of functions and sums are left alone."""
    if isinstance(e, sp.Add):
        return sp.Add(*[expanded(a) for a in e.args])
    if (
        isinstance(e, sp.Pow)
        and not isinstance(e, sp.exp)
        and isinstance(e.base, sp.Add)
        and e.exp.is_Integer
        and e.exp > 0
    ):
        return sp.Add(*[expanded(t) for t in sp.Add.make_args(sp.expand_multinomial(e))])
    if isinstance(e, sp.Mul) and any(
        isinstance(f, sp.Add) or (isinstance(f, sp.Pow) and isinstance(f.base, sp.Add)) for f in e.args
    ):
        terms: list[Any] = [ONE]
        for f in e.args:
            parts = sp.Add.make_args(expanded(f)) if not (isinstance(f, sp.Add) and not f.has(Indexed)) else (f,)
            terms = [t * p for t in terms for p in parts]
        return sp.Add(*terms)
    return e


@lru_cache(maxsize=2**12)
def fact_key(s: Sigma) -> tuple[Any, tuple[Index, ...]]:
    """A sum with its free indices by position, and those indices."""
    inside = bound(s)
    free: list[Index] = []
    for a in sorted(accesses(s.body), key=lambda a: (name_of(a), [str(type(i)) for i in a.indices])):
        for x in a.indices:
            for i in (
                [x] if isinstance(x, Index) else sorted((y for y in x.free_symbols if isinstance(y, Index)), key=str)
            ):
                if i not in inside and i not in free:
                    free.append(i)
    free.extend(
        sorted((i for i in s.free_symbols if isinstance(i, Index) and i not in inside and i not in free), key=str)
    )
    mapping = {i: Index(f"_f{k}") for k, i in enumerate(free)}
    return by_shape(s.xreplace(mapping)), tuple(free)


@lru_cache(maxsize=2**12)
def by_shape(s: Expr) -> Any:
    """A canonical form in which summed indices are numbered by the accesses that use them, in the order of tensor names."""
    if not isinstance(s, Sigma):
        return canonical(s)
    order: list[Index] = []
    inside = {i for i, _ in s.limits}
    for a in sorted(
        accesses(s.body),
        key=lambda a: (name_of(a), [i in inside for i in a.indices], str([i for i in a.indices if i not in inside])),
    ):
        order.extend(i for i in a.indices if i in inside and i not in order)  # pyright: ignore[reportArgumentType]
    order.extend(i for i, _ in s.limits if i not in order)
    sizes = dict(s.limits)
    names = {i: Index(f"_s{k}") for k, i in enumerate(order)}  # sums inside are numbered by themselves
    return Sigma(canonical(s.body.xreplace(names)), *[sp.Tuple(names[i], sizes[i]) for i in order])


def matched(pattern: Expr, target: Expr, free: set[Index]) -> dict[Any, Any] | None:
    """The indices for which a pattern is the target; None if there are none. Bound indices match each other."""
    mapping: dict[Any, Any] = {}

    def walk(p: Any, t: Any) -> bool:
        if p in free:
            if p in mapping:
                return bool(mapping[p] == t)
            mapping[p] = t
            return True
        if isinstance(p, Index) and isinstance(t, Index) and p != t:
            return mapping.setdefault(p, t) == t if p in inside else False
        if not p.args or not t.args:
            return bool(p == t)
        if p.func is not t.func or len(p.args) != len(t.args):
            return False
        return all(walk(x, y) for x, y in zip(p.args, t.args, strict=True))

    inside = bound(pattern) if pattern.has(Sigma) else set[Index]()
    return mapping if walk(pattern, target) else None


def gathered(e: Expr) -> Expr:
    """A sum of products with what all of them share in front: `w*r*(dz - A/n - xhat*B/n)`. Accesses decide, then numbers."""
    terms = sp.Add.make_args(e)
    if len(terms) < 2:
        return e
    tables = [powers(t) for t in terms]
    common: Any = ONE
    for b, x in tables[0].items():
        others = [t.get(b, ZERO) for t in tables[1:]]
        if isinstance(b, Delta):
            continue
        if x.is_number and all(o.is_number and o * x > 0 for o in others):
            common *= b ** (min([x, *others]) if x > 0 else max([x, *others]))
    rest = [cast("Expr", t / common) for t in terms]
    ranked = sorted(
        rest, key=lambda t: (t.has(Sigma), t.has(Delta), not powers(t), len(powers(t)), str(scalar_part(t)))
    )
    scale = scalar_part(ranked[0])
    if scale.could_extract_minus_sign() and not all(scalar_part(t).could_extract_minus_sign() for t in rest):
        scale = -scale
    inside = sp.Add(*[t / scale for t in rest])
    return cast("Expr", Mul(common * scale, inside, evaluate=True) if common * scale != 1 else inside)


__all__ = ["Algebra", "Monomial", "fact_key", "fresh", "gathered", "matched", "powers", "scalar_part"]
