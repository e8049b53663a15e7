"""Record a forward pass and define its ops: `trace`, `Graph`, the op table, and the scalar engine."""

from engine.errors import ShapeError, SymgradError, TraceError
from engine.graph import Graph, Node
from engine.table import elementwise, op
from engine.trace import trace

__all__ = ["Graph", "Node", "ShapeError", "SymgradError", "TraceError", "elementwise", "op", "trace"]
