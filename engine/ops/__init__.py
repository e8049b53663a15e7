"""The rows of the op table, by family. Importing this package fills the table."""

from engine.ops import factories, indexing, layout, linear, losses, normalization, pointwise, reductions

__all__ = ["factories", "indexing", "layout", "linear", "losses", "normalization", "pointwise", "reductions"]
