"""The forward told rule by rule: what each of its tensors was as traced, and what it is as emitted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from codegen.closed.regions.rewrites import Rewrite
from codegen.derivation import Rewritten, Step
from codegen.formula import left_side, lettered, named, text_formula
from codegen.lowering import tensors as tt
from codegen.lowering.kernels import IDENTITIES
from codegen.worked.told import ToldStage
from engine.notation import Index, accesses, canonical, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from sympy import Expr

    from codegen.closed.closing import Closed
    from codegen.closed.regions.cells import Cell
    from codegen.closed.write.line import Line
    from codegen.closed.write.writer import ClosedWriter

TRACED = "as the forward has it"
PART = "as a part of what the forward has in one line"
LAYOUTS = "layouts and constants are put into what reads them, inner sums are tensors, and what is equal is one tensor"
GONE = "it is not computed any more"


@dataclass(frozen=True)
class State:
    """A tensor's definition in the names of the graph, and the rule that led to it; `gone` says that it led away from it."""

    rule: str
    indices: tuple[Expr, ...]
    expr: Expr
    gone: bool = False


def states_of(writer: ClosedWriter) -> dict[str, tuple[State, ...]]:
    """The states of every tensor of the forward that a rule changed, made or left out, in order, the emitted one last."""
    found: dict[str, list[State]] = {c.name: traced(c) for c in writer.structure.traced if c.expr is not None}
    for n in (renamed(note, closed) for note, closed in notes_of(writer)):
        mine = found.setdefault(n.name, [])
        if n.after is None:
            mine.append(State(n.rule, n.indices, cast("Expr", n.before), gone=True))
        else:
            mine.append(State(n.rule, n.indices, n.after))
    found = {n: straight(states) for n, states in found.items()}
    first, emitted = {c.name for c in writer.structure.traced}, {b.name for b in writer.emitted}
    told = {n: tuple(states) for n, states in found.items() if n not in first or told_of(states, n in emitted)}
    named = named_in(told, [n for n in told if n in first or n in emitted])
    return {n: states for n, states in told.items() if n in named}


def named_in(told: Mapping[str, Iterable[State]], names: Iterable[str]) -> set[str]:
    """Some tensors and those that what is told of them names: not what a rule made, and another did without."""
    found: set[str] = set()
    stack = [*names]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(name_of(a) for s in told.get(name, ()) for a in accesses(s.expr))
    return found


def straight(states: list[State]) -> list[State]:
    """The states without those that led away from one and back to it; what a kernel computes stays what it is."""
    kept: list[State] = []
    forms: list[Expr] = []
    for s in states:
        form = canonical(s.expr, {i: Index(f"_s{k}") for k, i in enumerate(s.indices) if i != 0})
        if form in forms and form != forms[-1]:
            k = forms.index(form)
            del kept[k + 1 :], forms[k + 1 :]
        else:
            kept.append(s)
            forms.append(form)
    return kept


def notes_of(writer: ClosedWriter) -> list[tuple[Rewrite, Closed | None]]:
    """What the rules of the forward did, in order, each in the names of its region, if it is one's."""
    regions = [writer.regions[u] for u in writer.units if u in writer.regions]
    return [*[(n, None) for n in writer.structure.notes], *[(n, r) for r in regions for n in noted(r)]]


def rewritten_steps(writer: ClosedWriter) -> tuple[Step, ...]:
    """The forward's part of the trail: every rule that changed how a tensor is computed, and its definition after that."""
    told = states_of(writer).keys() | {c.name for c in writer.structure.traced}
    ranks = {n.name: len(n.shape) for n in writer.graph.nodes} | writer.ranks

    def step(note: Rewrite, closed: Closed | None) -> Step:
        names = {} if closed is None else names_in(note, closed)

        def text() -> str:
            own = renamed(note, closed)
            if own.after is None:
                return f"{own.name}: {GONE}"
            right, at = lettered(own.after, own.indices, ranks)
            known = {**ranks, own.name: len(own.indices)}
            return f"{text_formula(left_side(own.name, at), known)} = {text_formula(right, known)}"

        return Step(names.get(note.name, note.name), said(note.rule, names).replace("`", ""), Rewritten(text))

    steps = (step(note, closed) for note, closed in notes_of(writer))
    return tuple(s for s in steps if s.node in told)


def told_of(states: list[State], emitted: bool) -> bool:
    """Whether there is more to tell of a traced tensor than that layouts were put into what it is not computed from."""
    return len(states) > 1 and (emitted or states[-1].rule != LAYOUTS)


def traced(c: Cell) -> list[State]:
    """The definition of the node that a cell is, and what it is without layouts and constants in between."""
    own = State(PART if c.node is None else TRACED, c.indices, cast("Expr", c.expr))
    known = None if c.node is None else c.node.definition
    if known is None or len(known[0]) != len(c.indices):
        return [own]
    there = {i: j for i, j in zip(known[0], c.indices, strict=True) if i != 0}
    raw = known[1].xreplace(there)
    if canonical(raw) == canonical(own.expr):
        return [own]
    return [State(TRACED, c.indices, raw), State(LAYOUTS, c.indices, own.expr)]


def noted(closed: Closed) -> list[Rewrite]:
    """The notes of a region, and one for every kernel of torch that a line has and the forward did not call."""
    cells = {c.name: c for c in closed.code.cells}
    kernels = [
        Rewrite(x.name, f"torch computes {IDENTITIES[k]}", x.indices, x.expr, x.expr)
        for x in closed.code.forward
        for k in kernels_of(x, cells[x.name].text or "")
    ]
    return [*closed.code.notes, *kernels]


def kernels_of(line: Line, text: str) -> list[str]:
    """The kernels in a line's statement that the forward's own call is none of."""
    heads = (x.head.rpartition(".")[2] for t in line.value.texts() for x in tt.walk(t) if x.kind in ("call", "method"))
    return [h for h in dict.fromkeys(heads) if h in IDENTITIES and f"{h}(" not in text]


def names_in(note: Rewrite, closed: Closed) -> dict[str, str]:
    """What the tensors of a note are called; one that a rule made on the way is called after what it was made of."""
    names = dict(closed.names)
    for n in (note.name, *(name_of(a) for e in (note.before, note.after) if e is not None for a in accesses(e))):
        origin, _, rest = n.partition("_")
        names.setdefault(n, f"{names.get(origin, origin)}_{rest}")
    return names


def said(rule: str, names: Mapping[str, str]) -> str:
    """A rule with the names of tensors in backticks."""
    return re.sub(r"\{(\w+)\}", lambda m: f"`{names.get(m[1], m[1])}`", rule)


def renamed(note: Rewrite, closed: Closed | None) -> Rewrite:
    """A note in the names and sizes of the graph."""
    if closed is None:
        return note
    names = names_in(note, closed)

    def told(e: Any) -> Any:
        return None if e is None else named(e.xreplace(closed.sizes), names)

    return Rewrite(names[note.name], said(note.rule, names), note.indices, told(note.before), told(note.after))


def forward_stages(
    writer: ClosedWriter, avoid: AbstractSet[str], ranks: Mapping[str, int]
) -> dict[str, tuple[ToldStage, ...]]:
    """How the definition of every tensor of the forward that is not as traced came about, with letters for its indices."""
    states = states_of(writer)
    graph = writer.graph
    known = {n.name: len(n.shape) for n in graph.nodes} | dict(ranks)
    known |= {n: len(s[-1].indices) for n, s in states.items() if n not in known}
    return {n: tuple(staged(n, s, avoid, known) for s in found) for n, found in states.items()}


def alike(writer: ClosedWriter) -> dict[str, tuple[int, str]]:
    """Where the definitions of a region's tensors come from, by their names: its code, and what they are called there."""
    return {name: (id(r.code.origin or r.code), own) for r in writer.regions.values() for own, name in r.names.items()}


def staged(name: str, s: State, avoid: Iterable[str], ranks: dict[str, int]) -> ToldStage:
    """One state as the reader sees it."""
    right, at = lettered(s.expr, s.indices, avoid)
    rule = f"{s.rule}: {GONE}" if s.gone else s.rule
    return ToldStage(rule[0].upper() + rule[1:], (), (left_side(name, at), right), ranks)


__all__ = ["State", "alike", "forward_stages", "rewritten_steps", "states_of"]
