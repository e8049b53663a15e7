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


def sequences(**sizes: tuple[int, ...]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Parameters of these shapes, and symbols of four places with a class."""
    g = Generator().manual_seed(0)
    params = {k: torch.randn(s, generator=g) / max(s) ** 0.5 for k, s in sizes.items()}
    return params, (torch.randint(0, 9, (200, 4), generator=g), torch.randint(0, 3, (200,), generator=g))


def test_a_normalisation_beside_what_is_the_same_in_every_place_is_its_kernels() -> None:
    params, data = sequences(c=(9, 6), g=(6,), w=(4, 10), u=(10, 4), r=(6,), v=(6, 3))

    def forward(x: Tensor, y: Tensor, c: Tensor, g: Tensor, w: Tensor, u: Tensor, r: Tensor, v: Tensor) -> Tensor:
        h = c[x]
        h = h + (torch.tanh(F.layer_norm(h, (6,), g).transpose(1, 2) @ w) @ u).transpose(1, 2)
        h = h + torch.tanh(F.layer_norm(h, (6,), r))
        return F.cross_entropy(h.mean(1) @ v, y)

    source = trained(forward, params, data, 16)
    assert source.count(" = native_layer_norm_backward(") == 2
    assert "_centred" not in source


def test_heads_are_copied_once_and_put_side_by_side_at_once() -> None:
    params, data = sequences(c=(9, 6), w=(6, 18), v=(6, 3))

    def forward(x: Tensor, y: Tensor, c: Tensor, w: Tensor, v: Tensor) -> Tensor:
        n, t = x.shape
        q, k, o = ((c[x] @ w)[..., 6 * j : 6 * j + 6].view(n, t, 2, 3).transpose(1, 2) for j in range(3))
        a = (q @ k.transpose(2, 3) / 3**0.5).masked_fill(torch.ones(t, t).triu(1) == 1, -torch.inf)
        return F.cross_entropy((a.softmax(-1) @ o).transpose(1, 2).reshape(n, t, 6).mean(1) @ v, y)

    body = trained(forward, params, data, 16).split("def run(")[1]
    assert body.count("bmm(") == 6
    assert body.count(".copy_(") == 4  # queries, keys, values, and the result's heads
    assert "torch.where" not in body


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 12), (torch.float64, 40)])
def test_gelu_is_a_kernel_where_that_is_faster(dtype: torch.dtype, width: int) -> None:
    params, data = sequences(c=(9, 6), w=(6, width), u=(width, 6), v=(6, 3))

    def forward(x: Tensor, y: Tensor, c: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        h = c[x]
        return F.cross_entropy((h + F.gelu(h @ w) @ u).mean(1) @ v, y)

    def spelled(x: Tensor, y: Tensor, c: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        z = c[x] @ w
        return F.cross_entropy((z * (1 + torch.erf(z / 2**0.5)) / 2 @ u).mean(1) @ v, y)

    torch.set_default_dtype(dtype)
    for f in (forward, spelled):
        given = {k: v.to(dtype) for k, v in params.items()}
        program = codegen.generate(f, *[d[:64] for d in data], *given.values())
        trainer = program.trainer(given, batch_size=64, lr=0.05)
        losses = trainer.run(data, steps=3, generator=Generator().manual_seed(3))
        expected, _ = stepwise(program, given, data, 64, 3, 0.05, 0.0, Generator().manual_seed(3))
        assert torch.allclose(losses, expected, rtol=1e-5 if dtype == torch.float32 else 1e-10)
        kernels = "gelu_backward(" in trainer.source
        assert kernels is (dtype == torch.float32), trainer.source
        assert ("erf_()" in trainer.source) is not kernels


def test_numbers_after_one_another_are_one() -> None:
    params, data = sequences(c=(9, 6), w=(6, 8), v=(8, 3))

    def forward(x: Tensor, y: Tensor, c: Tensor, w: Tensor, v: Tensor) -> Tensor:
        h = (c[x].mean(1) @ w).sin()
        h = (1 - (h * 3 + 1) / 7).exp()
        return F.cross_entropy(h @ v, y)

    body = trained(forward, params, data, 16).split("def run(")[1]
    between = body[body.index("torch.sin(") : body.index("exp")]
    assert between.count("torch.add(") == 1
    assert not any(f"{op}(" in between for op in ("mul", "div_", "sub", "add_"))
