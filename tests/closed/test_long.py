"""Long elementwise forwards: unrolled cells, recurrences, time steps. The work of closing one grows as its lines do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from codegen.closed import code
from codegen.closed.plan import naming
from codegen.closed.plan.backward import Backward
from codegen.closed.plan.names import Names
from codegen.closed.regions import region
from tests.closed.forms.long import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program


LINES = 18
CELLS = 16
"""What is closed together at most where work is counted: less than the limit, so that a few lines are several of these."""
LONGER = [(f, shapes) for f, shapes in LONG if f.__name__ in ("tanhs", "nested", "residual", "lstm", "mixed")]
"""Those that take the least time."""
table = pytest.mark.parametrize(("forward", "shapes"), LONG, ids=[f.__name__ for f, _ in LONG])


def drawn(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def assert_gradients(program: Program, forward: Callable[..., Any], inputs: list[torch.Tensor]) -> None:
    out, grads = program.value_and_grad(*inputs)
    leaves = [t.clone().requires_grad_() for t in inputs]
    true = forward(*leaves)
    torch.testing.assert_close(out, true.detach())
    for mine, theirs in zip(grads.values(), torch.autograd.grad(true, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("forward", "shapes"), LONGER, ids=[f.__name__ for f, _ in LONGER])
@pytest.mark.sampled("forward")
def test_gradients_of_more_lines_are_those_of_autograd(
    forward: Callable[[int], Any], shapes: list[tuple[int, ...]]
) -> None:
    inputs = drawn(shapes)
    assert_gradients(codegen.generate(forward(LINES), *inputs), forward(LINES), inputs)


@table
@pytest.mark.sampled("forward")
def test_work_grows_with_the_lines(
    forward: Callable[[int], Any], shapes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict[str, int]()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def count(*args: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return original(*args)

        monkeypatch.setattr(owner, name, count)

    counted(Names, "product")  # products that are given names
    counted(Names, "written_with")  # and what they are with one
    counted(Backward, "derived")  # cotangents simplified
    counted(naming, "arranged")  # statements put into their last form
    monkeypatch.setattr(region, "LIMIT", CELLS)
    work: list[int] = []
    for lines in (6, 12):
        monkeypatch.setattr(code, "_codes", {})
        counts.clear()
        program = codegen.generate(forward(lines), *drawn(shapes))
        work.append(sum(counts.values()))
        assert_gradients(program, forward(lines), drawn(shapes))
    assert work[0] > 0
    assert work[1] <= 3 * work[0] + 100, work
