"""The graph as SVG from top to bottom, each node a link to what is told of it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from engine.draw.layers import layered
from engine.spelling import shape_text

if TYPE_CHECKING:
    from engine.graph import Graph, Node

LIMIT = 400
"""Of a larger graph the last nodes are drawn; all of them are in the list below the picture."""
_CHARACTER, _HEIGHT, _MARGIN = 7.6, 40.0, 12.0


def anchor(name: str) -> str:
    """The id of a node's section."""
    return f"node-{name}"


def picture(graph: Graph) -> str:
    """An SVG element. Operands stand above what reads them; the same graph gives the same text."""
    shown = graph.nodes[-LIMIT:]
    place = {n.name: k for k, n in enumerate(shown)}
    widths = [max(len(n.name), len(shape_text(n.shape)) * 0.85) * _CHARACTER + 18 for n in shown]
    edges = list(dict.fromkeys((place[o], k) for k, n in enumerate(shown) for o in n.operands if o in place))
    layout = layered([(_HEIGHT, w) for w in widths], edges)
    width, height = layout.height + 2 * _MARGIN, layout.width + 2 * _MARGIN
    lines = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" style="--w:{width:.0f}px" width="{width:.0f}" height="{height:.0f}"',
        f'    viewBox="{-_MARGIN:.0f} {-_MARGIN:.0f} {width:.0f} {height:.0f}">',
        f"<title>{escape(graph.name)}</title>",
        (
            '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
            '<path class="tip" d="M0 0L8 4L0 8z"/></marker>'
        ),
    ]
    for a, b in layout.edges:
        (_, top, x0), (bottom, end, x1) = layout.places[a], layout.places[b]
        bend = (top + bottom) / 2
        rest = '" marker-end="url(#tip)' if b < len(shown) else f"V{end:.1f}"
        curve = f"M{x0:.1f} {top:.1f}C{x0:.1f} {bend:.1f} {x1:.1f} {bend:.1f} {x1:.1f} {bottom:.1f}"
        lines.append(f'<path class="edge" d="{curve}{rest}"/>')
    for n, w, (top, _, x) in zip(shown, widths, layout.places, strict=False):
        lines.append(
            f'<a href="#{anchor(n.name)}" class="{kind_of(graph, n)}"><title>{escape(n.forward_text())}</title>'
            f'<rect x="{x - w / 2:.1f}" y="{top:.1f}" width="{w:.1f}" height="{_HEIGHT:.0f}" rx="5"/>'
            f'<text x="{x:.1f}" y="{top + 17:.1f}" class="name">{escape(n.name)}</text>'
            f'<text x="{x:.1f}" y="{top + 32:.1f}" class="shape">{escape(shape_text(n.shape))}</text></a>'
        )
    return "\n".join([*lines, "</svg>"])


def kind_of(graph: Graph, node: Node) -> str:
    """What a node is, for its colour."""
    if node.name in graph.outputs:
        return "output"
    return "input" if node.is_input else "op" if node.differentiable else "fixed"


__all__ = ["anchor", "picture"]
