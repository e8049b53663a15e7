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
DRAWS = 4
"""Inputs near the offset; a gradient's error is taken over all of them, as a single draw's is by luck small or large."""
JITTER = 0.01
PROGRAMS: dict[str, Program] = {}


@pytest.mark.sampled("name")
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("name", default_targets())
def test_closed_gradients_are_as_accurate_as_autograds(name: str, offset: float) -> None:
    target = load_target(name)
    inputs = example_inputs(target, torch.float32)
    if name not in PROGRAMS:
        PROGRAMS[name] = generate(target.forward, *inputs.values(), mode="closed")
    program = PROGRAMS[name]
    first = next(n for n, t in inputs.items() if t.is_floating_point())
    mine: dict[str, list[float]] = {}
    its: dict[str, list[float]] = {}
    for seed in range(DRAWS):
        noise = torch.randn(inputs[first].shape, generator=torch.Generator().manual_seed(seed))
        moved = {**inputs, first: inputs[first] + offset + JITTER * noise}
        exact = gradients(program, [t.double() if t.is_floating_point() else t for t in moved.values()])
        theirs = gradients(program, list(moved.values()))
        out, saved = program.forward(*moved.values())
        ours = program.backward(saved, torch.ones_like(out))
        for n, true in exact.items():
            if bool(true.isfinite().all()) and bool(theirs[n].isfinite().all()):
                mine.setdefault(n, []).append(error(ours[n], true))
                its.setdefault(n, []).append(error(theirs[n], true))
    errors = {n: (over_draws(mine[n]), over_draws(its[n])) for n in mine}
    assert {n: e for n, e in errors.items() if not e[0] <= max(SLACK * e[1], FLOOR)} == {}


def over_draws(errors: list[float]) -> float:
    """The root of the mean square."""
    return float(torch.tensor(errors).square().mean().sqrt())


def gradients(program: Program, tensors: list[Tensor]) -> dict[str, Tensor]:
    """autograd's of the inputs, by name; in float64 it is the truth for float32."""
    graph = program.graph
    shape = values_of(graph, tensors)[graph.outputs[0]]
    found = autograd(graph, tensors, [torch.ones_like(shape)]).gradients
    return {n: g for n in graph.inputs if graph[n].differentiable and (g := found[n]) is not None}


def error(g: Tensor, true: Tensor) -> float:
    """The root of the mean square error over that of the truth."""
    return float((g.double() - true).square().mean().sqrt() / true.square().mean().sqrt().clamp(min=1e-30))
