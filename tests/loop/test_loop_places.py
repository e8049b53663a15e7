"""Rows of a large table: what is added at places goes into the table itself, and nothing of its size is made."""

import re

import pytest
import torch
from torch import Generator, Tensor

import codegen
from codegen.loop.graph import Step
from codegen.loop.kernels import RULES
from codegen.loop.make import Plan, make_loop, rows_of
from codegen.loop.rules import apply
from tests.loop.conftest import stepwise
from tests.loop.test_loop_rules import step_of
from tests.loop.test_loop_trainer import close, program_of


def large(symbols: int, columns: int) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    g = Generator().manual_seed(0)
    params = {k: torch.randn(symbols, columns, generator=g) for k in "uv"} | {"bias": torch.randn(symbols, generator=g)}
    data = tuple(torch.randint(0, symbols, (200, *rest), generator=g) for rest in ((), (), (5,)))
    return params, data


def ops(step: Step) -> list[str]:
    return [n.op for n in step.order]


@pytest.mark.parametrize(
    ("name", "sized", "hot"), [("in context", large(2000, 16)[0], False), ("embedded", None, True)]
)
def test_one_hot_products_are_for_small_tables(name: str, sized: dict[str, Tensor] | None, hot: bool) -> None:
    step = step_of(name, 128, sized)
    apply(step, RULES)
    assert ("onehot" in ops(step)) is hot


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nothing_of_the_size_of_the_table_is_made(momentum: float) -> None:
    params, data = large(2000, 16)
    program = program_of("in context")
    trainer = program.trainer(params, batch_size=128, lr=0.05, momentum=momentum)
    losses = trainer.run(data, steps=3, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 128, 3, 0.05, momentum, Generator().manual_seed(3))
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())
    assert not re.search(r"\b(empty|zeros|full)\(\(?2000\b", trainer.source)
    assert trainer.source.count("scatter_add_(") == 3
    assert trainer.source.count("index_add_(") == 1, "of numbers at places"
    assert ".mul_(" in trainer.source.split("v", 1)[1]


def test_few_rows_are_added_one_by_one() -> None:
    params, data = large(2000, 16)
    trainer = program_of("in context").trainer(params, batch_size=100, lr=0.05)
    trainer.run(data, steps=1)
    assert "u.index_add_(0, x, du_sum_1, alpha=rate)" in trainer.source


def rows_themselves(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the rows is the rows, which are handed out as well."""
    rows = u[x]
    return rows.square().sum() / 2, rows


@pytest.mark.parametrize("keep", [(), ("rows",)])
def test_what_is_handed_out_is_not_scaled_in_place(keep: tuple[str, ...]) -> None:
    g = Generator().manual_seed(0)
    u, x = torch.randn(500, 8, generator=g), torch.randint(0, 500, (200,), generator=g)
    module = codegen.generate(rows_themselves, x[:128], u).module
    plan = Plan(outputs=2, keep=keep)
    source = make_loop(module, {"x": rows_of((x,))[0]}, {"u": u}, 128, plan, "rows", "rows").source
    assert "u.scatter_add_(0, x_2d, rows_1 * rate)" in source
    assert "grad_out" not in source, "the other result has no cotangent"
