"""Every row of the op table, evaluated from its index notation, equals torch: values, shapes and dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from engine import trace
from engine.evaluate import evaluate
from engine.table import TABLE, Row
from tests.ops.samples import SAMPLES, Call

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


def qualified(target: Any) -> str:
    """`torch.add`, `Tensor.add`, `functional.relu`: which of several callables of a name one is."""
    name = getattr(target, "__name__", str(target))
    if name == "__get__":
        return f"Tensor.{target.__self__.__name__}"
    for space, title in ((torch.Tensor, "Tensor"), (torch.nn.functional, "functional"), (torch.linalg, "linalg"), (torch.special, "special")):
        if getattr(space, name, None) is target:
            return f"{title}.{name}"
    return f"torch.{name}"


def rows() -> dict[str, tuple[Row, list[Callable[..., Any]]]]:
    """The table's rows by name, with the callables they stand for."""
    found: dict[str, tuple[Row, list[Callable[..., Any]]]] = {}
    for target, row in TABLE.items():
        found.setdefault(row.name, (row, []))[1].append(target)
    return dict(sorted(found.items()))


def cases(name: str) -> list[tuple[str, Callable[..., Any], Call]]:
    """Every callable of a row with every sample that applies to it."""
    targets = rows()[name][1]
    return [(qualified(f), f, c) for c in SAMPLES[name] for f in targets if c.only in qualified(f)]


def compare(graph_value: np.ndarray[Any, Any], wanted: torch.Tensor, dtype: torch.dtype, values: bool, what: str) -> None:
    """One output: dtype, shape, values."""
    assert dtype == wanted.dtype, what
    assert graph_value.shape == tuple(wanted.shape), what
    if values:
        tolerance = TOLERANCE.get(wanted.dtype, 0.0)
        given = wanted.detach().double() if wanted.is_floating_point() else wanted
        np.testing.assert_allclose(graph_value, given.numpy(), rtol=tolerance, atol=tolerance / 100, err_msg=what)


@pytest.mark.parametrize("name", rows())
def test_definition_equals_torch(name: str) -> None:
    assert SAMPLES.get(name), f"row {name!r} has no sample in tests/ops/samples"
    tried: set[str] = set()
    for title, target, sample in cases(name):
        tensors = sample.tensors()
        forward = sample.forward(target)
        what = f"{title}{tuple(tuple(x.shape) for x in tensors)} {sample.args} {sample.kwargs}"
        torch.manual_seed(0)
        wanted = pytree.tree_leaves(forward(*[x.clone() for x in tensors]))
        graph = trace(forward, *tensors)
        torch.manual_seed(0)
        found = evaluate(graph, dict(zip(graph.inputs, tensors, strict=True)))
        assert len(graph.outputs) == len(wanted), what
        for output, expected in zip(graph.outputs, wanted, strict=True):
            compare(found[output], expected, graph[output].dtype, sample.values, what)
        tried.add(title)
    assert tried == {qualified(f) for f in rows()[name][1]}, "a callable of this row has no sample"


def test_no_sample_is_left_over() -> None:
    assert set(SAMPLES) <= set(rows())
