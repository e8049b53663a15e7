"""Layers of one column and of few: products of vectors, and values that are read again at the end of a chunk."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from tests.loop.networks import Network, compared


def normalised(x: Tensor, y: Tensor, w: Tensor, b: Tensor, g: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of one column the norm is its bias, the same for all rows."""
    h = x @ w + b
    h = F.layer_norm(h, (1,), g, k, 1e-3)
    h = F.leaky_relu(h, 0.1)
    return F.binary_cross_entropy_with_logits(h @ v, y)


def moving(x: Tensor, y: Tensor, w: Tensor, b: Tensor, g: Tensor, k: Tensor, v: Tensor) -> Tensor:
    h = F.leaky_relu(g * (x @ w + b) + k, 0.1)
    return F.binary_cross_entropy_with_logits(h @ v, y)


@pytest.mark.parametrize(("network", "update"), [(normalised, "v.addcmul_("), (moving, "v.addmm_(")])
def test_a_layer_of_one_column_trains_as_autograd_does(network, update: str) -> None:
    generator = Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    params = {"w": randn(5, 1), "b": randn(1), "g": randn(1), "k": randn(1), "v": randn(1, 2)}
    x, y = randn(64, 5), torch.rand(64, 2, generator=generator, dtype=torch.float64)
    program = codegen.generate(network, x[:8], y[:8], *params.values())
    trainer = program.trainer({n: t.clone() for n, t in params.items()}, batch_size=8, lr=0.1)
    losses = trainer.run((x, y), steps=5, generator=Generator().manual_seed(1))
    assert "@" in program.source
    assert update in trainer.source
    rows = torch.randint(0, 64, (40,), generator=Generator().manual_seed(1)).view(5, 8)
    for at, loss in zip(rows, losses, strict=True):
        leaves = {n: t.clone().requires_grad_() for n, t in params.items()}
        true = network(x[at], y[at], *leaves.values())
        torch.testing.assert_close(loss, true.detach())
        grads = torch.autograd.grad(true, list(leaves.values()))
        params = {n: t - 0.1 * g for (n, t), g in zip(params.items(), grads, strict=True)}
    for name, t in params.items():
        torch.testing.assert_close(trainer.params[name], t)


CENTRED = """def network(x, y, w, v):
    h = x @ w
    h = torch.tanh(h - h.mean(-1, keepdim=True))
    return F.cross_entropy(h @ v, y) + 0.01 * (w**2).sum() + 0.1 * h.abs().mean()
"""


def test_what_the_end_of_a_chunk_reads_is_not_computed_in_place() -> None:
    """The tanh is read again for the losses, so that it has rows of its own, and a name that what it is computed from has not."""
    generator = Generator().manual_seed(0)
    params = {"w": torch.randn(1, 3, generator=generator), "v": torch.randn(3, 2, generator=generator)}
    data = torch.randn(150, 1, generator=generator), torch.randint(0, 2, (150,), generator=generator)
    assert compared(Network(CENTRED, params, data, 7, 0.0)) == "the same"


SHARES = """def network(x, y, w, k, v):
    p = torch.softmax(x @ w, 1)
    h = torch.tanh(p @ k)
    return ((torch.softmax(h @ v, 1) - y) ** 2).mean()
"""


def test_what_a_softmax_passes_back_is_one_call() -> None:
    generator = Generator().manual_seed(0)
    params = {n: torch.randn(*s, generator=generator) for n, s in (("w", (4, 5)), ("k", (5, 6)), ("v", (6, 3)))}
    data = torch.randn(150, 4, generator=generator), torch.rand(150, 3, generator=generator)
    assert compared(Network(SHARES, params, data, 7, 0.0)) == "the same"


def distant(x: Tensor, y: Tensor, c: Tensor, w: Tensor) -> Tensor:
    d = ((x[:, None] - c) ** 2).sum(2)
    return F.mse_loss(torch.exp(-d) @ w, y)


def test_squared_distances_in_float32_pass_through_float64() -> None:
    """A change of dtype that is none at the small point, where everything is in float64 already."""
    generator = Generator().manual_seed(0)
    c, w, x, y = (torch.randn(*s, generator=generator).float() for s in ((6, 3), (6, 2), (90, 3), (90, 2)))
    trainer = codegen.generate(distant, x[:8], y[:8], c, w).trainer({"c": c, "w": w}, batch_size=8, lr=0.1)
    trainer.run((x, y), steps=4, generator=Generator().manual_seed(1))
    assert trainer.path == "the emitted loop"
    rows = torch.randint(0, 90, (32,), generator=Generator().manual_seed(1)).view(4, 8)
    now = [c.double(), w.double()]
    for at in rows:
        leaves = [t.clone().requires_grad_() for t in now]
        grads = torch.autograd.grad(distant(x[at].double(), y[at].double(), *leaves), leaves)
        now = [t - 0.1 * g for t, g in zip(now, grads, strict=True)]
    for mine, true in zip(trainer.params.values(), now, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-6)


def test_losses_of_a_chunk_are_computed_at_once() -> None:
    """By statements for all of its steps, which take a part of the time of `torch.vmap`."""

    def forward(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        r = x @ v
        told = F.binary_cross_entropy_with_logits(x @ w, y, reduction="sum") / x.shape[0]
        return told + F.relu(r.pow(2).sum(1) - r.exp().sum(1) + 0.2).mean() - (r.exp() + r).mean()

    generator = Generator().manual_seed(0)
    w, v, x = (torch.randn(*s, generator=generator) for s in ((3, 2), (3, 4), (90, 3)))
    y = torch.rand(90, 2, generator=generator)
    trainer = codegen.generate(forward, x[:8], y[:8], w, v).trainer({"w": w, "v": v}, batch_size=8, lr=0.1)
    losses = trainer.run((x, y), steps=5, generator=Generator().manual_seed(1))
    assert "vmap" not in trainer.source
    assert "softplus(" in trainer.source
    for at, loss in zip(
        torch.randint(0, 90, (40,), generator=Generator().manual_seed(1)).view(5, 8), losses, strict=True
    ):
        leaves = [t.clone().requires_grad_() for t in (w, v)]
        true = forward(x[at], y[at], *leaves)
        torch.testing.assert_close(loss, true.detach())
        w, v = (t.detach() - 0.1 * g for t, g in zip(leaves, torch.autograd.grad(true, leaves), strict=True))
