"""Sizes that Python takes for plain numbers, and says so to nobody: the program then holds for these sizes only, and says so."""

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codegen import generate
from engine import trace
from engine.errors import InputError

SCALES = [0.1 * k for k in range(20)]


def as_text(x: Tensor) -> Tensor:
    return x.sum() * int(f"{x.shape[0]}")


def of_text(x: Tensor) -> Tensor:
    return x.sum() * (float("0.3") / x.shape[0])


def as_place(x: Tensor) -> Tensor:
    n = x.shape[0]
    return x.tanh() * SCALES[n]


def of_numpy(x: Tensor) -> Tensor:
    return x.exp() / np.float64(x.shape[0])


def as_array(x: Tensor) -> Tensor:
    return x.cos() * torch.from_numpy(np.linspace(0, 1, x.shape[0])).sum()


def as_fraction(x: Tensor) -> Tensor:
    return x.sum() * float(Fraction(1, x.shape[0])) + float(1 / Decimal(x.shape[0]))


def as_tensor(x: Tensor) -> Tensor:
    return x.sin() / torch.tensor(x.shape).prod()


def as_index(x: Tensor) -> Tensor:
    return x.sin() * operator.index(x.shape[0])


def of_base(x: Tensor) -> Tensor:
    return x.sin() * math.log(x.shape[0], 3)


def parity(x: Tensor) -> Tensor:
    return x.sin() * (1 + (x.shape[0] / 2).is_integer()) * pow(x.shape[0], 2, 5)


def bits(x: Tensor) -> Tensor:
    return x.sin() * x.shape[0].bit_length()


class Table(nn.Module):
    """A module that looks up a number by the length of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * SCALES[x.shape[0]]


FORWARDS: list[Callable[..., Any]] = [
    as_text, of_text, as_place, of_numpy, as_array, as_fraction, as_tensor, as_index, of_base, parity, bits,
]  # fmt: skip


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_what_python_computed_holds_for_the_sizes_of_the_example_only(forward: Callable[..., Any], mode: str) -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    program = generate(forward, x, mode=mode)
    leaf = x.clone().requires_grad_()
    out = forward(leaf)
    value, grads = program.value_and_grad(x)
    torch.testing.assert_close(value, out.detach())
    torch.testing.assert_close(grads["x"], torch.autograd.grad(out.sum(), leaf)[0])
    with pytest.raises(InputError, match=r"dimension 0 of x is 7, the trace had 4.*test_othersizes"):
        program.value_and_grad(torch.randn(7, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"fixed x.shape\[0\] = 4 at .*test_othersizes"):
        program.module.forward(torch.randn(7, 3, dtype=torch.float64))


def test_other_sizes_of_the_same_forward_stay_symbols() -> None:
    model = Table().double()
    program = generate(model, torch.randn(4, 3, dtype=torch.float64))
    assert [g.value for g in program.graph.guards] == [4]
    with pytest.raises(InputError, match="the trace had 4"):
        program.forward(torch.randn(5, 3, dtype=torch.float64))
    wider, ones = nn.Linear(3, 7).double(), torch.ones(4, 3, dtype=torch.float64)
    found = program.module.forward(ones, wider.weight, wider.bias)[0]
    torch.testing.assert_close(found, wider(ones) * SCALES[4])


def test_what_differs_in_every_run_fixes_nothing() -> None:
    counted = iter(range(100))

    def forward(x: Tensor) -> Tensor:
        return x.sum(0) / len(x) + next(counted)

    assert not trace(forward, torch.ones(4, 3)).guards


def test_a_forward_that_refuses_other_sizes_is_traced() -> None:
    def forward(x: Tensor) -> Tensor:
        if int(str(x.shape[0])) != 4:
            raise ValueError("four rows")
        return x.sum()

    assert trace(forward, torch.ones(4, 3)).outputs


def test_sizes_from_annotations_and_in_lists_are_seen() -> None:
    def forward(parts: list[Tensor]) -> Tensor:
        return parts[0].sum() + parts[1].sum() * SCALES[parts[1].shape[1]]

    graph = trace(forward, [torch.ones(4, 3), torch.ones(2, 5)])
    assert [(str(g.expr), g.value) for g in graph.guards] == [(str(graph["parts_1"].shape[1]), 5)] or graph[
        "parts_1"
    ].shape[1] == 5


class Remembers(nn.Module):
    """What it has seen, and how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.kept = 0, [0], {"last": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.kept["last"] = self.calls
        self.extra = self.calls
        return x.sum() * SCALES[len(x)] / x.shape[1]


def test_a_forward_leaves_behind_what_one_run_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    model, seen, count = Remembers(), list[str](), 0

    def forward(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        seen.append("called")
        print("called")
        return model(x) + 1 / len(x)

    assert trace(forward, torch.ones(4, 3)).guards
    assert (count, seen, capsys.readouterr().out) == (1, ["called"], "called\n")
    assert (model.calls, model.seen, model.kept, model.extra) == (1, [0, 1], {"last": 1}, 1)


def test_a_size_that_is_bounded_is_varied_within_its_bounds() -> None:
    def forward(x: Tensor) -> Tensor:
        assert x.shape[0] <= 9
        return x * float(f"{x.shape[0]}")

    program = generate(forward, torch.randn(9, 3), mode="closed")
    with pytest.raises(InputError, match="dimension 0 of x is 8, the trace had 9"):
        program.function(torch.randn(8, 3))


def test_halves_of_a_size_are_compared() -> None:
    def forward(x: Tensor) -> Tensor:
        n = x.shape[0]
        while n > 1:
            n = n // 2
            x = x[:n].sin() + x[n : 2 * n]
        return x.sum()

    program = generate(forward, torch.randn(8, 3), mode="closed")
    torch.testing.assert_close(program.function(x := torch.randn(8, 2)), forward(x))
    with pytest.raises(ValueError, match="a comparison at"):
        program.function(torch.randn(16, 3))


# -- what is looked up --

LOOKED_UP: dict[str, Callable[[Tensor], Tensor]] = {
    "a set": lambda x: x.exp().sum() if x.shape[0] in {3, 5} else x.sin().sum(),
    "a dict": lambda x: x.exp().sum() * {3: 2.0, 5: 3.0}.get(x.shape[0], 1.0),
    "sizes as a set": lambda x: x.exp().sum() if len({*x.shape}) == 1 else x.sin().sum(),
    "a fraction": lambda x: x.exp().sum() if x.shape[0] < Fraction(9, 2) else x.sin().sum(),
    "a decimal": lambda x: x.exp().sum() if x.shape[0] < Decimal("4.5") else x.sin().sum(),
    "a table that ends": lambda x: x.exp().sum() * [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0][x.shape[0]],
}


@pytest.mark.parametrize("name", LOOKED_UP)
@pytest.mark.parametrize("traced", [(4, 4), (5, 4), (6, 3)])
def test_what_is_looked_up_by_a_size_holds_for_it_or_says_so(name: str, traced: tuple[int, int]) -> None:
    forward = LOOKED_UP[name]
    program = generate(forward, torch.ones(traced))
    refused = 0
    for n, m in (traced, (2, 3), (3, 4), (3, 3), (4, 3), (4, 4), (5, 4), (6, 2)):
        x = torch.linspace(-1, 1, n * m).view(n, m)
        try:
            found = program.function(x)
        except (InputError, ValueError):
            refused += 1
            continue
        torch.testing.assert_close(found, forward(x))
    assert 0 < refused < 8


def test_a_multiple_is_looked_for_among_multiples_below_too() -> None:
    def forward(x: Tensor) -> Tensor:
        assert x.shape[0] % 4 == 0
        return x.view(-1, 4).prod(1).sum() / x.shape[0]

    for n in (8, 12):
        program = generate(forward, torch.ones(n))
        for m in (8, 16, 20):
            x = torch.linspace(0.5, 1, m)
            torch.testing.assert_close(program.function(x), forward(x))
