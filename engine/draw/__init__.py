"""Drawings of what was computed, of a `Value` or a traced `Graph`: `to_dot` for Graphviz, `to_svg` for a browser."""

from engine.draw.diagram import LIMIT
from engine.draw.dot import to_dot
from engine.draw.svg import to_svg

__all__ = ["LIMIT", "to_dot", "to_svg"]
