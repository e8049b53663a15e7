"""Record a forward pass and define its ops: `trace`, `Graph`, the op table, and the scalar engine."""

from typing import TYPE_CHECKING

from engine.lazy import lazy

if TYPE_CHECKING:
    from engine.errors import ShapeError, SymgradError, TraceError
    from engine.graph import Graph, Node
    from engine.notation import fresh, sigma
    from engine.own import overridable
    from engine.table import define, elementwise, op
    from engine.trace import trace
    from engine.value import Value

__all__ = [
    "Graph",
    "Node",
    "ShapeError",
    "SymgradError",
    "TraceError",
    "Value",
    "define",
    "elementwise",
    "fresh",
    "op",
    "overridable",
    "sigma",
    "trace",
]
__getattr__ = lazy(
    __name__,
    {
        "Graph": "engine.graph",
        "Node": "engine.graph",
        "ShapeError": "engine.errors",
        "SymgradError": "engine.errors",
        "TraceError": "engine.errors",
        "Value": "engine.value",
        "define": "engine.table",
        "elementwise": "engine.table",
        "fresh": "engine.notation",
        "op": "engine.table",
        "overridable": "engine.own",
        "sigma": "engine.notation",
        "trace": "engine.trace",
    },
)
