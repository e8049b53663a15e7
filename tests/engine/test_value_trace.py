"""From a `Value` expression to a traced graph."""

import pytest
import torch

from engine.errors import InputError
from engine.graph import Graph
from engine.spelling import Ref
from engine.value import Value


def run(graph: Graph, *inputs: float) -> float:
    """The graph's torch calls, one after the other, on 0-d float64 tensors."""
    results = {n: torch.tensor(x, dtype=torch.float64) for n, x in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        if node.call is not None:
            operands = [results[o] for o in node.operands]
            args = [operands[a.position] if isinstance(a, Ref) else a for a in node.call.args]
            results[node.name] = node.call.function(*args)
    (out,) = graph.outputs
    return results[out].item()


def test_every_op_becomes_the_node_of_the_same_row() -> None:
    x, y = Value(0.7, label="x"), Value(-1.2, label="y")
    value = (2 * x + y - 1).tanh() / y + (x**2.5).log() - (-y).exp() + (3 - x).relu() * 2**y + 1 / x
    graph = value.trace({"x": x, "y": y})
    assert graph.inputs == ("x", "y")
    assert all(n.dtype == torch.float64 and n.shape == () for n in graph.nodes)
    assert run(graph, 0.7, -1.2) == pytest.approx(value.data, rel=1e-14)
    assert all(n.template is not None for n in graph.nodes if not n.is_input)


def test_the_graph_computes_at_other_inputs_too() -> None:
    x = Value(3.0)
    graph = (x.relu() * x + x**3).trace({"x": x})
    for at in (-2.0, 0.0, 5.5):
        assert run(graph, at) == max(at, 0) * at + at**3


def test_it_reads_as_the_program_that_was_written() -> None:
    a, b = Value(-4.0), Value(2.0)
    c = a * b
    c.label = "c"
    d = c + b**3
    d.label = "d"
    lines = [line.split("#")[0].split() for line in repr(d.trace({"a": a, "b": b})).splitlines() if "=" in line]
    assert [" ".join(line) for line in lines] == ["c = a * b", "d_pow = b ** 3", "d = c + d_pow"]


def test_numbers_that_involve_no_input_are_computed() -> None:
    x, two, three = Value(1.0), Value(2.0), Value(3.0)
    graph = ((two * three + 1) * x).trace({"x": x})
    assert len(graph.nodes) == 2
    assert run(graph, 10.0) == 70.0


def test_an_input_may_be_an_intermediate_value() -> None:
    x = Value(2.0)
    h = x.exp()
    graph = (h * h + x).trace({"h": h, "x": x})
    assert graph.inputs == ("h", "x")
    assert run(graph, 3.0, 1.0) == 10.0


def test_an_input_without_influence_stays_an_input() -> None:
    x, y = Value(2.0), Value(3.0)
    assert (x + 1).trace({"y": y, "x": x}).inputs == ("y", "x")


def test_depth_is_no_obstacle() -> None:
    x = Value(1.0)
    v = x
    for _ in range(3000):
        v = v + x
    assert len(v.trace({"x": x}).nodes) == 3001


def test_bad_inputs_are_refused() -> None:
    x = Value(1.0)
    y = x * 2
    with pytest.raises(InputError, match="'2x' is not a Python identifier"):
        y.trace({"2x": x})
    with pytest.raises(InputError, match="'lambda' is not a Python identifier"):
        y.trace({"lambda": x})
    with pytest.raises(InputError, match="'a' and 'b': name it once"):
        y.trace({"a": x, "b": x})
    with pytest.raises(InputError, match="depends on none of its inputs z"):
        y.trace({"z": Value(1.0)})
    with pytest.raises(InputError, match="none were given"):
        y.trace({})
