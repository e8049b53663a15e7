"""Elementwise rows: their probe points, on a grid for two operands, at several shapes; and what else they take."""

from __future__ import annotations

import torch

import engine
from engine.table import TABLE, Row
from tests.ops.samples.call import Call, b, call, p, t

assert engine.trace  # fills the table

NUMBERS: dict[str, list[dict[str, float]]] = {
    "threshold": [{"threshold": 0.5, "value": 2.0}],
    "hardtanh": [{}, {"min_val": -0.5, "max_val": 2.0}],
    "leaky_relu": [{}, {"negative_slope": 0.3}],
    "elu": [{}, {"alpha": 0.7}],
    "celu": [{}, {"alpha": 0.7}],
    "softplus": [{}, {"beta": 2.0, "threshold": 5.0}],
    "hardshrink": [{}, {"lambd": 1.0}],
    "softshrink": [{}, {"lambd": 1.0}],
    "logit": [{}, {"eps": 0.3}],
    "rrelu": [{}],
    "clamp": [{"min": -0.5, "max": 1.0}, {"min": 0.0}, {"max": 0.5}, {"min": 1.0, "max": -1.0}],
    "add": [{}, {"alpha": 2.5}],
    "sub": [{}, {"alpha": 2.5}],
    "rsub": [{}],
    "addcmul": [{}, {"value": 0.5}],
    "addcdiv": [{}, {"value": 0.5}],
}
"""Numbers that a row takes besides its tensors; `{}` where the defaults do."""

WITH_A_NUMBER = ("add", "sub", "mul", "div", "pow", "maximum", "gt", "le", "eq", "remainder", "fmod", "xlogy")
"""Rows whose second operand may be a Python number. (maximum takes tensors only.)"""


ROUNDED = {"celu": 6e-8, "hardsigmoid": 6e-8}
"""Rows whose gradient torch scales by a constant that it rounds to float32 first (1/alpha, 1/6), and by how much that is
wrong."""


def arity(row: Row) -> int:
    """How many tensors a row's function takes."""
    numbers = {name for given in NUMBERS.get(row.name, []) for name in given}
    required = [
        q.name
        for q in row.signature.parameters.values()
        if q.default is q.empty and q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD) and q.name not in numbers
    ]
    return len(required)


def grid(row: Row) -> list[Call]:
    """The probe points in every combination, and random tensors of shapes that broadcast, size one included."""
    count = arity(row)
    probes = torch.tensor(row.probes, dtype=torch.float64)
    if row.name in ("addcdiv", "lerp"):
        probes = probes[probes.abs() > 0]
    out: list[Call] = []
    shapes = {1: [((3, 2),), ((1,),), ((),)], 2: [((3, 1), (1, 2)), ((), (4,)), ((1,), (1, 1))]}.get(
        count, [((2, 3),) * count]
    )
    low, high = float(probes.min()), float(probes.max())
    draw = p if low > 0 or high <= 1 else t
    shift = 1.5 if low > 1 else 0.0
    for numbers in NUMBERS.get(row.name, [{}]):
        axes = [probes.reshape([-1 if d == k else 1 for d in range(count)]).clone() for k in range(count)]
        rough = ROUNDED.get(row.name, 0.0)
        out.append(Call(tuple(axes), dict(numbers), tolerance=rough))
        out.extend(
            Call(tuple(draw(*shape) + shift for shape in given), dict(numbers), tolerance=rough) for given in shapes
        )
    return out


def rows() -> dict[str, Row]:
    """The table's bundled elementwise rows by name."""
    return {row.name: row for row in TABLE.values() if row.kind == "elementwise" and row.bundled}


SAMPLES = {name: grid(row) for name, row in rows().items()}
for _name in ("add", "sub", "mul", "div", "gt", "le", "eq", "pow", "__rpow__", "rsub", "remainder"):
    SAMPLES[_name].append(call(p(3, 2), 2.5))
    SAMPLES[_name].append(call(p(2), 3))
SAMPLES["pow"] += [
    call(t(3), 2),
    call(t(3), -1),
    call(p(3), 0.5),
    call(t(3), 0),
    call(torch.zeros(2).double(), torch.tensor([0.0, 1.5]).double()),
]
SAMPLES["clamp"] += [call(t(4), t(4) - 1, t(4) + 1), call(t(3, 4), min=t(4))]
SAMPLES["clamp_min"] += [call(t(4), 0.25)]
SAMPLES["clamp_max"] += [call(t(4), 0.25)]
SAMPLES["gelu"] += [call(t(5), approximate="tanh")]
SAMPLES["lerp"] += [call(t(4), t(4), 0.3)]
SAMPLES["isnan"] += [call(torch.tensor([1.0, float("nan"), float("inf")]))]
SAMPLES["isinf"] += [call(torch.tensor([1.0, float("nan"), float("inf"), -float("inf")]))]
SAMPLES["isfinite"] += [call(torch.tensor([1.0, float("nan"), float("inf"), -float("inf")]))]
SAMPLES["mul"] += [call(t(3), b(3))]
