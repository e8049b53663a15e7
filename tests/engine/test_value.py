"""`engine.Value` against torch's autograd in float64, and at the edges of Python and of floating point."""

import dataclasses
import gc
import math
import operator
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine import scalar
from engine.errors import InputError
from engine.value import Value

Forward = Callable[..., Any]


def gradients(forward: Forward, *at: float) -> tuple[float, list[float]]:
    """The forward's value and its derivatives by `Value`."""
    inputs = [Value(x) for x in at]
    out = forward(*inputs)
    out.backward()
    return out.data, [x.grad for x in inputs]


def truth(forward: Forward, *at: float) -> tuple[float, list[float]]:
    """The same by torch."""
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in at]
    out = forward(*inputs)
    grads = torch.autograd.grad(out, inputs, allow_unused=True)
    return out.item(), [0.0 if g is None else g.item() for g in grads]


def assert_agrees(forward: Forward, *at: float) -> None:
    (data, grads), (expected, expected_grads) = gradients(forward, *at), truth(forward, *at)
    assert data == pytest.approx(expected, rel=1e-12, abs=1e-300, nan_ok=True)
    assert grads == pytest.approx(expected_grads, rel=1e-12, abs=1e-300, nan_ok=True)


# -- whole expressions -------------------------------------------------------------------------------------------------


def reused_and_rectified(x: Any) -> Any:
    """One input used in several places, through relu on both of its sides."""
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    return h + q + q * x


def every_operator(a: Any, b: Any) -> Any:
    """All operators, reflected and augmented ones, numbers on both sides, powers of both signs."""
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g


def logistic_neuron(x: Any, w: Any, b: Any) -> Any:
    score = (w * x + b).tanh()
    return (1 + (-score).exp()).log() - 0.5**score


@pytest.mark.parametrize(
    ("forward", "at"),
    [
        (reused_and_rectified, (-4.0,)),
        (reused_and_rectified, (0.75,)),
        (every_operator, (-4.0, 2.0)),
        (every_operator, (0.3, -1.7)),
        (logistic_neuron, (0.5, -3.0, 6.8)),
    ],
)
def test_expressions_agree_with_torch(forward: Forward, at: tuple[float, ...]) -> None:
    assert_agrees(forward, *at)


def test_known_numbers() -> None:
    assert gradients(every_operator, -4.0, 2.0) == (
        pytest.approx(24.70408163265306),
        pytest.approx([138.83381924198252, 645.5772594752186]),
    )


# -- single ops --------------------------------------------------------------------------------------------------------

UNARY: dict[str, Forward] = {
    "neg": operator.neg,
    "relu": lambda x: x.relu(),
    "tanh": lambda x: x.tanh(),
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    **{f"x**{p}": (lambda x, p=p: x**p) for p in (0, 1, 2, 3, -1, -2, 0.5, -0.5, 1 / 3, 2.5, -1.5, 0.1)},
    **{f"{b}**x": (lambda x, b=b: b**x) for b in (1, 2, 0.5, 10.0, 1 / 3)},
    **{f"{c} with x": (lambda x, c=c: (x + c) * (c + x) + (x - c) / 3 + (c - x)) for c in (2, -0.5, 0)},
    "quotients": lambda x: x / 3 + 3 / x,
}
EDGES = (0.0, 1.0, -1.0, 0.5, -0.5, 1e-8, 20.0, -20.0, 100.0, -100.0, 300.0, -300.0, 1e3, -1e3)


@pytest.mark.parametrize("x", EDGES)
@pytest.mark.parametrize("name", UNARY)
def test_ops_agree_with_torch_at_edges(name: str, x: float) -> None:
    assert_agrees(UNARY[name], x)


@pytest.mark.parametrize("x", [0.0, 1.5, -3.0])
@pytest.mark.parametrize("y", [0.0, 2.0, -0.25])
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_operators_agree_with_torch_at_edges(op: Forward, x: float, y: float) -> None:
    assert_agrees(op, x, y)


def test_the_derivative_of_tanh_is_not_loopys() -> None:
    _, (grad,) = gradients(Value.tanh, 0.5)
    assert grad == pytest.approx(0.786, abs=1e-3)
    assert (1 - math.tanh(0.5)) ** 2 == pytest.approx(0.289, abs=1e-3)


def test_a_wrong_derivative_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = scalar.rule("tanh")
    x = right.partials.symbols[0]
    wrong = dataclasses.replace(right, partials=scalar.Formula([x], [(1 - sp.tanh(x)) ** 2]))
    assert_agrees(UNARY["tanh"], 0.5)
    monkeypatch.setattr("engine.value.rule", lambda sign: wrong if sign == "tanh" else scalar.rule(sign))
    with pytest.raises(AssertionError):
        assert_agrees(UNARY["tanh"], 0.5)


# -- random expressions ------------------------------------------------------------------------------------------------

numbers = st.floats(-3, 3).map(lambda x: round(x, 3))
exponents = st.sampled_from([2, 3, -1, -2, 0.5, 1.5, 1 / 3])


def tame(x: Any) -> Any:
    """Into (0.2, 1.8), so that powers and logarithms of anything are defined and stay moderate."""
    return x.tanh() * 0.8 + 1


Step = tuple[str, int, int, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["+", "-", "*", "/", "neg", "relu", "tanh", "exp", "log", "**", "rpow", "c+", "c-", "c*", "c/"]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
        st.one_of(numbers.filter(bool), exponents),
    ),
    min_size=1,
    max_size=25,
)


def program(recipe: list[Step]) -> Forward:
    """A forward that applies the steps in turn to what there is so far; the last three results are added up."""

    def forward(*inputs: Any) -> Any:
        have = list(inputs)
        for name, i, j, number in recipe:
            x, y = have[i % len(have)], have[j % len(have)]
            have.append(
                {
                    "+": lambda x, y, c: x + y,
                    "-": lambda x, y, c: x - y,
                    "*": lambda x, y, c: x.tanh() * y,
                    "/": lambda x, y, c: x / tame(y),
                    "neg": lambda x, y, c: -x,
                    "relu": lambda x, y, c: x.relu(),
                    "tanh": lambda x, y, c: x.tanh(),
                    "exp": lambda x, y, c: x.tanh().exp(),
                    "log": lambda x, y, c: tame(x).log(),
                    "**": lambda x, y, c: tame(x) ** c,
                    "rpow": lambda x, y, c: abs(c) ** x.tanh(),
                    "c+": lambda x, y, c: c + x,
                    "c-": lambda x, y, c: c - x,
                    "c*": lambda x, y, c: c * x.tanh(),
                    "c/": lambda x, y, c: c / tame(x),
                }[name](x, y, number)
            )
        return sum(have[-3:])

    return forward


@given(steps, st.lists(numbers, min_size=1, max_size=4))
def test_random_expressions_agree_with_torch(recipe: list[Step], at: list[float]) -> None:
    forward = program(recipe)
    (data, grads), (expected, expected_grads) = gradients(forward, *at), truth(forward, *at)
    scale = max(1.0, *map(abs, expected_grads))
    assert data == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert grads == pytest.approx(expected_grads, rel=1e-9, abs=1e-10 * scale)


# -- construction and operands -----------------------------------------------------------------------------------------


def test_a_new_value_has_no_gradient_no_op_and_no_operands() -> None:
    v = Value(3, label="v")
    assert (v.data, v.grad, v.label, v.rule, v.operands) == (3.0, 0.0, "v", None, ())
    assert isinstance(v.data, float)
    assert repr(v) == "Value(data=3.0, grad=0.0)"


@pytest.mark.parametrize("number", [2, 2.0, True + 1, Fraction(2), np.float64(2), np.float32(2), np.int64(2)])
def test_numbers_of_any_kind_mix(number: Any) -> None:
    def both_sides(v: Any) -> Any:
        return (v + number) * (number - v) / number + number / v + v**number + number**v

    assert gradients(both_sides, 1.5) == gradients(
        lambda v: (v + 2) * (2 - v) / 2 + 2 / v + v**2 + 2**v,
        1.5,
    )


def test_numpy_arrays_of_values_compute_elementwise() -> None:
    a, b = Value(2.0), Value(-3.0)
    dot = np.array([a, b]) @ np.array([b, a])
    dot.backward()
    assert (dot.data, a.grad, b.grad) == (-12.0, -6.0, 4.0)


@pytest.mark.parametrize("data", ["1", None, 1j, [1.0], torch.tensor(1.0), Value(1.0)])
def test_only_real_numbers_become_values(data: Any) -> None:
    with pytest.raises(InputError, match="real number"):
        Value(data)


@pytest.mark.parametrize("other", ["1", None, 1j, [1.0]])
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
def test_other_operands_are_refused_as_python_refuses_them(op: Forward, other: Any) -> None:
    refusal = "unsupported operand|can only concatenate|can't multiply sequence"
    with pytest.raises(TypeError, match=refusal):
        op(Value(1.0), other)
    with pytest.raises(TypeError, match=refusal):
        op(other, Value(1.0))


def test_a_power_needs_a_number_on_one_side() -> None:
    with pytest.raises(InputError, match=r"one side must be a number.*exp\(\)"):
        Value(2.0) ** Value(3.0)  # pyright: ignore[reportOperatorIssue]
    for number in (math.inf, -math.inf, math.nan):
        with pytest.raises(InputError, match="exponent of a power must be a finite number"):
            Value(2.0) ** number
    for number in (math.inf, math.nan):
        with pytest.raises(InputError, match="base of a power must be a finite number"):
            number ** Value(2.0)
    for number in (0, -2.0):
        with pytest.raises(InputError, match="base must be positive"):
            number ** Value(2.0)


def test_equal_exponents_share_one_op() -> None:
    v = Value(2.0)
    assert (v**2).rule is (v**2.0).rule is (v ** np.float32(2)).rule


def test_nan_is_passed_on() -> None:
    assert math.isnan(Value(math.nan).relu().data)
    assert math.isnan((Value(math.nan) * 0).data)


# -- gradients add up --------------------------------------------------------------------------------------------------


def test_a_value_used_twice_gets_both_contributions() -> None:
    a = Value(3.0)
    b = a + a
    c = b * b
    c.backward()
    assert (a.grad, b.grad, c.grad) == (24.0, 12.0, 1.0)


def test_backward_passes_add_up_until_the_gradient_is_cleared() -> None:
    a = Value(3.0)
    shared = a * a
    one, two = shared * 2, shared * 5
    one.backward()
    two.backward()
    assert a.grad == 2 * 6.0 + 5 * 6.0
    a.grad = 0.0
    two.backward()
    assert a.grad == 5 * 6.0


def test_backward_uses_the_data_of_now() -> None:
    a = Value(3.0)
    b = a**2
    a.data = 5.0
    b.backward()
    assert a.grad == 10.0


def test_the_walk_is_ordered_and_visits_once() -> None:
    a, b = Value(1.0, "a"), Value(2.0, "b")
    c = a * b
    d = c + a
    assert (d * c).walk()[:-1] == [a, b, c, d]
    assert d.walk(until=[c]) == [c, a, d]


# -- depth -------------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_chained_adds() -> None:
    a = Value(1.0)
    v = a
    for _ in range(100_000):
        v = v + a
    v.backward()
    assert repr(v) == "Value(data=100001.0, grad=1.0)"
    assert a.grad == 100_001.0


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    root = str(Path(engine.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_a_deep_graph_is_deleted_without_recursion() -> None:
    code = """
import gc
from engine.value import Value
for _ in range(2):
    v = Value(1.0)
    for _ in range(100_000):
        v = (v + 1.0).relu()
    del v
    gc.collect()
print("deleted")
"""
    assert run_python(code) == "deleted\n"


def test_a_wide_ladder_is_walked_once_per_value() -> None:
    v = Value(1.0)
    a = v
    for _ in range(1000):  # 2**1000 paths
        v = v + v
    v.backward()
    assert a.grad == 2.0**1000
    assert len(v.walk()) == 1001


def test_nothing_is_kept_alive_by_the_engine() -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(o) is Value for o in gc.get_objects())

    before = alive()
    (Value(1.0) * 2 + 1).tanh().backward()
    assert alive() == before


def test_the_same_expression_gives_the_same_bits_under_any_hash_seed() -> None:
    code = """
from engine.value import Value
from engine.draw import to_dot, to_svg
xs = [Value(0.1 * k - 1, f"x{k}") for k in range(20)]
y = sum((a * b).tanh() for a in xs for b in xs[:3])
y.backward()
print([x.grad.hex() for x in xs], to_dot(y), to_svg(y))
"""
    assert len({run_python(code, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}) == 1
