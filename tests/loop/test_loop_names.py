"""What the loop calls its values, and constants written as what they are."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

import codegen
from codegen.loop.constants import literal, number_name
from codegen.loop.names import OWN
from tests.codegen.random_forwards import RandomForward
from tests.loop.conftest import stepwise

ROOT = Path(__file__).parents[2]
LOOPS = sorted((ROOT / "generated").glob("*/loop.py"))
HOSTILE = sorted(OWN - {"torch", "zip", "range", "len", "min", "float", "enumerate"})


@pytest.mark.parametrize("where", ["rows", "parameter", "local"])
@pytest.mark.parametrize("name", [*HOSTILE, "x_all", "x_rows", "w_own", "losses_of"])
def test_what_the_loop_calls_its_own_may_be_a_name_of_the_forward(name: str, where: str) -> None:
    x, w, h = (name if where == k else other for k, other in (("rows", "x"), ("parameter", "w"), ("local", "h")))
    text = f"def forward({x}, y, {w}):\n    {h} = torch.tanh({x} @ {w})\n    return (({h} - y) ** 2).mean()\n"
    g = Generator().manual_seed(0)
    data = (torch.randn(24, 4, generator=g, dtype=torch.float64), torch.randn(24, 3, generator=g, dtype=torch.float64))
    params = {w: torch.randn(4, 3, generator=g, dtype=torch.float64)}
    program = codegen.generate(RandomForward(text, ()).function(), *[d[:8] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=8, lr=0.1)
    losses = trainer.run(data, steps=3, generator=Generator().manual_seed(4))
    expected, after = stepwise(program, params, data, 8, 3, 0.1, 0.0, Generator().manual_seed(4))
    assert trainer.path == "the emitted loop"
    assert torch.allclose(losses, expected)
    assert torch.allclose(trainer.params[w], after[w])


CONSTANTS = [
    (torch.zeros(2, 3), "torch.zeros((2, 3), dtype=torch.float32)"),
    (torch.full((), 0.1), "torch.full((), 0.1, dtype=torch.float32)"),
    (torch.tensor(8**0.5), "torch.full((), 8 ** 0.5, dtype=torch.float32)"),
    (torch.arange(2, 11, 3), "torch.arange(2, 11, 3)"),
    (torch.arange(4) * 0.5, "torch.arange(4, dtype=torch.float32) * 0.5"),
    (torch.eye(3, 4), "torch.eye(3, 4, dtype=torch.float32)"),
    (torch.eye(3) * -2, "torch.eye(3, 3, dtype=torch.float32) * -2.0"),
    (torch.ones(4, 4, dtype=torch.bool).triu(1), "torch.ones((4, 4), dtype=torch.bool).triu(1)"),
    (torch.full((4, 6), -torch.inf).triu(1), 'torch.full((4, 6), float("-inf"), dtype=torch.float32).triu(1)'),
    (torch.ones(5, 5).triu(-1).tril(1), "torch.ones((5, 5), dtype=torch.float32).triu(-1).tril(1)"),
    (torch.ones(4, 4).tril(), "torch.ones((4, 4), dtype=torch.float32).tril()"),
    (torch.arange(6).view(2, 3), "(torch.arange(2)[:, None] * 3 + torch.arange(3))"),
    (torch.arange(3)[:, None] + torch.arange(4) + 5, "(torch.arange(3)[:, None] + torch.arange(4) + 5)"),
    (torch.eye(2).repeat(3, 1, 1), "torch.eye(2, 2, dtype=torch.float32)[None].repeat(3, 1, 1)"),
    (torch.tensor([[True, False], [False, False], [True, True]]), "torch.tensor([[True, False], [False, False], [True, True]], dtype=torch.bool)"),
    (torch.tensor([0.0, -0.0]), "torch.tensor([0.0, -0.0], dtype=torch.float32)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "name"),
    [(-1e9, "minus_1e9"), (1e-9, "number_1e_minus_9"), (1e-12, "number_1e_minus_12"), (0.25, "number_0.25")],
)
def test_a_large_number_and_a_small_one_are_not_called_the_same(value: float, name: str) -> None:
    assert number_name(value) == name


def test_views_stand_once_and_show_something() -> None:
    """The bias goes up where it is taken away; a weight in three dimensions is one matrix, which is turned once."""

    def forward(x, mask, q, w, b, y):
        a = (x @ q).masked_fill(~mask, -1e9).softmax(-1)
        pooled = torch.einsum("bt,btd->bd", a, x)
        return (torch.nn.functional.bilinear(pooled, pooled, w) - b - y).square().mean()

    g = Generator().manual_seed(0)
    x, q, w, b, y = (
        torch.randn(n, generator=g, dtype=torch.float64) for n in ((12, 5, 4), (4,), (2, 4, 4), (2,), (12, 2))
    )
    data = (x, torch.rand(12, 5, generator=g) > 0.3, y)
    program = codegen.generate(forward, *data[:2], q, w, b, y)
    trainer = program.trainer({"q": q, "w": w, "b": b}, batch_size=4, lr=0.1)
    trainer.run(data, steps=3)
    assert trainer.path == "the emitted loop"
    assert "permute(0, 1, 2)" not in trainer.source
    assert "-1 * rate" not in trainer.source
    made = [
        line.split(" = ")[1]
        for line in trainer.source.splitlines()
        if re.search(r" = (?!space)\w+\.(t|view|unsqueeze)\(", line)
    ]
    assert len(made) == len(set(made))
    assert not any(re.search(r"\.view\(.*\.(view|permute)\(", line) for line in made)


@pytest.mark.parametrize(("value", "text"), CONSTANTS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_constant_is_written_as_what_it_is(value: Tensor, text: str) -> None:
    assert literal(value) == text
    made = eval(text, {"torch": torch, "float": float})  # noqa: S307
    assert made.dtype == value.dtype
    assert torch.equal(made, value)
    assert torch.equal(made.signbit(), value.signbit()) if value.is_floating_point() else True


@pytest.mark.parametrize("value", [torch.tensor([0.1, 0.7, 0.3]), torch.tensor([[1.0, 0.0], [1.0, 2.0]])])
def test_a_constant_without_a_form_is_a_list(value: Tensor) -> None:
    assert literal(value).startswith("torch.tensor([")


@pytest.mark.parametrize("path", LOOPS, ids=lambda p: p.parent.name)
def test_committed_loops_name_everything_and_use_it(path: Path) -> None:
    """No name is a chain of other sights of a value, none is made in vain, and no number is written longer than it is."""
    text = path.read_text(encoding="utf-8")
    made = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert not [n for n in made if re.search(r"_view_view|_T_T|_\dd_\dd", n)]
    assert made - read <= {"_", "SIZES"}
    assert not re.search(r"\.\d{9}", text)
    assert "torch.tensor([" not in text
