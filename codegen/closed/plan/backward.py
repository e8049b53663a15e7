"""Cotangents across the cells of a region: each is inlined into the next or kept as a statement, whichever costs less."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.boundedslope import by_bounds
from codegen.closed.algebra.clipped import by_one_comparison
from codegen.closed.algebra.commonfactor import by_common_factors
from codegen.closed.algebra.factors import factored
from codegen.closed.algebra.floors import by_floors
from codegen.closed.algebra.guarded import affine, chosen_again, guarded
from codegen.closed.algebra.mirrored import RULE as MIRRORED
from codegen.closed.algebra.mirrored import mirrored, parities, parity_of
from codegen.closed.algebra.onechoice import by_one_choice
from codegen.closed.algebra.opposites import RULE as OPPOSITES
from codegen.closed.algebra.opposites import without_opposites
from codegen.closed.algebra.parts import without_parts
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import expanded, gathered, indices_of, like_terms, powers, scalar_part
from codegen.closed.algebra.ties import chosen_together
from codegen.closed.algebra.vanishing import where_divided, without_choices
from codegen.closed.kernels.powerslopes import by_powers
from codegen.closed.regions.cells import Cell, at, substituted
from codegen.closed.regions.runningproducts import by_quotients
from codegen.derive import COT, Contribution, pulled_back
from codegen.ownoutput import OUT
from engine.indexed import Indexed
from engine.notation import (
    Delta,
    Index,
    Product,
    Sigma,
    Sign,
    Where,
    accesses,
    base,
    canonical,
    element,
    fresh,
    holds,
    instantiate,
    name_of,
)
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from codegen.closed.algebra.algebra import Algebra

BEYOND = "what cancels in a sum over a gradient is not summed"
LARGE = 100
"""Operations of a cotangent at most that are written out in the next one: a long chain of them doubles at every step."""


@dataclass(frozen=True)
class Statement:
    """`name[indices] = expr`: the cotangent of the cell `cell`, before and after simplification, with the rules between."""

    name: str
    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    expr: Expr
    cell: str
    naive: Expr
    rules: tuple[str, ...] = ()


@dataclass
class Plan:
    """A region's backward: statements in order; the last ones of each boundary cell are its gradients."""

    statements: list[Statement] = field(default_factory=list[Statement])
    gradients: dict[str, str] = field(default_factory=dict[str, str])


def cot_name(cell: str) -> str:
    """The name of a cell's cotangent within a region."""
    return f"d_{cell}"


def passed_back(definition: Definition, operand: str, shape: tuple[Expr, ...]) -> Contribution:
    """`pulled_back`, once for all definitions that differ in the names of tensors and indices only."""
    tensors = dict.fromkeys(x.base for x in sp.preorder_traversal(definition.expr) if isinstance(x, Indexed))
    labels = [b.label for b in tensors]
    bases = [base(f"_{k}", bool(t.is_positive), bool(t.is_integer)) for k, t in enumerate(labels)]
    own = {i: Index(f"_p{k}") for k, i in enumerate(definition.indices) if i != 0}
    there = {**dict(zip(tensors, bases, strict=True)), **own}
    indices = tuple(own.get(i, i) for i in definition.indices)
    position = [str(t) for t in labels].index(operand) if operand in map(str, labels) else -1
    known = _passed_back(
        Definition(definition.shape, indices, canonical(definition.expr, there)), f"_{position}", shape
    )
    back = {b: t for t, b in there.items() if b in bases}
    return replace(known, expr=known.expr.xreplace(back))


@lru_cache(maxsize=2**12)
def _passed_back(definition: Definition, operand: str, shape: tuple[Expr, ...]) -> Contribution:
    return pulled_back(definition, operand, shape)


class Backward:
    """Assembles a region's backward for a given choice of cuts."""

    def __init__(self, cells: list[Cell], seeds: tuple[str, ...], wanted: tuple[str, ...], algebra: Algebra) -> None:
        self.cells = {c.name: c for c in cells}
        self.order = [c.name for c in cells]
        self.seeds, self.wanted, self.algebra = seeds, wanted, algebra
        self.consumers: dict[str, list[str]] = {}
        for c in cells:
            if c.differentiable and c.expr is not None:
                for r in c.reads:
                    if r in self.cells and self.cells[r].differentiable:
                        self.consumers.setdefault(r, []).append(c.name)
        self.indices = {c.name: tuple(sp.S.Zero if s == 1 else fresh() for s in c.shape) for c in cells}
        self.live = self._live()
        self.between = {n for n in self.live - {*wanted} if n not in seeds or n in self.consumers}
        self.among_numbers = not any(self.cells[n].shape for n in self.between)
        self.memo: dict[Any, tuple[Expr, Expr, tuple[str, ...]]] = {}
        self.learnt = set[tuple[str, Expr]]()
        self.parity: dict[str, int] | None = None

    def _live(self) -> set[str]:
        """Cells on a path from a wanted cell to a seeded one."""
        down: set[str] = set()
        for name in self.order:
            c = self.cells[name]
            if name in self.wanted or (c.differentiable and any(r in down for r in c.reads)):
                down.add(name)
        up: set[str] = set()
        for name in reversed(self.order):
            if name in self.seeds or any(k in up for k in self.consumers.get(name, [])):
                up.add(name)
        return down & up

    def contribution(self, consumer: str, operand: str) -> Any:
        """What a consumer passes back to an operand, over COT, OUT and cells."""
        c = self.cells[consumer]
        definition = Definition(c.shape, c.indices, cast("Expr", c.expr))
        part = passed_back(definition, operand, self.cells[operand].shape)
        return replace(part, expr=by_quotients(part.expr, self.cells)) if isinstance(c.expr, Product) else part

    def filled(self, e: Any, consumer: Cell, cot: Expr | None) -> Any:
        """A contribution with the consumer's own output, and its cotangent: a statement's element, or an expression."""
        if isinstance(e, Indexed):
            name = name_of(e)
            indices = list(e.indices) if consumer.shape else []
            if name == OUT:
                return element(base(consumer.name, consumer.positive), indices)
            if name == COT and cot is None:
                return element(base(cot_name(consumer.name)), indices)
            if name == COT:
                own = self.indices[consumer.name]
                return instantiate(cast("Expr", cot), {i: j for i, j in zip(own, indices, strict=False) if i != 0})
            return e
        return rebuilt(e, lambda a: self.filled(a, consumer, cot))

    def assemble(self, cuts: frozenset[str]) -> Plan:
        """The whole backward, with the cotangents of `cuts` and of the wanted cells as statements."""
        plan = Plan()
        known: dict[str, Expr | None] = {}
        for name in reversed(self.order):
            if name in self.live:
                self._cotangent(name, cuts, known, plan)
        return plan

    def _cotangent(self, name: str, cuts: frozenset[str], known: dict[str, Expr | None], plan: Plan) -> None:
        cell = self.cells[name]
        consumers = self._consumers(name, known)
        if name in self.seeds and not consumers:
            known[name] = None
            return
        key = (name, tuple((c, known[c], self.pairs().get(cot_name(c))) for c in consumers))
        if key not in self.memo:
            self.memo[key] = self.derived(name, {c: known[c] for c in consumers})
        expr, naive, rules = self.memo[key]
        if name in self.wanted or name in cuts or is_large(expr):
            plan.statements.append(Statement(cot_name(name), self.indices[name], cell.shape, expr, name, naive, rules))
            parity = parity_of(expr, self.indices[name], cell.shape, self.pairs())
            if parity is not None:
                self.pairs()[cot_name(name)] = parity
            if self._weighs(name) or self._spreads(name):
                self._learn_zeros(name, expr)
            known[name] = None
            if name in self.wanted:
                plan.gradients[name] = cot_name(name)
        else:
            known[name] = expr

    def beyond_sums(self, plan: Plan) -> Plan | None:
        """The plan with every gradient that is a sum over a statement summed over those of its terms whose sum is not zero.

        None where no terms cancel: what is left of them by rounding is no error then.
        """
        by_cell = {s.cell: s for s in plan.statements}
        out: list[Statement] = []
        for s in plan.statements:
            read = {c: by_cell[c] for c in self._consumers(s.cell, by_cell)}
            if isinstance(s.expr, Sigma) and len(read) == 1 and isinstance(s.expr.body, Indexed):
                (of,) = read.values()
                expr, naive, rules = self.derived(s.cell, {of.cell: of.expr})
                if len(sp.Add.make_args(expr)) < len(sp.Add.make_args(sp.expand_mul(of.expr))):
                    s = replace(s, expr=expr, naive=naive, rules=(*rules, BEYOND))
            out.append(s)
        return replace(plan, statements=out) if out != plan.statements else None

    def pairs(self) -> dict[str, int]:
        """The tensors of pairs, symmetric (1) or antisymmetric (-1): cells, and cotangents as they are known."""
        if self.parity is None:
            self.parity = parities(self.cells.values())
        return self.parity

    def _learn_zeros(self, name: str, expr: Expr) -> None:
        """That a cotangent sums to zero over an axis, where it does.

        As weights of differences it then leaves one tensor out, and summed over further axes it is zero as well.
        """
        if (name, expr) in self.learnt:
            return
        self.learnt.add((name, expr))
        shape = self.cells[name].shape
        ranges = {cast("Index", i): n for i, n in zip(self.indices[name], shape, strict=True) if i != 0}
        own = element(base(cot_name(name)), self.indices[name])
        for i, n in ranges.items():
            limits = sp.Tuple(i, n)
            if self.algebra.normal(cast("Expr", Sigma(own, limits)), {}) == 0:
                continue
            if self.algebra.normal(cast("Expr", Sigma(expr, limits)), {j: m for j, m in ranges.items() if j != i}) == 0:
                self.algebra.add_fact(Sigma(own, limits), sp.S.Zero, f"{cot_name(name)} sums to zero")
                self.memo.clear()

    def _consumers(self, name: str, known: Container[str]) -> list[str]:
        """The consumers of a cell that have a cotangent, the last one first."""
        return [c for c in reversed(self.consumers.get(name, [])) if c in known]

    def derived(self, name: str, known: Mapping[str, Expr | None]) -> tuple[Expr, Expr, tuple[str, ...]]:
        """A cell's cotangent from those of its consumers, simplified and as it was before, and the rules between."""
        total = self._total(name, known)
        ranges = {
            cast("Index", i): n for i, n in zip(self.indices[name], self.cells[name].shape, strict=True) if i != 0
        }
        self.algebra.rules = []
        opened = by_floors(without_choices(total, self.algebra), self.algebra)
        normal = by_powers(where_divided(self.algebra.normal(opened, ranges), self.algebra), self.algebra)
        normal = without_parts(like_terms(cancelled(guarded(normal, self.algebra), self.algebra)), self.algebra)
        normal = chosen_again(by_one_comparison(normal, self.algebra), total, self.algebra)
        if not self.algebra.signs:
            normal = chosen_together(normal)
        normal = by_bounds(by_one_choice(normal, self.algebra), self.algebra)
        turned = mirrored(normal, self.pairs())
        if turned != normal:
            self.algebra.note(MIRRORED)
        left = without_opposites(turned, self.pairs())
        if left is not turned:
            self.algebra.note(OPPOSITES)
        return left, total, tuple(self.algebra.rules)

    def _total(self, name: str, known: Mapping[str, Expr | None]) -> Expr:
        """What comes from outside and what every consumer passes back."""
        indices = self.indices[name]
        total: Any = element(base(f"{cot_name(name)}_out"), indices) if name in self.seeds else sp.S.Zero
        for consumer, cot in known.items():
            part = self.contribution(consumer, name)
            at = {i: j for i, j in zip(part.indices, indices, strict=True) if i != 0}
            total += self.filled(instantiate(part.expr, at), self.cells[consumer], cot)
        return cast("Expr", total)

    def chain(self) -> list[Statement]:
        """The unsimplified backward: one statement per live cell, each the sum of its consumers' local derivatives.

        A cell that is compared alone has none: zero times a derivative that is infinite would not be zero.
        """
        out: list[Statement] = []
        known: set[str] = set()
        for name in reversed(self.order):
            if name not in self.live:
                continue
            consumers = self._consumers(name, known)
            if name in self.seeds and not consumers:
                known.add(name)
                continue
            total = self._total(name, dict.fromkeys(consumers))
            if total == 0 and name not in self.wanted:
                continue
            known.add(name)
            shape = self.cells[name].shape
            out.append(Statement(cot_name(name), self.indices[name], shape, total, name, total))
        return out

    def candidates(self) -> list[str]:
        """Cells whose cotangent is worth a try as a statement: several read it, or what it is put into would multiply out.

        Outer differences come first: only without them it shows what their weights are worth.
        """
        inner = [n for n in reversed(self.order) if self._inner(n)]
        found = [n for n in inner if self._branches(n) or self._multiplies(n) or self._weighs(n) or self._gathered(n)]
        return sorted(found, key=lambda n: n not in self.algebra.outer)

    def choosing_before(self, name: str) -> list[str]:
        """What a cell reads that chooses by its sign or size, as relu does: its cotangent may be a statement, too."""
        return [r for r in self._operands(name) if self._inner(r) and cast("Expr", self.cells[r].expr).has(Where)]

    def _inner(self, name: str) -> bool:
        """Whether a cell lies between the wanted cells and the seeded ones: a tensor, or a number where no tensors do.

        Beside tensors a number costs nothing wherever it is computed.
        """
        return name in self.between and (bool(self.cells[name].shape) or self.among_numbers)

    def _operands(self, name: str) -> list[str]:
        return [r for r in self.cells[name].reads if r in self.live]

    def _branches(self, name: str) -> bool:
        """Whether a cell reads several tensors, or one at several places, as `x_i - x_j` does."""
        operands = self._operands(name)
        return sum(len(accesses(cast("Expr", self.cells[name].expr), r)) for r in operands) > 1

    def _multiplies(self, name: str) -> bool:
        """Whether an elementwise cell's derivative and that of a reader are sums, as in tanh(tanh(x))."""
        readers = [k for k in self.consumers.get(name, []) if k in self.live]
        return any(self._is_sum(name, r) for r in self._operands(name)) and any(self._is_sum(k, name) for k in readers)

    def _weighs(self, name: str) -> bool:
        """Whether a cell sums what is made of an outer difference, so that its cotangent weighs that in several sums."""
        inner = [r for r in self._operands(name) if cast("Expr", self.cells[name].expr).has(Sigma)]
        return any(r in self.algebra.outer for n in inner for r in (n, *self.cells[n].reads))

    def _spreads(self, name: str) -> bool:
        """Whether a cell reads a tensor at every place along two axes or more, so that its cotangent is summed over these."""
        rank = sum(i != 0 for i in self.indices[name])
        return rank > 1 and any(rank - sum(i != 0 for i in self.indices[r]) > 1 for r in self._operands(name))

    def _gathered(self, name: str) -> bool:
        """Whether a cell is read at places that a tensor says, so that its cotangent may be smaller than what is passed back."""
        readers = [k for k in self.consumers.get(name, []) if k in self.live]
        reads = [a for k in readers for a in accesses(cast("Expr", self.cells[k].expr), name)]
        return any(isinstance(i, Indexed) for a in reads for i in cast("Any", a).indices)

    def _is_sum(self, consumer: str, operand: str) -> bool:
        if cast("Expr", self.cells[consumer].expr).has(Sigma):
            return False
        derivative = self.contribution(consumer, operand).expr
        return any(isinstance(f, sp.Add) for f in sp.Mul.make_args(derivative))


@lru_cache(maxsize=2**12)
def is_large(e: Expr) -> bool:
    """Whether an expression is too long to be put into others."""
    return sp.count_ops(e) > LARGE


@lru_cache(maxsize=2**12)
def settled(e: Expr) -> Expr:
    """Common factors in front, inside of sums as well, and what is a product of sums as one."""
    if isinstance(e, sp.Add):
        whole = gathered(cast("Expr", sp.Add(*[settled(t) for t in e.args])))
        sums = (f for f in sp.Mul.make_args(whole) if isinstance(f, sp.Add))
        change = {f: g for f in sums for g in [by_common_factors(collected(factored(f)))] if g is not f}
        return whole.xreplace(change) if change else whole
    if isinstance(e, Sigma):
        return cast("Expr", e.func(settled(e.body), *e.args[1:]))
    if isinstance(e, (Indexed, Delta, Sign)) or not e.args:  # a sign is that of what was compared, as it was rounded
        return e
    return cast("Expr", rebuilt(e, settled))


def collected(e: Expr) -> Expr:
    """A sum in which the same large tensors are multiplied once: `a x + b x` is `(a + b) x` for a and b over fewer indices.

    What is put at places likewise, and with what both are multiplied by in front: `a p + b p - a [j = y] - b [j = y]` is
    `(a + b) (p - [j = y])`.
    """
    terms = sp.Add.make_args(e)
    over = [indices_of(t) for t in terms]
    every = frozenset[Index]().union(*over)
    if len(terms) < 3 or not every:
        return e
    scattered = [t for t in terms if holds(t, Delta)]
    both = at_places_alike(terms, every) if 1 < len(scattered) < len(terms) else None
    if both is not None:
        return both
    groups: dict[Expr, list[Any]] = {}
    for t in terms:
        if holds(t, Delta):
            continue
        large = [f for f in sp.Mul.make_args(t) if indices_of(f) == every]
        groups.setdefault(cast("Expr", sp.Mul(*large)), []).append(
            sp.Mul(*[f for f in sp.Mul.make_args(t) if f not in large])
        )
    if all(len(rests) < 2 or large == 1 for large, rests in groups.items()):
        return e
    parts = [
        large
        * (
            cast("Expr", sp.Add(*rests))
            if large == 1
            else settled(cast("Expr", sp.Add(*rests)))
            if in_scale(rests)
            else gathered(cast("Expr", sp.Add(*rests)), numbers=False)
        )
        for large, rests in groups.items()
    ]
    return cast("Expr", sp.Add(*scattered, *parts))


def at_places_alike(terms: Sequence[Any], every: frozenset[Index]) -> Expr | None:
    """A sum in which tensors, and ones at places, are all multiplied by the same sum of several terms; None for any other."""
    groups: dict[Any, list[Any]] = {}
    for t in terms:
        factors = sp.Mul.make_args(t)
        own = [f for f in factors if isinstance(f, Delta) or indices_of(f) == every]
        groups.setdefault(sp.Mul(*own), []).append(sp.Mul(*[f for f in factors if f not in own]))
    parts: dict[Any, Any] = {own: sp.Add(*rests) for own, rests in groups.items()}
    first, *others = parts.values()
    if len(sp.Add.make_args(first)) < 2 or not others or sp.S.One in parts:
        return None
    if any(part not in (first, -first) for part in others):
        return None
    front = -first if first.could_extract_minus_sign() else first
    return settled(front) * sp.Add(*[own if part == front else -own for own, part in parts.items()])


def in_scale(terms: list[Any]) -> bool:
    """Whether terms differ by small whole factors, so that one of their numbers in front makes the others no uglier."""
    ratios = [sp.cancel(scalar_part(t) / scalar_part(terms[0])) for t in terms]
    return all(r.is_Rational and max(r.p, r.q) < LARGE for r in ratios)


def cancelled(e: Expr, algebra: Algebra) -> Expr:
    """Cells that are a number plus a multiple of another one (`1 - p`) written out, where that lets a quotient cancel."""
    e = without_wholes(with_both_shares(e, algebra), algebra)
    if holds(e, Sigma, Delta):
        return e
    read = {name_of(a): algebra.cells.get(name_of(a)) for a in accesses(e)}
    names = {n: c for n, c in read.items() if c is not None and c.expr is not None and affine(c.expr)}
    below = {p.base for p in e.atoms(sp.Pow) if p.exp.is_negative and isinstance(p.base, Indexed)}
    divides = {a for a in below if name_of(a) in names and divisible(e, a, names[name_of(a)], algebra)}
    names = {n: c for n, c in names.items() if all(name_of(a) != n or a in divides for a in below)}
    if not names:
        return e
    written = algebra.lowered(substituted(e, names))
    symbols = {a: sp.Dummy(f"x{k}") for k, a in enumerate(sorted(written.atoms(Indexed), key=str))}
    back = {v: k for k, v in symbols.items()}
    plain = written.xreplace(symbols)
    new = cast("Expr", expanded(sp.expand(sp.cancel(plain) if divides else plain).xreplace(back)))
    return min((e, new), key=lambda x: (len(sp.Add.make_args(x)) + int(cast("Any", sp.count_ops(x))), str(x)))


def with_both_shares(e: Any, algebra: Algebra) -> Any:
    """`x y + x q` as x, where q is the cell `1 - y`: what is mixed by shares y and 1 - y, where both get the same."""
    if isinstance(e, Indexed) or not e.args:
        return e
    e = rebuilt(e, lambda a: with_both_shares(a, algebra))
    terms: list[Any] = list(sp.Add.make_args(e))
    for t in terms if len(terms) > 1 else ():
        for f in (f for f in sp.Mul.make_args(t) if isinstance(f, Indexed)):
            cell = algebra.cells.get(name_of(f))
            if cell is None or cell.expr is None or not affine(cell.expr):
                continue
            written: Any = at(cell, f.indices)
            moving = next(p for p in sp.Add.make_args(written) if accesses(p))
            other = -(t / f) * moving
            if other in terms:
                algebra.note("shares that are one together")
                rest = [u for u in terms if u not in (t, other)]
                return with_both_shares(sp.Add(t / f * (written - moving), *rest), algebra)
    return e


def without_wholes(e: Expr, algebra: Algebra) -> Expr:
    """`x p/m + x q/m` as x, where m is the cell `p + q`; `x e/u + x` as `x/u`, where u is the cell `1 - e`."""
    for bottom in sorted({p.base for p in e.atoms(sp.Pow) if p.exp == -1 and isinstance(p.base, Indexed)}, key=str):
        cell = algebra.cells.get(name_of(bottom))
        if cell is None or not isinstance(cell.expr, sp.Add) or cell.expr.has(Sigma):
            continue
        parts = sp.Add.make_args(algebra.lowered(at(cell, bottom.indices)))
        terms = list(sp.Add.make_args(e))
        for t in terms:
            rest: Any = t * bottom / parts[0]
            whole = [rest * p / bottom for p in parts]
            if rest.has(bottom) or not all(w in terms for w in whole) or any(x < 0 for x in powers(rest).values()):
                continue
            return without_wholes(cast("Expr", sp.Add(rest, *[u for u in terms if u not in whole])), algebra)
        if not affine(cell.expr):
            continue
        moving = next(p for p in parts if accesses(p))
        number, inner = moving.as_coeff_Mul()
        for t in terms:
            rest = t * bottom / inner
            other = -rest / number
            if other in terms:
                algebra.note("a quotient and a multiple of its divisor together")
                new = other * (sp.Add(*parts) - moving) / bottom
                return without_wholes(cast("Expr", sp.Add(new, *[u for u in terms if u not in (t, other)])), algebra)
    return e


def divisible(e: Expr, bottom: Indexed, cell: Cell, algebra: Algebra) -> bool:
    """Whether what an expression divides by c0 + c1 x is zero where x is -c0/c1, so that the division has no rest."""
    written = algebra.lowered(at(cell, bottom.indices))
    moving = next(t for t in sp.Add.make_args(written) if accesses(t))
    inner = powers(moving)
    value = (moving - written) / scalar_part(moving)
    above: dict[Expr, Any] = {}
    for t in sp.Add.make_args(e):
        table = powers(t)
        k = table.get(bottom, sp.S.Zero)
        if not k.is_negative:
            continue
        count = min((sp.floor(table.get(g, sp.S.Zero) / m) for g, m in inner.items()), default=sp.S.Zero)
        count = max(sp.S.Zero, count)
        rest = t * bottom**-k / sp.Mul(*[g ** (m * count) for g, m in inner.items()])
        above[k] = above.get(k, sp.S.Zero) + rest * value**count
    return any(sp.expand(total) == 0 for total in above.values())


__all__ = ["Backward", "Plan", "Statement", "cot_name", "powers", "settled"]
