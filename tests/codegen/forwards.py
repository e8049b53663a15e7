"""Small forwards as users write them, each with what makes its inputs for a batch size. The table that other tests go through."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Make = Callable[["Draw", int], tuple[Any, ...]]


@dataclass
class Draw:
    """Draws inputs of one dtype."""

    dtype: torch.dtype
    generator: Generator

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return self.randn(*shape).abs() + 0.2

    def ints(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)


@dataclass(frozen=True)
class Forward:
    """A forward and its inputs. `least` is the smallest batch at which torch itself defines it."""

    name: str
    function: Callable[..., Any]
    make: Make
    least: int = 1

    def inputs(self, dtype: torch.dtype, n: int, seed: int = 0) -> tuple[Any, ...]:
        return self.make(Draw(dtype, Generator().manual_seed(seed)), n)


TABLE: list[Forward] = []


def forward(make: Make, least: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a forward into the table."""

    def put(function: Callable[..., Any]) -> Callable[..., Any]:
        TABLE.append(Forward(function.__name__, function, make, least))
        return function

    return put


# -- views and slices -----------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 4),))
def columns_from_one(x):
    return x[:, 1:] * 2


@forward(lambda d, n: (d.randn(n, 7),))
def every_second_column(x):
    return x[..., ::2].exp()


@forward(lambda d, n: (d.randn(n, 5),))
def last_column(x):
    return x[:, -1] * x[:, 0]


@forward(lambda d, n: (d.randn(n, 4),))
def flipped(x):
    return x.flip(0) * x


@forward(lambda d, n: (d.randn(n, 2), d.randn(n, 5)))
def concatenated(x, y):
    return torch.cat([x, y], 1) ** 2


@forward(lambda d, n: (d.randn(n, 2), d.randn(n, 2)))
def stacked(x, y):
    return torch.stack([x, y], 1).sum(0)


@forward(lambda d, n: (d.randn(n, 3, 4),))
def permuted_and_flattened(x):
    return x.permute(2, 0, 1).reshape(x.shape[2], -1).tanh()


@forward(lambda d, n: (d.randn(n, 6), d.randn(3, 5)))
def pairs_of_columns(x, w):
    return x.view(x.shape[0], -1, 2)[:, :, 0] @ w


@forward(lambda d, n: (d.randn(n, 3, 4),))
def flattened(x):
    return x.flatten(1).sin()


@forward(lambda d, n: (d.randn(n, 3),))
def repeated(x):
    return x.repeat(2, 3) * 2


@forward(lambda d, n: (d.randn(n, 3),))
def rolled(x):
    return x.roll(1, 1) * x


@forward(lambda d, n: (d.randn(n, 4),))
def expanded(x):
    return x.expand(5, x.shape[0], x.shape[1]).sin()


@forward(lambda d, n: (d.randn(n, 6),))
def gated_halves(x):
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


@forward(lambda d, n: (d.randn(n, 6),))
def split_in_three(x):
    a, b, c = x.split(2, dim=1)
    return a * b - c


@forward(lambda d, n: (d.randn(3, n),))
def unbound_rows(x):
    a, b, c = x.unbind(0)
    return a * b + x.select(0, 2) * c


@forward(lambda d, n: (d.randn(n, 1, 4),))
def squeezed(x):
    return x.squeeze(1).exp().unsqueeze(-1)


@forward(lambda d, n: (d.randn(5, 5), d.randn(n, 5)))
def triangles(m, x):
    return x @ m.tril() + x @ m.triu(1)


@forward(lambda d, n: (d.randn(4, 4), d.randn(n, 4)))
def diagonals(m, x):
    return x * torch.diagonal(m) + torch.diag(m, 1).sum()


# -- broadcasting, fan-out, rebinding -----------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 4), d.randn(5, 4)))
def pairwise_distances(x, y):
    return (x[:, None, :] - y[None, :, :]).square().sum(-1).sqrt()


@forward(lambda d, n: (d.randn(n, 4),))
def outer_of_rows(x):
    return x.unsqueeze(1) * x.unsqueeze(0)


@forward(lambda d, n: (d.randn(n, 3), d.randn(3), d.randn(n, 1), d.randn(1)))
def broadcasts(x, row, column, one):
    return (x + row) * column - one / (1 + x * x)


@forward(lambda d, n: (d.randn(n),))
def rebound(x):
    y = x
    y = y + 1
    y = y * x
    y = y.tanh()
    return y


@forward(lambda d, n: (d.randn(n, 3),))
def fan_out(x):
    y = x.exp()
    return y * x + y / (1 + y) + y.sum(0)


@forward(lambda d, n: (d.randn(n, 3),))
def product_of_sum_and_mean(x):
    return x.sum() * x.mean()


@forward(lambda d, n: (d.randn(n, 3),))
def same_tensor_twice(x):
    return x * x + x @ x.T @ x


@forward(lambda d, n: (d.randn(n, 3),))
def detached(x):
    scale = x.exp().detach()
    return x / scale


@forward(lambda d, n: (d.randn(n, 3),))
def several_results(x):
    y = x.tanh()
    return y, y.sum(0), {"square": x * x}


# -- pointwise ------------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.positive(n, 3),))
def powers(x):
    return x**3 + 2**x + 1 / x + x**-0.5 + x.sqrt() + x.rsqrt()


@forward(lambda d, n: (d.positive(n, 3),))
def logarithms(x):
    return x.log() + x.log2() + x.log1p() + x.log10()


@forward(lambda d, n: (d.randn(n, 3),))
def waves(x):
    return x.sin() * x.cos() + x.tanh()


@forward(lambda d, n: (d.randn(n, 3),))
def kinks(x):
    return x.abs() + x.clamp(-0.5, 0.5) + torch.maximum(x, -x) + x.relu()


@forward(lambda d, n: (d.randn(n, 4), d.randn(4)))
def chosen(x, w):
    return torch.where(x > 0, x * w, x.exp())


@forward(lambda d, n: (d.randn(n, 3),))
def activations(x):
    return F.silu(x) + torch.sigmoid(x) + F.logsigmoid(x) + x.expm1() + F.gelu(x) + F.gelu(x, approximate="tanh")


@forward(lambda d, n: (d.randn(n, 3), d.randn(n, 3)))
def masked(x, y):
    return x.masked_fill(y > 0, 0.0) * y


# -- reductions -----------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 5),), least=2)
def deviations(x):
    return x.std(0) + x.var(1, keepdim=True).mean()


@forward(lambda d, n: (d.randn(n, 5),))
def largest(x):
    return x.amax(1) + x.relu().sum(1)


@forward(lambda d, n: (d.randn(n, 5),))
def largest_with_place(x):
    return x - x.max(1, keepdim=True).values


@forward(lambda d, n: (d.randn(n, 5),))
def soft_maxima(x):
    return x.softmax(-1) * x.log_softmax(0) + torch.logsumexp(x, 1, keepdim=True)


@forward(lambda d, n: (d.randn(n, 5),))
def unit_rows(x):
    return x / (x * x).sum(1, keepdim=True).sqrt()


# -- products -------------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 4), d.randn(4, 3), d.randn(3)))
def affine(x, w, b):
    return x @ w + b


@forward(lambda d, n: (d.randn(n, 4), d.randn(3, 4), d.randn(3)))
def linear(x, w, b):
    return F.linear(x, w, b).relu()


@forward(lambda d, n: (d.randn(n, 2, 4), d.randn(4, 3)))
def batched_by_plain(x, w):
    return x @ w


@forward(lambda d, n: (d.randn(6, 1, n, 4), d.randn(2, 4, 5)))
def broadcast_matmul(x, y):
    return x @ y


@forward(lambda d, n: (d.randn(n, 4), d.randn(4)))
def matrix_by_vector(x, v):
    return x @ v


@forward(lambda d, n: (d.randn(n), d.randn(n)))
def dot(x, y):
    return x @ y


@forward(lambda d, n: (d.randn(n, 2, 3), d.randn(n, 4, 3)))
def einsum(x, y):
    return torch.einsum("bij,bkj->bik", x, y)


@forward(lambda d, n: (d.randn(n, 4),))
def gram(x):
    return x.T @ x


@forward(lambda d, n: (d.randn(n, 2, 3), d.randn(n, 3, 4)))
def bmm(x, y):
    return torch.bmm(x, y)


# -- gathers --------------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(6, 4), d.ints(6, n, 2)))
def rows_at(x, i):
    return x[i]


@forward(lambda d, n: (d.randn(3, 6), d.ints(6, n, 2)))
def columns_at(x, i):
    return x[:, i].exp()


@forward(lambda d, n: (d.randn(n, 6), d.ints(6, n)))
def one_per_row(x, i):
    return x[torch.arange(x.shape[0]), i]


@forward(lambda d, n: (d.randn(n, 6), d.ints(6, n)))
def one_per_row_by_range(x, i):
    n = x.shape[0]
    return -x.log_softmax(1)[range(n), i].mean()


@forward(lambda d, n: (d.randn(n, 6), d.ints(6, n, 3)))
def gathered(x, i):
    return x.gather(1, i)


@forward(lambda d, n: (d.randn(n, 6), d.ints(6, 4)))
def selected(x, i):
    return x.index_select(1, i) * 2


@forward(lambda d, n: (d.ints(6, n, 3), d.randn(6, 4)))
def embedded(i, table):
    return F.embedding(i, table).mean(1)


# -- written in place -------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 4),))
def parts_added_to(x):
    y = x * 2
    y[:, 1] += x[:, 0]
    y[..., 2:] += 3 * x[:, :2]
    y[:, -1].sub_(1)
    return y.sin()


@forward(lambda d, n: (d.randn(n, 4),))
def a_part_that_is_kept(x):
    y = x.clone()
    first = y[:, 0]
    first += 5
    total = y.sum()
    first.mul_(2)
    return (y**2).sum() * total + first.sum()


@forward(lambda d, n: (d.randn(n, 3), d.ints(n, 1)))
def logarithms_of_sizes(x, i):
    even = (x - x).log_softmax(0)
    return even + 0, torch.index_put(even * 1, (i,), x[0] ** 2), (x - x).logsumexp(0)


@forward(lambda d, n: (d.randn(n, 4),))
def diagonals_filled(x):
    s, w = x @ x.T, x * 2
    s.fill_diagonal_(0)
    w.fill_diagonal_(-1.5)
    return s.square().sum(1) + w.exp().sum(1)


@forward(lambda d, n: (d.randn(n, 4), d.randn(n)))
def diagonals_written(x, v):
    s = x @ x.T
    s.diagonal().add_(v)
    part = s.diagonal()
    part *= 2
    total = s.sum()
    part.sub_(v.sin())
    w = x.unsqueeze(-1) * x.unsqueeze(-2)
    w.diagonal(1, -2, -1).sub_(1)
    return (s**2).sum(1) * total + part.sum() + (w**3).sum((1, 2))


@forward(lambda d, n: (d.randn(n, 3),))
def filled(x):
    y = x.new_zeros(x.shape[0], 4)
    for k in range(3):
        y[:, k : k + 2] += x[:, k, None]
    return y**3


# -- layers and losses ------------------------------------------------------------------------------------------------------


@forward(lambda d, n: (d.randn(n, 4), d.randn(4), d.randn(4)))
def layer_norm(x, w, b):
    return F.gelu(F.layer_norm(x, (x.shape[-1],), w, b))


@forward(lambda d, n: (d.randn(n, 7), d.ints(7, n)))
def cross_entropy(x, y):
    return F.cross_entropy(x, y)


@forward(lambda d, n: (d.randn(n, 3), d.randn(n, 3)))
def mse(x, y):
    return F.mse_loss(x, y)


@forward(lambda d, n: (d.randn(n, 5), d.randn(n, 5)))
def binary_cross_entropy(x, y):
    p, t = torch.sigmoid(x), torch.sigmoid(y)
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


@forward(lambda d, n: (d.randn(n, 2, 5, 4), d.randn(n, 2, 5, 4), d.randn(n, 2, 5, 4)))
def causal_attention(q, k, v):
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    t = s.shape[-1]
    s = s.masked_fill(torch.tril(torch.ones(t, t)) == 0, float("-inf"))
    return s.softmax(-1) @ v


@forward(lambda d, n: (d.randn(n, 4), d.randn(4), d.randn(4)), least=2)
def batch_norm_by_hand(x, w, b):
    mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True, unbiased=True)
    return w * (x - mean) / torch.sqrt(var + 1e-5) + b


@forward(lambda d, n: (d.randn(n, 4),), least=2)
def projected_variance(x):
    n = x.shape[0]
    projection = torch.eye(n) - torch.ones(n, n) / n
    return (x.T @ projection @ x).diag() / n
