"""Small forwards of several kinds, and steps taken with the closed backward to compare with."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from codegen.program import Program
from examples import mlp

Case = tuple[Callable[..., Tensor], dict[str, Tensor], tuple[Tensor, ...]]


def regression(x: Tensor, y: Tensor, w: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return F.mse_loss((x @ w + b).tanh() @ v, y)


def gated(x: Tensor, y: Tensor, w: Tensor, u: Tensor, g: Tensor) -> Tensor:
    h = torch.sigmoid(x @ w) * torch.relu(x @ u)
    h = F.layer_norm(h, (h.shape[1],), g)
    return F.cross_entropy(h, y)


def embedded(x: Tensor, y: Tensor, table: Tensor) -> Tensor:
    return F.cross_entropy(table[x], y)


def unbiased(x: Tensor, y: Tensor, w: Tensor, g: Tensor, b: Tensor) -> Tensor:
    h = x @ w
    h = g * (h - h.mean(0, keepdim=True)) / (h.var(0, keepdim=True) + 1e-5).sqrt() + b
    return F.cross_entropy(h, y)


def tied(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    h = c[x].mean(1)
    return F.cross_entropy(h @ c.T, y)


def sliced(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
    left, right = (x @ w + b).chunk(2, 1)
    return F.cross_entropy(left * right.tanh() + b[1:4], y)


def gated_by_the_last_half(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    left, right = (x @ w).view(x.shape[0], 2, 6).chunk(2, -1)
    return F.cross_entropy((left * right.tanh()).flatten(1) @ v, y)


def convolved(x: Tensor, y: Tensor, k: Tensor, b: Tensor, v: Tensor) -> Tensor:
    h = F.conv2d(x, k, b, padding=1).tanh()
    return F.cross_entropy(h.flatten(1) @ v, y)


def two_slopes(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    h = (x @ w).tanh()
    return F.mse_loss((1 - h**2) @ v, y) + (3 - h).square().mean()


def scaled(x: Tensor, y: Tensor, w: Tensor, s: Tensor) -> Tensor:
    return F.mse_loss(s * (x @ w).tanh() + s.exp(), y)


def by_column(x: Tensor, y: Tensor, c: Tensor, v: Tensor) -> Tensor:
    h = c[x[:, 0]].tanh() + 2 * c[x[:, 1]].tanh() @ v
    return F.cross_entropy(h + c[x.T.flatten()].view(2, x.shape[0], -1).sum(0), y)


def deep(x: Tensor, y: Tensor, c: Tensor, w: Tensor, g: Tensor, b: Tensor, v: Tensor) -> Tensor:
    h = c[x].view(x.shape[0], -1) @ w
    h = F.batch_norm(h, None, None, g, b, True, 0.1, 1e-5).tanh()
    return F.cross_entropy(h @ v, y)


def in_context(x: Tensor, near: Tensor, far: Tensor, u: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Skip-gram with negative samples: one table is read at two places, a vector at one."""
    h = u[x]
    score = (h * v[near]).sum(1) + bias[near]
    return -F.logsigmoid(score).mean() - F.logsigmoid(-torch.einsum("bd,bkd->bk", h, v[far])).sum(1).mean()


def cases(dtype: torch.dtype = torch.float64) -> dict[str, Case]:
    g = Generator().manual_seed(5)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, dtype=dtype)

    def randint(high: int, *size: int) -> Tensor:
        return torch.randint(0, high, size, generator=g)

    made = mlp.init(g, 27, dtype)
    return {
        "mlp": (mlp.forward, made, (randint(27, 300, 3), randint(27, 300))),
        "regression": (regression, {"w": randn(4, 8), "b": randn(8), "v": randn(8, 2)}, (randn(300, 4), randn(300, 2))),
        "gated": (gated, {"w": randn(4, 6), "u": randn(4, 6), "g": randn(6)}, (randn(300, 4), randint(6, 300))),
        "embedded": (embedded, {"table": randn(7, 7)}, (randint(7, 300), randint(7, 300))),
        "unbiased": (unbiased, {"w": randn(4, 6), "g": randn(6), "b": randn(6)}, (randn(300, 4), randint(6, 300))),
        "tied": (tied, {"c": randn(7, 5)}, (randint(7, 300, 3), randint(7, 300))),
        "deep": (
            deep,
            {"c": randn(7, 5), "w": randn(15, 8), "g": randn(8), "b": randn(8), "v": randn(8, 7)},
            (randint(7, 300, 3), randint(7, 300)),
        ),
        "chunked": (
            gated_by_the_last_half,
            {"w": randn(4, 12), "v": randn(6, 3)},
            (randn(300, 4), randint(3, 300)),
        ),
        "convolved": (
            convolved,
            {"k": randn(3, 2, 3, 3), "b": randn(3), "v": randn(60, 4)},
            (randn(300, 2, 4, 5), randint(4, 300)),
        ),
        "by column": (by_column, {"c": randn(7, 5), "v": randn(5, 5)}, (randint(7, 300, 2), randint(5, 300))),
        "scaled": (scaled, {"w": randn(4, 2), "s": randn(1)[0]}, (randn(300, 4), randn(300, 2))),
        "two slopes": (two_slopes, {"w": randn(4, 6), "v": randn(6, 2)}, (randn(300, 4), randn(300, 2))),
        "in context": (
            in_context,
            {"u": randn(150, 4), "v": randn(150, 4), "bias": randn(150)},
            (randint(150, 300), randint(150, 300), randint(150, 300, 3)),
        ),
        "sliced": (sliced, {"w": randn(4, 6), "b": randn(6)}, (randn(300, 4), randint(3, 300))),
    }  # fmt: skip


NAMES = tuple(cases())


def stepwise(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Tensor],
    batch: int,
    steps: int,
    lr: float,
    momentum: float,
    generator: Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and parameters of steps taken one by one with the closed backward."""
    params = {k: v.clone() for k, v in params.items()}
    velocity = {k: torch.zeros_like(v) for k, v in params.items()}
    losses: list[Tensor] = []
    for _ in range(steps):
        rows = torch.randint(0, len(data[0]), (batch,), generator=generator)
        loss, saved = program.forward(*[d[rows] for d in data], *params.values())
        grads = program.backward(saved)
        losses.append(loss)
        for k, p in params.items():
            velocity[k] = momentum * velocity[k] + grads[k]
            params[k] = p - lr * velocity[k]
    return torch.stack(losses), params


@pytest.fixture(autouse=True)
def double() -> object:
    """Constants that a forward makes itself agree with float64 parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
