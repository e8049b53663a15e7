"""The closed backwards of the bundled examples are as near to the truth as autograd in float32, at common offsets too."""

import pytest
import torch
from torch import Tensor

from codegen.build import default_targets
from codegen.inputs import example_inputs
from codegen.program import Program, generate
from codegen.reference import autograd, values_of
from codegen.targets import load_target

OFFSETS = (0.0, 10.0, 100.0, 1000.0)
SLACK = 2.0
"""Two orders of the same operations differ by luck by about this much."""
FLOOR = 4 * torch.finfo(torch.float32).eps
PROGRAMS: dict[str, Program] = {}
LOST = pytest.mark.xfail(
    reason="the mean that was subtracted is rounded; its error stays in the gradient's column sums, and the inputs' offset scales them",
)
KNOWN = {
    ("mlp", 10.0),
    ("mlp", 100.0),
    ("mlp", 1000.0),
    ("deep_mlp", 100.0),
    ("deep_mlp", 1000.0),
    ("transformer", 10.0),
}


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        pytest.param(name, offset, marks=LOST if (name, offset) in KNOWN else ())
        for name in default_targets()
        for offset in OFFSETS
    ],
)
def test_closed_gradients_are_as_accurate_as_autograds(name: str, offset: float) -> None:
    target = load_target(name)
    inputs = example_inputs(target, torch.float32)
    if name not in PROGRAMS:
        PROGRAMS[name] = generate(target.forward, *inputs.values(), mode="closed")
    first = next(n for n, t in inputs.items() if t.is_floating_point())
    moved = {n: t + offset if n == first else t for n, t in inputs.items()}
    program = PROGRAMS[name]
    exact = gradients(program, [t.double() if t.is_floating_point() else t for t in moved.values()])
    theirs = gradients(program, list(moved.values()))
    out, saved = program.forward(*moved.values())
    ours = program.backward(saved, torch.ones_like(out))
    worse: dict[str, tuple[float, float]] = {}
    for n, true in exact.items():
        if bool(true.isfinite().all()) and bool(theirs[n].isfinite().all()):
            mine, its = (error(g[n], true) for g in (ours, theirs))
            if not mine <= max(SLACK * its, FLOOR):
                worse[n] = (mine, its)
    assert worse == {}


def gradients(program: Program, tensors: list[Tensor]) -> dict[str, Tensor]:
    """autograd's of the inputs, by name; in float64 it is the truth for float32."""
    graph = program.graph
    shape = values_of(graph, tensors)[graph.outputs[0]]
    found = autograd(graph, tensors, [torch.ones_like(shape)]).gradients
    return {n: g for n in graph.inputs if graph[n].differentiable and (g := found[n]) is not None}


def error(g: Tensor, true: Tensor) -> float:
    """The root of the mean square error over that of the truth."""
    return float((g.double() - true).square().mean().sqrt() / true.square().mean().sqrt().clamp(min=1e-30))
