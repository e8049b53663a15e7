"""Drawings in Graphviz's language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.draw.diagram import LIMIT, diagram

if TYPE_CHECKING:
    from engine.graph import Graph
    from engine.value import Value

_STYLES = {
    "input": 'style=filled fillcolor="#e3eefb"',
    "constant": 'style=filled fillcolor="#f2f2f2"',
    "op": 'style=filled fillcolor="#ffffff"',
    "output": 'style=filled fillcolor="#fdeed8"',
    "rest": "style=dashed",
}


def to_dot(subject: Value | Graph, limit: int = LIMIT) -> str:
    """The drawing of an expression or a traced forward as Graphviz text, left to right.

    Of more than `limit` nodes only the ones nearest to the result are drawn. The same subject gives the same text.
    """
    d = diagram(subject, limit)
    lines = [f"digraph {_quoted(d.title)} {{", "  rankdir=LR", '  node [shape=box fontname="monospace"]']
    for k, box in enumerate(d.boxes):
        label = r"\n".join(_escaped(line) for line in (box.heading, *box.lines) if line)
        lines.append(f'  n{k} [label="{label}" {_STYLES[box.kind]}]')
    lines += [f"  n{a} -> n{b}" for a, b in d.edges]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', r"\"")
