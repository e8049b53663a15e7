"""Steps of networks of many kinds: the emitted loop against eager autograd, and with `--compile` against torch.compile.

Run from the repository's root: `python benchmarks/networks.py [NAME...] [--compile]`. One thread; the variants take the same
steps in turn, round after round, and what is printed is the median of the ratios of processor time in a round with its quartiles.
Parameters after a step are compared first: what differs is not timed. The time from the forward to the first step stands behind.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

LR, ROUNDS, SECONDS, TOLERANCE = 0.01, 9, 0.2, 1e-4


class Network(NamedTuple):
    """A forward of rows of `data` and `params`, which takes `batch` rows a step."""

    forward: Callable[..., Tensor]
    params: dict[str, Tensor]
    data: tuple[Tensor, ...]
    batch: int


G = Generator().manual_seed(0)


def randn(*size: int, by: float = 1.0) -> Tensor:
    """Normal numbers times `by`."""
    return torch.randn(*size, generator=G) * by


def labels(classes: int, *size: int) -> Tensor:
    """Integers below `classes`."""
    return torch.randint(0, classes, size, generator=G)


def rectified() -> Network:
    """Two layers of relu on 784 numbers."""

    def forward(x, y, w1, b1, w2, b2, w3, b3):
        h = torch.relu(torch.relu(x @ w1 + b1) @ w2 + b2)
        return F.cross_entropy(h @ w3 + b3, y)

    sizes = ((784, 256), (256, 128), (128, 10))
    params = {
        f"{n}{k}": t
        for k, (a, b) in enumerate(sizes, 1)
        for n, t in (("w", randn(a, b, by=a**-0.5)), ("b", randn(b) * 0))
    }
    return Network(forward, params, (randn(3000, 784), labels(10, 3000)), 64)


def logistic_regression() -> Network:
    """Thirty features, a weight for each and a bias."""

    def forward(x, y, w, b):
        return F.binary_cross_entropy_with_logits(x @ w + b, y)

    return Network(
        forward, {"w": randn(30, by=0.1), "b": torch.zeros(())}, (randn(5000, 30), labels(2, 5000).float()), 64
    )


def skip_gram() -> Network:
    """Two tables of 2,000 words, five negative samples."""

    def forward(centre, near, far, u, v):
        h = u[centre]
        positive, negative = (h * v[near]).sum(1), torch.einsum("bd,bkd->bk", h, v[far])
        return -(F.logsigmoid(positive).mean() + F.logsigmoid(-negative).sum(1).mean())

    data = labels(2000, 9000), labels(2000, 9000), labels(2000, 9000, 5)
    return Network(forward, {n: randn(2000, 64, by=0.1) for n in "uv"}, data, 128)


def factorised() -> Network:
    """A matrix of ratings by two tables and two biases."""

    def forward(i, j, r, u, v, bu, bv):
        return ((u[i] * v[j]).sum(1) + bu[i] + bv[j] - r).pow(2).mean()

    params = {"u": randn(500, 16, by=0.1), "v": randn(800, 16, by=0.1), "bu": torch.zeros(500), "bv": torch.zeros(800)}
    return Network(forward, params, (labels(500, 9000), labels(800, 9000), randn(9000)), 256)


def pooled_images() -> Network:
    """Two convolutions with relu and max pooling."""

    def forward(x, y, k1, c1, k2, c2, w, b):
        h = F.max_pool2d(F.relu(F.conv2d(x, k1, c1, padding=1)), 2)
        h = F.max_pool2d(F.relu(F.conv2d(h, k2, c2, padding=1)), 2)
        return F.cross_entropy(h.flatten(1) @ w + b, y)

    params = {
        "k1": randn(16, 1, 3, 3, by=0.3), "c1": torch.zeros(16), "k2": randn(32, 16, 3, 3, by=0.1), "c2": torch.zeros(32),
        "w": randn(32 * 49, 10, by=0.03), "b": torch.zeros(10),
    }  # fmt: skip
    return Network(forward, params, (randn(1000, 1, 28, 28), labels(10, 1000)), 32)


def normalised_images() -> Network:
    """Two convolutions with BatchNorm and relu, and a mean over places."""

    def forward(x, y, k1, g1, b1, k2, g2, b2, w, b):
        h = F.relu(F.batch_norm(F.conv2d(x, k1, padding=1), None, None, g1, b1, training=True))
        h = F.relu(F.batch_norm(F.conv2d(h, k2, stride=2, padding=1), None, None, g2, b2, training=True))
        return F.cross_entropy(h.mean((2, 3)) @ w + b, y)

    params = {
        "k1": randn(16, 3, 3, 3, by=0.3), "g1": torch.ones(16), "b1": torch.zeros(16), "k2": randn(32, 16, 3, 3, by=0.1),
        "g2": torch.ones(32), "b2": torch.zeros(32), "w": randn(32, 10, by=0.1), "b": torch.zeros(10),
    }  # fmt: skip
    return Network(forward, params, (randn(500, 3, 32, 32), labels(10, 500)), 32)


def recurrent() -> Network:
    """Eight steps of tanh on symbols."""

    def forward(x, y, c, wx, wh, b, wo):
        h = torch.zeros(x.shape[0], 64)
        for t in range(8):
            h = torch.tanh(c[x[:, t]] @ wx + h @ wh + b)
        return F.cross_entropy(h @ wo, y)

    params = {"c": randn(27, 16), "wx": randn(16, 64, by=0.2), "wh": randn(64, 64, by=0.1), "b": torch.zeros(64)}
    return Network(forward, params | {"wo": randn(64, 27, by=0.1)}, (labels(27, 5000, 8), labels(27, 5000)), 32)


def gated_recurrent() -> Network:
    """Six steps of a GRU on symbols."""

    def forward(x, y, c, wx, wh, b, wo):
        h = torch.zeros(x.shape[0], 64)
        for t in range(6):
            a, r = c[x[:, t]] @ wx + b, h @ wh
            z, q = torch.sigmoid(a[:, :128] + r[:, :128]).chunk(2, 1)
            h = (1 - z) * h + z * torch.tanh(a[:, 128:] + q * r[:, 128:])
        return F.cross_entropy(h @ wo, y)

    params = {"c": randn(27, 16), "wx": randn(16, 192, by=0.2), "wh": randn(64, 192, by=0.1), "b": torch.zeros(192)}
    return Network(forward, params | {"wo": randn(64, 27, by=0.1)}, (labels(27, 5000, 6), labels(27, 5000)), 32)


def transformer() -> Network:
    """A block of causal attention and a gelu layer, with LayerNorm and residuals."""
    places, width, heads = 16, 32, 4

    def forward(x, y, table, at, g1, s1, wqkv, wo, g2, s2, w1, c1, w2, c2, head):
        n = x.shape[0]
        h = table[x] + at
        q, k, v = (F.layer_norm(h, (width,), g1, s1) @ wqkv).view(n, places, 3, heads, -1).permute(2, 0, 3, 1, 4)
        h = h + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, places, width) @ wo
        h = h + F.gelu(F.layer_norm(h, (width,), g2, s2) @ w1 + c1) @ w2 + c2
        return F.cross_entropy((h @ head).view(-1, 27), y.view(-1))

    params = {
        "table": randn(27, width, by=0.3), "at": randn(places, width, by=0.1), "g1": torch.ones(width), "s1": torch.zeros(width),
        "wqkv": randn(width, 3 * width, by=0.15), "wo": randn(width, width, by=0.15), "g2": torch.ones(width),
        "s2": torch.zeros(width), "w1": randn(width, 4 * width, by=0.15), "c1": torch.zeros(4 * width),
        "w2": randn(4 * width, width, by=0.1), "c2": torch.zeros(width), "head": randn(width, 27, by=0.1),
    }  # fmt: skip
    return Network(forward, params, (labels(27, 3000, places), labels(27, 3000, places)), 16)


def variational() -> Network:
    """An autoencoder with a normal code."""

    def forward(x, noise, w1, b1, wm, wl, w2, b2, w3, b3):
        h = torch.relu(x @ w1 + b1)
        mean, log_var = h @ wm, h @ wl
        out = torch.relu((mean + noise * torch.exp(0.5 * log_var)) @ w2 + b2) @ w3 + b3
        kl = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum(1).mean()
        return F.binary_cross_entropy_with_logits(out, x, reduction="sum") / x.shape[0] + kl

    params = {
        "w1": randn(64, 64, by=0.1), "b1": torch.zeros(64), "wm": randn(64, 8, by=0.1), "wl": randn(64, 8, by=0.1),
        "w2": randn(8, 64, by=0.2), "b2": torch.zeros(64), "w3": randn(64, 64, by=0.1), "b3": torch.zeros(64),
    }  # fmt: skip
    return Network(forward, params, (torch.rand(5000, 64, generator=G), randn(5000, 8)), 64)


def contrastive() -> Network:
    """Two views of each row, told apart from all others by their cosines."""

    def forward(a, b, w1, w2):
        one, other = (F.normalize(torch.relu(x @ w1) @ w2, dim=1) for x in (a, b))
        scores, own = one @ other.T / 0.1, torch.arange(a.shape[0])
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    return Network(
        forward, {"w1": randn(32, 64, by=0.1), "w2": randn(64, 32, by=0.1)}, (randn(5000, 32), randn(5000, 32)), 64
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    f.__name__: f
    for f in (
        rectified, logistic_regression, skip_gram, factorised, pooled_images, normalised_images, recurrent, gated_recurrent,
        transformer, variational, contrastive,
    )
}  # fmt: skip


def eager(net: Network, values: list[Tensor]) -> Callable[[int], None]:
    """Steps of autograd and `torch.optim.SGD`, which change `values`."""
    leaves = [v.requires_grad_() for v in values]
    optimizer: Any = torch.optim.SGD(leaves, lr=LR)
    generator = Generator().manual_seed(0)

    def run(steps: int) -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(net.data[0]), (net.batch,), generator=generator)
            loss: Any = net.forward(*[d[rows] for d in net.data], *leaves)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def compiled(net: Network) -> Callable[[int], None]:
    """Steps of forward, backward and update as one function through torch.compile."""
    values = [v.clone() for v in net.params.values()]
    generator = Generator().manual_seed(0)

    def step(params: list[Tensor], *rows: Tensor) -> list[Tensor]:
        grads = torch.func.grad(lambda p: net.forward(*rows, *p))(params)
        return [p - LR * g for p, g in zip(params, grads, strict=True)]

    torch._dynamo.reset()
    call: Any = torch.compile(step, dynamic=False)

    def run(steps: int) -> None:
        nonlocal values
        with torch.no_grad():
            for _ in range(steps):
                rows = torch.randint(0, len(net.data[0]), (net.batch,), generator=generator)
                values = call(values, *[d[rows] for d in net.data])

    return run


def spent(run: Callable[[int], None], steps: int) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    run(steps)
    return time.process_time() - began


def race(name: str, with_compiler: bool) -> str:
    """One line of the table."""
    net = NETWORKS[name]()
    began = time.process_time()
    program = codegen.generate(net.forward, *[d[: net.batch] for d in net.data], *net.params.values())
    trainer = program.trainer(net.params, batch_size=net.batch, lr=LR)
    generator = Generator().manual_seed(0)
    runs: dict[str, Callable[[int], None]] = {"emitted": lambda n: trainer.run(net.data, steps=n, generator=generator)}
    runs["emitted"](1)
    ready = time.process_time() - began
    values = [v.clone() for v in net.params.values()]
    reference = eager(net, values)
    reference(1)
    for (key, mine), true in zip(trainer.params.items(), values, strict=True):
        if not float((mine - true.detach()).abs().max()) <= TOLERANCE * (1 + float(true.detach().abs().max())):
            return f"{name:20} {key} differs from eager's after a step: not timed"
    if with_compiler:
        runs["compiled"] = compiled(net)
    steps = max(3, round(SECONDS / spent(reference, 3) * 3))
    for run in runs.values():
        run(steps)
    ratios: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        base = spent(reference, steps)
        for key, run in runs.items():
            ratios[key].append(base / spent(run, steps))
    told = [f"{name:20}"]
    for key, found in ratios.items():
        low, middle, high = statistics.quantiles(found, n=4)
        told.append(f"{key} {middle:5.2f} ({low:.2f} to {high:.2f})")
    return "  ".join([*told, f"first step {ready:.1f} s"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, one step a call")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("speed of a step relative to eager: median (quartiles)")
    for name in given.names or NETWORKS:
        print(race(name, given.compile), flush=True)


if __name__ == "__main__":
    main()
