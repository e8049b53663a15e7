"""Record a forward pass and define its ops: `trace`, `Graph`, the op table, and the scalar engine."""

from typing import TYPE_CHECKING

from engine.lazy import lazy

if TYPE_CHECKING:
    from engine.errors import ShapeError, SymgradError, TraceError
    from engine.graph import Graph, Node
    from engine.table import elementwise, op
    from engine.trace import trace
    from engine.value import Value

__all__ = ["Graph", "Node", "ShapeError", "SymgradError", "TraceError", "Value", "elementwise", "op", "trace"]
__getattr__ = lazy(
    __name__,
    {
        "Graph": "engine.graph",
        "Node": "engine.graph",
        "ShapeError": "engine.errors",
        "SymgradError": "engine.errors",
        "TraceError": "engine.errors",
        "Value": "engine.value",
        "elementwise": "engine.table",
        "op": "engine.table",
        "trace": "engine.trace",
    },
)
