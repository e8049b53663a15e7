"""Sequences: places that are mixed as columns are, gates of a cell that begins with nothing, and layouts of both."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from tests.loop.conftest import stepwise
from tests.loop.test_loop_trainer import close


def mixed(x: Tensor, y: Tensor, c: Tensor, g: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    h = c[x]
    z = F.layer_norm(h, (h.shape[-1],), g).transpose(1, 2)
    h = h + (F.gelu(z @ w) @ u).transpose(1, 2)
    return F.cross_entropy((h * h.tanh()).mean(1) @ v, y)


def gated(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    first, _, cell, out = (x @ w).chunk(4, 1)
    h = first.sigmoid() * cell.tanh()
    return F.cross_entropy((out.sigmoid() * h.tanh()) @ v, y)


def trained(forward: Callable[..., Tensor], params: dict[str, Tensor], data: tuple[Tensor, ...], batch: int) -> str:
    """The source of a loop whose steps are those of the closed backward."""
    program = codegen.generate(forward, *[d[:batch] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=batch, lr=0.05)
    losses = trainer.run(data, steps=4, generator=Generator().manual_seed(3))
    assert trainer.path == "the emitted loop"
    expected, after = stepwise(program, params, data, batch, 4, 0.05, 0.0, Generator().manual_seed(3))
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())
    return trainer.source


@pytest.mark.parametrize("batch", [16, 640])
def test_places_that_are_mixed_as_columns_are_train_in_a_loop(batch: int) -> None:
    g = Generator().manual_seed(0)
    sizes = {"c": (9, 6), "g": (6,), "w": (4, 10), "u": (10, 4), "v": (6, 3)}
    params = {k: torch.randn(s, generator=g) for k, s in sizes.items()}
    data = torch.randint(0, 9, (700, 4), generator=g), torch.randint(0, 3, (700,), generator=g)
    trained(mixed, params, data, batch)


def test_a_large_tensor_that_is_filled_in_parts_is_there_until_it_was_read() -> None:
    g = Generator().manual_seed(0)
    params = {"w": torch.randn(5, 256, generator=g), "v": torch.randn(64, 3, generator=g)}
    data = torch.randn(700, 5, generator=g), torch.randint(0, 3, (700,), generator=g)
    source = trained(gated, params, data, 611)  # no blocks of rows have all of it
    parts = [m.start() for m in re.finditer(r"dfirst_matmul\[:.*\]\.copy_", source)]
    assert len(parts) == 3
    assert source.index("del dfirst_matmul") > max(parts)
