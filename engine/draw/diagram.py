"""What a drawing shows: boxes with lines of text, and arrows between them."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Literal

from engine.errors import InputError
from engine.spelling import size_text
from engine.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.graph import Graph, Node

LIMIT = 250
WIDTH = 48

Kind = Literal["input", "constant", "op", "output", "rest"]


@dataclass(frozen=True)
class Box:
    """One node: its heading (empty for a bare number), further lines of text, and what it is."""

    heading: str
    lines: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True)
class Diagram:
    """Boxes, operands before results, and arrows between positions of boxes, each once and in a fixed order."""

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def diagram(subject: Value | Graph, limit: int = LIMIT) -> Diagram:
    """The diagram of an expression or a traced forward.

    Of more than `limit` nodes only the ones nearest to the result are shown, and one box stands for the rest. Raises
    InputError for a limit below 1.
    """
    if limit < 1:
        raise InputError(f"a drawing needs a limit of at least 1 node, got {limit}")
    if isinstance(subject, Value):
        nodes = subject.walk()
        at = {v: k for k, v in enumerate(nodes)}
        boxes = [_value_box(v, v is subject) for v in nodes]
        operands = [[at[o] for o in v.operands] for v in nodes]
        return _limited(subject.label or "value", boxes, operands, [at[subject]], limit)
    names = {n.name: k for k, n in enumerate(subject.nodes)}
    boxes = [_node_box(n, n.name in subject.outputs) for n in subject.nodes]
    operands = [[names[o] for o in n.operands] for n in subject.nodes]
    return _limited(subject.name, boxes, operands, [names[o] for o in subject.outputs], limit)


def _value_box(v: Value, last: bool) -> Box:
    heading = ": ".join(text for text in (v.label, v.rule.sign if v.rule else "") if text)
    kind: Kind = "output" if last else "op" if v.rule else "input" if v.label else "constant"
    return Box(heading, (f"data {v.data:.4g}", f"grad {v.grad:.4g}"), kind)


def _node_box(n: Node, last: bool) -> Box:
    heading = n.name if n.is_input else shorten(f"{n.name} = {n.forward_text()}", WIDTH, placeholder=" ...")
    shape = ", ".join(size_text(s) for s in n.shape) + ("," if len(n.shape) == 1 else "")
    kind: Kind = "output" if last else "input" if n.is_input else "op" if n.operands else "constant"
    return Box(heading, (f"{str(n.dtype).removeprefix('torch.')} ({shape})",), kind)


def _limited(title: str, boxes: list[Box], operands: list[list[int]], outputs: Sequence[int], limit: int) -> Diagram:
    """All of it, or the boxes that are fewest arrows away from an output and a box that stands for the rest."""
    kept = sorted(_nearest(operands, outputs, limit)) if len(boxes) > limit else list(range(len(boxes)))
    at = {k: position for position, k in enumerate(kept)}
    edges = dict.fromkeys((at[o], at[k]) for k in kept for o in operands[k] if o in at)
    cut = [at[k] for k in kept if any(o not in at for o in operands[k])]
    shown = [boxes[k] for k in kept]
    if cut:
        rest = Box(f"{len(boxes) - len(kept):,} more", (), "rest")
        return Diagram(title, (rest, *shown), tuple([(0, k + 1) for k in cut] + [(a + 1, b + 1) for a, b in edges]))
    return Diagram(title, tuple(shown), tuple(edges))


def _nearest(operands: list[list[int]], outputs: Sequence[int], limit: int) -> list[int]:
    found = dict.fromkeys(outputs)
    ring = list(found)
    while ring and len(found) < limit:
        ring = [o for o in dict.fromkeys(o for k in ring for o in operands[k]) if o not in found]
        found.update(dict.fromkeys(ring))
    return list(found)[:limit]
