"""From the chain rule to the closed form of one cotangent: every state on the way, and what was done to get there.

The walk repeats what the planner decided, one rule at a time: cotangents of intermediate tensors are put in, definitions
are written out, sums are taken apart, facts are used, what is left is named, and common factors go in front. Every state
is evaluated at a random point and dropped unless it is the closed form's value, so what is shown is equal line by line.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.algebra import Algebra
from codegen.closed.algebra.branches import branched
from codegen.closed.algebra.masks import MASKED
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.plan.backward import Backward, cancelled, settled
from codegen.closed.plan.names import Names
from codegen.closed.plan.recentre import RULE
from codegen.closed.regions.constants import TOLD
from codegen.worked.partial import Partial
from codegen.worked.points import Points
from engine.errors import DerivationError
from engine.indexed import Indexed
from engine.notation import accesses, base, canonical, element, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.code import RegionCode

LARGEST = 220
"""States of more operations than this are not shown: nobody would check them by hand."""
PUTS = 8
"""At most about this many states for cotangents that are put into one another."""

NOT_DERIVED = (DerivationError, NotImplementedError, RecursionError, ValueError, KeyError, TypeError, IndexError)
"""What the algebra raises where it cannot follow a path that the planner did not take."""


@dataclass(frozen=True)
class Stage:
    """What was done (tensors in braces, `{c3}`), the equations it used, and the state after it.

    In a walk's last stage the state is the closed form.
    """

    rule: str
    facts: tuple[tuple[Expr, Expr], ...]
    expr: Expr


@dataclass
class Walk:
    """The states of all statements of one region."""

    code: RegionCode
    found: dict[str, tuple[Stage, ...]] = field(default_factory=dict[str, tuple[Stage, ...]])

    def __post_init__(self) -> None:
        region = self.code.region
        assert region is not None
        self.cells = {c.name: c for c in self.code.cells}
        self.order = {c.name: k for k, c in enumerate(self.code.cells)}
        self.statements = {s.name: s for s in self.code.statements}
        kept = {s.cell for s in self.code.statements if s.cell}
        backward = Backward(list(self.code.cells), region.seeds, region.wanted, Algebra({}, {}))
        self.consumers = backward.consumers
        chain = backward.chain()
        self.local = {s.name: s for s in chain}
        self.between = {s.name: s for s in chain if s.cell not in kept}
        self.points = Points(self.code, region, chain)
        self.algebra = Partial(self.cells, dict(self.code.values), region.relations, sums=region.sums)
        self.algebra.allow(None)
        self.names = Names(self.algebra)

    def stages(self, name: str) -> tuple[Stage, ...]:
        """The states of one statement, the closed form last."""
        if name not in self.found:
            self.found[name] = self._stages(self.statements[name])
        return self.found[name]

    def _stages(self, s: Statement) -> tuple[Stage, ...]:
        if not s.cell:
            shared = "a sum that several gradients need is computed once"
            return (Stage(f"the gradient without its mean: {RULE}" if RULE in s.rules else shared, (), s.expr),)
        start = self.local[s.name]
        stages = self._chained(start)
        ranges: dict[Any, Expr] = {i: n for i, n in zip(start.indices, start.shape, strict=True) if i != 0}
        stages += self._simplified(stages[-1].expr, ranges, s)
        own = {i: j for i, j in zip(start.indices, s.indices, strict=True) if i != 0}
        moved = [replace(x, expr=x.expr.xreplace(own)) for x in stages]
        return self._shown(s, [*moved, self._last(moved[-1].expr, s)])

    def _last(self, before: Expr, s: Statement) -> Stage:
        """The closed form, and the sums it knows by name."""
        old = {name_of(a) for a in accesses(before)}
        named = [name_of(a) for a in accesses(s.expr) if name_of(a) not in old and name_of(a) in self.statements]
        facts = tuple(self._equation(self.statements[n]) for n in dict.fromkeys(named))
        rule = "sums that are computed already, by name" if named else "arranged for the emitted code"
        rule = RULE if RULE in s.rules else rule
        return Stage(rule, facts, s.expr)

    def _equation(self, s: Statement) -> tuple[Expr, Expr]:
        return element(base(s.name), s.indices if s.shape else ()), s.expr

    # -- the chain rule ------------------------------------------------------------------------------------------

    def _chained(self, start: Statement) -> list[Stage]:
        """The chain rule, then the cotangents of the tensors in between, nearest first, until none is left."""
        readers = [f"{{{c}}}" for c in self.consumers.get(start.cell, []) if c in self.order]
        text = f"chain rule: {{{start.cell}}} is read by {listed(readers)}" if readers else "the chain rule"
        stages = [Stage(text, (), start.expr)]
        names = self._between(start.expr)
        size = -(-len(names) // PUTS)
        e = start.expr
        group: list[Statement] = []
        for name in names:
            put = self.between[name]
            e = self._put(e, put)
            group.append(put)
            if name != names[-1] and (isinstance(put.expr, Indexed) or len(group) < size):
                continue
            facts = tuple(self._equation(g) for g in group)
            stages.append(Stage(f"chain rule again, {listed([f'{{{g.name}}}' for g in group])} put in", facts, e))
            group = []
        return stages

    def _between(self, e: Expr) -> list[str]:
        """The cotangents without a statement that an expression needs, in the order of the forward."""
        needed: set[str] = set()
        stack = [e]
        while stack:
            for a in accesses(stack.pop()):
                name = name_of(a)
                if name in self.between and name not in needed:
                    needed.add(name)
                    stack.append(self.between[name].expr)
        return sorted(needed, key=lambda n: self.order[self.between[n].cell])

    def _put(self, e: Any, s: Statement) -> Any:
        """An expression with a cotangent written out."""
        if isinstance(e, Indexed):
            if name_of(e) != s.name:
                return e
            return instantiate(s.expr, {i: j for i, j in zip(s.indices, e.indices, strict=False) if i != 0})
        return rebuilt(e, lambda a: self._put(a, s))

    # -- the algebra ---------------------------------------------------------------------------------------------

    def _simplified(self, start: Expr, ranges: dict[Any, Expr], s: Statement) -> list[Stage]:
        """Definitions, sums, facts, names, factors."""
        try:
            return self._by_rules(start, ranges, s)
        except NOT_DERIVED:
            return []
        finally:
            self.algebra.allow(None)

    def _by_rules(self, start: Expr, ranges: dict[Any, Expr], s: Statement) -> list[Stage]:
        algebra = self.algebra
        stages: list[Stage] = []

        def state(rule: str, facts: Iterable[tuple[Expr, Expr]], e: Expr) -> None:
            stages.append(Stage(rule, tuple(facts), e))

        known = [c for n, c in algebra.down.items() if any(name_of(a) == n for a in accesses(start))]
        if known:
            written = tuple((c.element(c.indices), cast("Expr", c.expr)) for c in known)
            state(self.definitions(known), written, algebra.lowered(start))
        algebra.allow(None)
        algebra.rules = []
        algebra.normal(start, ranges)
        trail = list(algebra.rules)
        algebra.allow(frozenset())
        e = algebra.normal(start, ranges)
        state(
            "multiplied out, sums taken term by term, and what does not depend on a sum's index moved in front of it",
            (),
            e,
        )
        facts = [r for r in trail if r == MASKED or any(f[2] == r for f in algebra.facts.known.values())]
        for k, why in enumerate(facts):
            algebra.allow(frozenset(facts[: k + 1]))
            e = algebra.normal(start, ranges)
            state(said(why), algebra.fact(why), e)
        e = cancelled(e, algebra)
        state("what is alike cancels", (), e)
        used = self._names(s)
        allowed: frozenset[str] = frozenset()
        for cell in [c for c in algebra.ups if c.name in used]:
            allowed |= {cell.name}
            pattern = algebra.down.get(cell.name)
            known_as = () if pattern is None else ((cell.element(pattern.indices), cast("Expr", pattern.expr)),)
            state(f"definition of {{{cell.name}}} read backwards", known_as, self.names.folded(e, allowed))
        state("common factors in front", (), settled(branched(stages[-1].expr)))
        return stages

    def definitions(self, known: Sequence[Cell]) -> str:
        """Whose definitions tensors are replaced by: their own, or that of a tensor which reads them."""
        solved: dict[str, str] = {}
        for c in known:
            names = dict.fromkeys([c.name, *(name_of(a) for a in accesses(cast("Expr", c.expr)))])
            readers = [x for n in names if (x := self.algebra.cells.get(n)) is not None and c.name in x.reads]
            reader = next((x.name for x in readers if {*names} <= {x.name, *x.reads}), None)
            if reader is not None:
                solved[c.name] = reader
        own = listed([f"{{{c.name}}}" for c in known if c.name not in solved])
        parts = [f"definition of {own} written out"] if own else []
        parts += [f"definition of {{{x}}} solved for {{{name}}}" for name, x in solved.items()]
        return " and ".join(parts)

    def _names(self, s: Statement) -> set[str]:
        """The tensors that the closed form reads, also inside of the sums it shares."""
        names = {name_of(a) for a in accesses(s.expr)}
        for n in list(names):
            if n in self.statements and not self.statements[n].cell:
                names |= {name_of(a) for a in accesses(self.statements[n].expr)}
        return names

    # -- what is shown -------------------------------------------------------------------------------------------

    def _shown(self, s: Statement, stages: list[Stage]) -> tuple[Stage, ...]:
        """The states that are new, short enough to be read, and equal to the closed form; the closed form is always there."""
        kept: list[Stage] = []
        forms: list[Expr] = []
        for x in stages:
            form = canonical(x.expr)
            if form in forms:  # what led away from it and back is left out
                k = forms.index(form)
                del kept[k + 1 :], forms[k + 1 :]
                kept[k] = replace(kept[k], expr=x.expr)
            elif x is stages[-1] or self._readable(s, x):
                kept.append(x)
                forms.append(form)
        return tuple(kept)

    def _readable(self, s: Statement, x: Stage) -> bool:
        """Whether a state is short enough to be read and equal to the closed form."""
        return bool(sp.count_ops(x.expr) <= LARGEST) and self.points.agree(s.name, s.indices, s.shape, x.expr)


def listed(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def said(why: str) -> str:
    """A fact's reason in words, with its tensor in braces."""
    if why.startswith("definition of "):
        return f"what the definition of {{{why.removeprefix('definition of ')}}} says of a sum"
    name, marker, value = why.partition(TOLD)
    if marker:
        return f"{{{name}}}{TOLD}{value}"
    cell, marker, rest = why.partition(" summed over its definition")
    return f"definition of {{{cell}}} summed over an axis{rest}" if marker else why


_walks: dict[int, Walk] = {}


def walked(code: RegionCode, statement: str) -> tuple[Stage, ...]:
    """The states of one statement of a region's code; remembered, as equal regions share their code."""
    if code.region is None:
        return ()
    if id(code) not in _walks:
        _walks[id(code)] = Walk(code)
    return _walks[id(code)].stages(statement)


__all__ = ["Stage", "Walk", "listed", "walked"]
