"""Rewrites of a step: each is an identity, tried where it may hold and used only where it does hold at the small point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codegen.loop.cost import Priced, price
from codegen.loop.graph import Node, Step, equal, mapped, nodes_in
from codegen.loop.tidy import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass
class Match:
    """One use of an identity: new calls in order, and what each replaced node becomes."""

    nodes: list[Node]
    pairs: list[tuple[Node, Node]]
    at: Node | None = None
    key: Any = None
    later: tuple[list[Node], Node] | None = None

    @property
    def everything(self) -> list[Node]:
        """All of the new calls; those of `later` stand where its node does."""
        return [*self.nodes, *(self.later[0] if self.later else ())]


@dataclass(frozen=True)
class Rule:
    """An identity: `find` yields where it may be used. `text` states it. Unless `always`, it is used where it is cheaper.

    `ahead` is set where it reads what the batch gives for many steps at once.
    """

    name: str
    text: str
    find: Callable[[Step], Iterator[Match]]
    always: bool = False
    ahead: bool = False


@dataclass
class Applied:
    """What was used and refused, for the emitted file and for tests."""

    used: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])


def apply(step: Step, rules: tuple[Rule, ...]) -> Applied:
    """Use rules one after the other, each wherever it holds and pays. An identity that does not hold is refused."""
    told = Applied()
    for rule in rules:
        decided: dict[Any, bool] = {}
        matches = list(rule.find(step))
        alive = set(step.order)
        changed = False
        instead: dict[Node, Node] = {}
        known: dict[Node, Priced] = {}
        for match in matches:
            brought_up(match, instead)
            if not all(old in alive for old, _ in match.pairs) or not all(
                r in alive or r in match.everything for n in match.everything for r in n.reads
            ):
                continue
            if not all(equal(old.value, new.value) for old, new in match.pairs):
                told.refused.append(rule.name)
                continue
            key = match.key
            if not rule.always and key is not None and key in decided and not decided[key]:
                continue
            sure = rule.always or bool(decided.get(key))
            before = None if sure else snapshot(step)
            cost = 0.0 if sure else price(step, known)
            install(step, match)
            changed = True
            alive.update(match.everything)
            if sure:
                told.used.append(rule.name)
                instead |= match.pairs
                continue
            step.sort()
            good = price(step, known) < cost
            if key is not None:
                decided[key] = good
            if good:
                told.used.append(rule.name)
                instead |= match.pairs
                alive = set(step.order)
            else:
                restore(step, before)
                alive = set(step.order)
        if changed:
            step.sort()
    merged(step)
    step.sort()
    return told


def brought_up(match: Match, instead: Mapping[Node, Node]) -> None:
    """Let a match read what is there now in place of what earlier ones replaced."""

    def now(a: Any) -> Any:
        while isinstance(a, Node) and a in instead:
            a = instead[a]
        return a

    for n in match.everything:
        if any(r in instead for r in n.reads):
            n.args, n.kwargs = mapped(n.args, now), {k: mapped(v, now) for k, v in n.kwargs.items()}
    match.at = now(match.at)
    if match.later is not None:
        match.later = match.later[0], now(match.later[1])


def install(step: Step, match: Match) -> None:
    """Put a match's calls in place of what they are equal to."""
    step.insert(match.nodes, match.at or match.pairs[0][0])
    if match.later is not None:
        step.insert(*match.later)
    for old, new in match.pairs:
        if not new.name and new.op != "input":
            new.name = old.name
        fresh = match.everything
        kept = {n: (n.args, n.kwargs) for n in fresh}
        step.replace(old, new)
        for n, (args, kwargs) in kept.items():
            n.args, n.kwargs = args, kwargs
            if step.readers is not None and old in n.reads:
                step.readers.setdefault(old, []).append(n)


def snapshot(step: Step) -> Any:
    """What `restore` needs to undo a rewrite."""
    return [(n, n.args, n.kwargs) for n in step.order], list(step.order), dict(step.results)


def restore(step: Step, state: Any) -> None:
    """Undo."""
    rows, step.order, step.results = state
    step.readers = None
    for n, args, kwargs in rows:
        n.args, n.kwargs = args, kwargs


def near(n: Node, depth: int) -> dict[Node, None]:
    """What a node is computed from in at most `depth` calls."""
    found: dict[Node, None] = {}
    row = [n]
    for _ in range(depth):
        row = [r for x in row for r in x.reads if r not in found]
        found.update(dict.fromkeys(row))
    return found


def depends_on(step: Step, sources: set[Node]) -> set[Node]:
    """Everything that is computed from some nodes, themselves included."""
    found = set(sources)
    for n in step.order:
        if any(r in found for r in n.reads):
            found.add(n)
    return found


__all__ = ["Applied", "Match", "Rule", "apply", "depends_on", "mapped", "near", "nodes_in"]
