"""Steps in blocks of rows: the numbers of the closed backward, whatever the forward, and no more memory than a few blocks."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from codegen.loop import blocks, make, record
from tests.loop.conftest import NAMES, Case, cases, stepwise


def normalised_rows(x: Tensor, y: Tensor, w: Tensor, v: Tensor, g: Tensor, b: Tensor) -> Tensor:
    h = F.layer_norm(x @ w, (w.shape[1],), g, b)
    return F.cross_entropy(F.gelu(h) @ v, y)


def three_layers(x: Tensor, y: Tensor, c: Tensor, u: Tensor, v: Tensor, w: Tensor, g: Tensor, b: Tensor) -> Tensor:
    h = c[x].flatten(1)
    h = F.batch_norm(h @ u, None, None, g, b, True, 0.1, 1e-5).relu()
    h = F.batch_norm(h @ v, None, None, None, None, True, 0.1, 1e-3).sigmoid()
    return F.cross_entropy(h @ w, y)


def biased(x: Tensor, y: Tensor, c: Tensor, w: Tensor, a: Tensor, v: Tensor) -> Tensor:
    return F.cross_entropy((c[x].flatten(1) @ w + a).relu() @ v, y)


def across(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    h = x @ w
    return F.cross_entropy((h.softmax(0) * h.cumsum(0)) @ v, y)


def largest(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    h = x @ w
    return F.cross_entropy((h - h.amax(0)) @ v, y)


def more() -> dict[str, Case]:
    g = Generator().manual_seed(8)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, dtype=torch.float64)

    x, y, symbols = randn(700, 5), torch.randint(0, 6, (700,), generator=g), torch.randint(0, 7, (700, 3), generator=g)
    return {
        "normalised rows": (
            normalised_rows,
            {"w": randn(5, 8), "v": randn(8, 6), "g": randn(8), "b": randn(8)},
            (x, y),
        ),
        "three layers": (
            three_layers,
            {"c": randn(7, 4), "u": randn(12, 8), "v": randn(8, 9), "w": randn(9, 6), "g": randn(8), "b": randn(8)},
            (symbols, y),
        ),
        "biased": (biased, {"c": randn(7, 4), "w": randn(12, 8), "a": randn(8), "v": randn(8, 6)}, (symbols, y)),
    }


CASES = {**cases(), **more()}


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be is taken in blocks."""
    monkeypatch.setattr(make, "WORTH", float("inf"))
    monkeypatch.setattr(blocks, "MOST", 64)


WHOLE = ("convolved", "by column", "in context", "embedded")
"""Steps that have no form in blocks of rows: a convolution, rows looked up by columns, rows or numbers put into a table that is
no sum."""


@pytest.mark.sampled("name")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", [*NAMES, *more()])
def test_blocks_change_nothing(name: str, momentum: float, blocked: None) -> None:
    forward, params, data = CASES[name]
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=192, lr=0.05, momentum=momentum)
    losses = trainer.run(data, steps=40, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 192, 40, 0.05, momentum, Generator().manual_seed(3))
    assert ("blocks = count * 3" in trainer.source) == (name not in WHOLE)
    assert torch.allclose(losses, expected, rtol=1e-9, atol=1e-11)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-8, atol=1e-10) for k, v in after.items())


@pytest.mark.parametrize("forward", [across, largest])
def test_what_mixes_rows_otherwise_than_by_sums_is_left_whole(forward: Callable[..., Tensor], blocked: None) -> None:
    _, params, data = CASES["normalised rows"]
    given = {"w": params["w"], "v": params["v"]}
    program = codegen.generate(forward, *[d[:16] for d in data], *given.values())
    trainer = program.trainer(given, batch_size=192, lr=0.05)
    losses = trainer.run(data, steps=3, generator=Generator().manual_seed(3))
    expected, _ = stepwise(program, given, data, 192, 3, 0.05, 0.0, Generator().manual_seed(3))
    assert "blocks" not in trainer.source
    assert torch.allclose(losses, expected, rtol=1e-9, atol=1e-11)


def test_a_linear_layer_with_a_bias_on_an_embedding_is_looked_up() -> None:
    g = Generator().manual_seed(8)
    shapes = {"c": (7, 32), "w": (96, 128), "a": (128,), "v": (128, 6)}
    params = {k: torch.randn(*s, generator=g) * 0.3 for k, s in shapes.items()}
    _, _, data = CASES["biased"]
    program = codegen.generate(biased, *[d[:16] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=640, lr=0.05)
    losses = trainer.run(data, steps=5, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 640, 5, 0.05, 0.0, Generator().manual_seed(3))
    assert "w_table" in trainer.source
    assert torch.allclose(losses, expected, rtol=1e-9, atol=1e-11)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-8, atol=1e-10) for k, v in after.items())


def test_a_large_batch_is_taken_in_blocks_for_its_price() -> None:
    """A wide layer at a large batch, where what is between two products does not fit into any cache."""
    g = Generator().manual_seed(8)
    params = {k: torch.randn(*s, generator=g) * 0.1 for k, s in (("w", (16, 1024)), ("v", (1024, 6)))}
    params |= {"g": torch.ones(1024), "b": torch.zeros(1024)}
    data = torch.randn(4096, 16, generator=g), torch.randint(0, 6, (4096,), generator=g)
    program = codegen.generate(normalised_rows, data[0][:16], data[1][:16], *params.values())
    sources: list[str] = []
    for batch in (32, 4096):
        trainer = program.trainer(params, batch_size=batch, lr=0.05)
        trainer.run(data, steps=1)
        sources.append(trainer.source)
        assert trainer.workspace() < 20e6
    assert "blocks" not in sources[0]
    assert "blocks = count * " in sources[1]


@pytest.mark.parametrize("name", [*NAMES, *more()])
def test_a_loop_is_the_same_where_its_calls_are_recorded_without_values(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, params, data = CASES[name]
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    sources: list[str] = []
    for least in (1, 10_000):
        monkeypatch.setattr(record, "LARGE", least)
        trainer = program.trainer(params, batch_size=96, lr=0.05)
        trainer.run(data, steps=1)
        sources.append(trainer.source)
    assert sources[0]
    assert sources[0] == sources[1]
