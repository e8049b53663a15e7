"""Every row of the op table, evaluated from its index notation, equals torch: values, shapes and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from engine import trace
from engine.evaluate import evaluate
from tests.ops.rows import cases, qualified, rows
from tests.ops.samples import SAMPLES, Call

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


def compare(found: np.ndarray[Any, Any], wanted: torch.Tensor, dtype: torch.dtype, sample: Call, what: str) -> None:
    """One output: dtype, shape, values."""
    assert dtype == wanted.dtype, what
    assert found.shape == tuple(wanted.shape), what
    if sample.values:
        tolerance = max(TOLERANCE.get(wanted.dtype, 0.0), sample.tolerance)
        given = wanted.detach().double() if wanted.is_floating_point() else wanted
        np.testing.assert_allclose(found, given.numpy(), rtol=tolerance, atol=tolerance / 100, err_msg=what)


@pytest.mark.sampled("name")
@pytest.mark.filterwarnings("ignore:.*")  # torch's own about old spellings
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
            compare(found[output], expected, graph[output].dtype, sample, what)
        tried.add(title)
    assert tried == {qualified(f) for f in rows()[name][1]}, "a callable of this row has no sample"


def test_no_sample_is_left_over() -> None:
    assert set(SAMPLES) <= set(rows())


def test_every_elementwise_row_has_probe_points() -> None:
    assert [name for name, (row, _) in rows().items() if row.kind == "elementwise" and not row.probes] == []
