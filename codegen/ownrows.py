"""Rows of the user's own against the functions that they stand for: a definition is checked before it is trusted.

Everything is derived from definitions, and the truth that a check holds both sides against is computed from them. A wrong
definition would therefore agree with itself; here its values are compared with what the function returns.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from codegen.truth import FAILURES
from engine.evaluate import evaluate
from engine.ops import TABLE
from engine.own import keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from torch import Tensor

    from engine.graph import Graph, Node
    from engine.table import Row

ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-4}
"""How far a value may be from its definition, relative to the largest value, by dtype."""


def row_differences(graph: Graph, inputs: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[str]:
    """One line for each node whose row, none of the bundled ones, defines something else than its function computes.

    `values` are what the functions returned, by node name; a definition is evaluated at its operands' values.
    """
    problems: list[str] = []
    for node in graph.nodes:
        row = _own_row(node)
        if row is None or node.template is None:
            continue
        others = {name: v for name, v in values.items() if name != node.name}
        try:
            with np.errstate(all="ignore"):
                defined = np.asarray(evaluate(graph, inputs, "float64", others)[node.name])
        except FAILURES as error:
            problems.append(f"{_where(node, row)} cannot be evaluated: {type(error).__name__}: {error}")
            continue
        problems += _difference(node, row, defined, values[node.name])
    return problems


def _own_row(node: Node) -> Row | None:
    """The row of a node, if it is one of the user's."""
    if node.call is None:
        return None
    row = next((TABLE[k] for k in keys_of(node.call.function) if k in TABLE), None)
    return None if row is None or row.bundled else row


def _difference(node: Node, row: Row, defined: npt.NDArray[Any], value: Tensor) -> list[str]:
    computed = array_of(value.detach().double())
    if defined.shape != computed.shape:
        return [f"{_where(node, row)} defines the shape {defined.shape}, and the function returns {computed.shape}"]
    finite = np.abs(computed[np.isfinite(computed)])
    size = ROUNDING.get(value.dtype, 1e-2) * max(1.0, float(finite.max()) if finite.size else 1.0)
    wrong = ~np.isclose(defined.astype(np.float64), computed, rtol=0.0, atol=size, equal_nan=True)
    if not wrong.any():
        return []
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    said, true = float(defined[at]), float(computed[at])
    return [
        f"{_where(node, row)} defines {said:.6g} at {list(at)}, and the function computes {true:.6g}: correct the row"
    ]


def array_of(t: Tensor) -> npt.NDArray[np.float64]:
    """A float64 tensor's numbers."""
    return np.array(cast("Any", t).tolist(), dtype=np.float64).reshape(tuple(t.shape))


def _where(node: Node, row: Row) -> str:
    code = inspect.unwrap(row.define).__code__
    return f"{node.name} ({node.op} at {node.source}): its row, {Path(code.co_filename).name}:{code.co_firstlineno},"
