"""Which cells name the products of a plan: of every family of cells that stand in for each other, those that make it cheapest.

The search is greedy: whichever cell saves most is allowed next. What a cell saves is worked out from the statements that it
concerns alone, and again only after one of these, or what they share with others, has changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.branches import branched
from codegen.closed.algebra.onequotient import RULE as ONE_QUOTIENT
from codegen.closed.algebra.onequotient import over_one
from codegen.closed.algebra.sizes import without_sizes
from codegen.closed.kernels.kinks import clamped, unbounded
from codegen.closed.plan.backward import Statement, settled
from codegen.closed.plan.names import Names
from codegen.closed.plan.prices import Price, Prices
from engine.indexed import Indexed
from engine.notation import Delta, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell

ROUNDS = 2
"""How often each family of cells is chosen anew, given the choice in the others."""


@dataclass
class Saving:
    """What allowing one cell changes of the cost, and the keys of what the statements that it concerns share."""

    change: float
    keys: frozenset[Any]


@dataclass
class State:
    """A choice of cells for statements, the price of each under it, and how many need each thing that is shared."""

    raw: Sequence[Statement]
    allowed: frozenset[str]
    prices: list[Price]
    needed: Counter[Any]
    concerned: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """For every cell the statements that it may change."""


class Naming:
    """Chooses the cells that name products, for any statements over the cells of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.names, self.prices = algebra, Names(algebra), Prices(algebra)
        self.families = families(algebra)
        self.known: dict[Any, tuple[Expr, tuple[str, ...]]] = {}
        self.gathers: dict[Any, Expr] = {}

    def chosen(self, raw: Sequence[Statement]) -> tuple[float, frozenset[str]]:
        """The least cost found for statements, and the cells that it takes."""
        large = {n for family in self.families for n in family}
        allowed = frozenset(c.name for c in self.algebra.ups) - large
        prices = [self.price(s, allowed) for s in raw]
        state = State(raw, allowed, prices, Counter(key for p in prices for key, _ in p.shared))
        for k, s in enumerate(raw):
            for name in self.names.concerning(self.gathered(s)):
                state.concerned.setdefault(name, []).append(k)
        for family in [*self.families] * ROUNDS:
            members = [name for name in family if name in state.concerned]
            self.allow(state, state.allowed - frozenset(members), members)
            self.greedy(state, members)
        once = {key: cost for p in state.prices for key, cost in p.shared}
        return sum(p.own for p in state.prices) + sum(once.values()), state.allowed

    def allow(self, state: State, allowed: frozenset[str], changed: Iterable[str]) -> None:
        """Put a state to another choice, which differs in `changed` cells."""
        state.allowed = allowed
        for k in sorted({k for name in changed for k in state.concerned[name]}):
            state.needed.subtract(key for key, _ in state.prices[k].shared)
            state.prices[k] = self.price(state.raw[k], allowed)
            state.needed.update(key for key, _ in state.prices[k].shared)

    def greedy(self, state: State, family: list[str]) -> None:
        """Cells of a family allowed one by one while that makes the statements cheaper."""
        left = {name: self.saving(state, name) for name in family}
        while left:
            best = min(left, key=lambda n: round(left[n].change, 6))
            saving = left.pop(best)
            if saving.change > -1e-9:
                break
            before = {key: state.needed[key] for key in saving.keys}
            self.allow(state, state.allowed | {best}, [best])
            changed = {key for key, n in before.items() if n != state.needed[key]}
            touched = {*state.concerned[best]}
            for name, old in left.items():
                if old.keys & changed or not touched.isdisjoint(state.concerned[name]):
                    left[name] = self.saving(state, name)

    def saving(self, state: State, name: str) -> Saving:
        """What allowing a cell changes in a state."""
        change, costs, counts = 0.0, dict[Any, float](), Counter[Any]()
        for k in state.concerned[name]:
            old, new = state.prices[k], self.price(state.raw[k], state.allowed | {name})
            change += new.own - old.own
            costs.update(old.shared)
            costs.update(new.shared)
            counts.subtract(key for key, _ in old.shared)
            counts.update(key for key, _ in new.shared)
        for key, n in counts.items():
            change += costs[key] * ((state.needed[key] + n > 0) - (state.needed[key] > 0))
        return Saving(change, frozenset(costs))

    def price(self, s: Statement, allowed: frozenset[str]) -> Price:
        """What a statement costs with products named by the allowed cells."""
        return self.prices.filled(self.written(s, allowed)[0], s.shape)

    def refolded(self, s: Statement, allowed: frozenset[str]) -> Statement:
        """A statement with products named and common factors in front; the rules it took are added."""
        expr, rules = self.written(s, allowed)
        return replace(s, expr=expr, rules=tuple(dict.fromkeys((*s.rules, *rules))))

    def written(self, s: Statement, allowed: frozenset[str]) -> tuple[Expr, tuple[str, ...]]:
        """A statement's expression so, and the rules it took."""
        e = self.gathered(s)
        key = e, self.names.choice(e, allowed)
        if key not in self.known:
            self.algebra.rules = []
            expr = arranged(self.names.within(self.names.folded(e, allowed), allowed), self.algebra)
            self.known[key] = expr, tuple(self.algebra.rules)
        return self.known[key]

    def gathered(self, s: Statement) -> Expr:
        """A statement's expression with gathers read where they are meant."""
        if s.expr not in self.gathers:
            self.gathers[s.expr] = at_gathers(s.expr, s.indices)
        return self.gathers[s.expr]


def arranged(e: Expr, algebra: Algebra) -> Expr:
    """One quotient of two terms, choices where brackets were, clamps where choices were, and common factors in front."""
    whole = over_one(e)
    if whole is not e:
        algebra.note(ONE_QUOTIENT)
    plain = unbounded(settled(clamped(branched(whole), algebra.cells)), algebra.cells)
    new = without_sizes(plain)
    if new is plain:
        return new
    again = settled(new)  # terms may have a factor in common only now
    return min(new, again, key=lambda e: int(sp.count_ops(e)))


def at_gathers(e: Expr, indices: tuple[Expr, ...]) -> Expr:
    """`[j = y[i]] p[i,j]` as `[j = y[i]] p[i,y[i]]`, which may have a name, in every term of an expression."""
    if not e.has(Delta):
        return e
    terms: list[Any] = []
    for t in sp.Add.make_args(e):
        for d in [f for f in Mul.make_args(t) if isinstance(f, Delta)]:
            where = {a: b for a, b in (d.args, d.args[::-1]) if a in indices and b.has(Indexed) and not b.has(a)}
            t = cast("Any", d) * (t / d).xreplace(where)
        terms.append(t)
    return cast("Expr", sp.Add(*terms))


def families(algebra: Algebra) -> list[list[str]]:
    """Cells that are products of one another, in groups: the cells of one may stand in for each other."""
    large = [c for c in algebra.ups if c.shape and len(c.indices) == max_rank(algebra, c)]
    groups: list[tuple[set[str], list[str]]] = []
    for c in large:
        pattern = algebra.down.get(c.name)
        if pattern is None or pattern.expr is None:
            continue
        heads = {name_of(a) for a in accesses(pattern.expr) if axes(a.indices) == axes(c.indices)}
        for known, members in groups:
            if known & heads:
                known |= heads
                members.append(c.name)
                break
        else:
            groups.append((set(heads), [c.name]))
    return [members for _, members in groups]


def max_rank(algebra: Algebra, cell: Cell) -> int:
    """The rank of a cell if something of the same rank stands in its definition, else more than it has."""
    pattern = algebra.down.get(cell.name)
    if pattern is None or pattern.expr is None:
        return 99
    own = axes(cell.indices)
    inside = max((axes(a.indices) for a in accesses(pattern.expr)), default=0)
    return len(cell.indices) if inside == own and own > 0 else 99


def axes(indices: Iterable[Expr]) -> int:
    """How many indices are not fixed at zero."""
    return sum(1 for i in indices if i != 0)


__all__ = ["Naming"]
