"""Drawings as SVG, laid out here: no Graphviz needed."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from engine.draw.diagram import LIMIT, diagram
from engine.draw.layers import layered

if TYPE_CHECKING:
    from engine.draw.diagram import Box
    from engine.graph import Graph
    from engine.value import Value

_CHARACTER, _LINE, _PADDING, _MARGIN = 7.3, 16.0, 8.0, 16.0
_FILL = {"input": "#e3eefb", "constant": "#f2f2f2", "op": "#ffffff", "output": "#fdeed8", "rest": "#ffffff"}


def to_svg(subject: Value | Graph, limit: int = LIMIT) -> str:
    """The drawing of an expression or a traced forward as an SVG document, left to right.

    Of more than `limit` nodes only the ones nearest to the result are drawn. The same subject gives the same text.
    """
    d = diagram(subject, limit)
    sizes = [_size(box) for box in d.boxes]
    layout = layered(sizes, d.edges)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    corner = f'"{-_MARGIN:.0f}" y="{-_MARGIN:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"',
        f'    viewBox="{-_MARGIN:.0f} {-_MARGIN:.0f} {width:.0f} {height:.0f}"',
        '    font-family="monospace" font-size="12" text-anchor="middle">',
        f"<title>{_text(d.title)}</title>",
        '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '    <path d="M0 0L8 4L0 8z" fill="#555"/></marker>',
        f'<rect x={corner} width="100%" height="100%" fill="#fff"/>',
        '<g fill="none" stroke="#555">',
    ]
    for a, b in layout.edges:
        (_, x0, y0), (x1, end, y1) = layout.places[a], layout.places[b]
        bend = (x0 + x1) / 2
        rest = '" marker-end="url(#arrow)' if b < len(sizes) else f"H{end:.1f}"
        curve = f"M{x0:.1f} {y0:.1f}C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        lines.append(f'<path d="{curve}{rest}"/>')
    lines.append("</g>")
    for box, (w, h), (x, _, y) in zip(d.boxes, sizes, layout.places, strict=False):
        dashes = ' stroke-dasharray="4 3"' if box.kind == "rest" else ""
        lines.append(
            f'<rect x="{x:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="4" '
            f'fill="{_FILL[box.kind]}" stroke="#333"{dashes}/>'
        )
        rows = _rows(box)
        top = y - _LINE * (len(rows) - 1) / 2 + 4
        for k, (line, weight) in enumerate(rows):
            lines.append(f'<text x="{x + w / 2:.1f}" y="{top + k * _LINE:.1f}"{weight}>{_text(line)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _rows(box: Box) -> list[tuple[str, str]]:
    """The lines of a box, each with the attribute that makes the heading bold."""
    bold = [(box.heading, ' font-weight="bold"')] if box.heading else []
    return bold + [(line, "") for line in box.lines]


def _size(box: Box) -> tuple[float, float]:
    rows = _rows(box)
    return max(len(line) for line, _ in rows) * _CHARACTER + 2 * _PADDING, len(rows) * _LINE + _PADDING


def _text(text: str) -> str:
    """Text that cannot be markup; control characters, which XML forbids, become spaces."""
    return escape("".join(c if c.isprintable() else " " for c in text))
