"""W1 to W5: forwards as a user would write them, the same in the words of `torch.nn.functional`, and their sizes."""

from __future__ import annotations

import itertools
import linecache
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from examples import mlp

if TYPE_CHECKING:
    from collections.abc import Callable

SYMBOLS = 27
PAIRS = 20_000
EPS = 1e-5


@dataclass(frozen=True)
class Workload:
    """A model and its sizes. `forward` is what is generated from; `eager` takes (x, y, list of parameters)."""

    name: str
    title: str
    forward: Callable[..., Tensor]
    eager: Callable[[Tensor, Tensor, list[Tensor]], Tensor]
    params: dict[str, Tensor]
    context: int
    batch: int
    widths: tuple[int, ...]
    update: bool = True
    """Whether a step of eager updates the parameters; that of the others always does."""

    def data(self) -> tuple[Tensor, Tensor]:
        """Contexts (pairs, context) and next symbols (pairs,)."""
        g = Generator().manual_seed(0)
        x = torch.randint(0, SYMBOLS, (PAIRS, self.context), generator=g)
        return x, torch.randint(0, SYMBOLS, (PAIRS,), generator=g)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(iter(self.params.values())).dtype


def shallow(name: str, title: str, context: int, embedding: int, hidden: int, batch: int) -> Workload:
    """The notebook's MLP at other sizes, float32."""
    g = Generator().manual_seed(1)
    fan_in = context * embedding

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g)

    params = {
        "C": randn(SYMBOLS, embedding),
        "w1": randn(fan_in, hidden) * fan_in**-0.5,
        "w2": randn(hidden, SYMBOLS) * (5 / 3) * hidden**-0.5 * 0.1,
        "b2": torch.zeros(SYMBOLS),
        "bnw": torch.ones(hidden),
        "bnb": torch.zeros(hidden),
    }

    def eager(x: Tensor, y: Tensor, values: list[Tensor]) -> Tensor:
        c, w1, w2, b2, bnw, bnb = values
        h = F.batch_norm(c[x].view(x.shape[0], -1) @ w1, None, None, bnw, bnb, training=True, eps=1e-12).tanh()
        return F.cross_entropy(h @ w2 + b2, y)

    return Workload(name, title, mlp.forward, eager, params, context, batch, (fan_in, hidden, SYMBOLS))


def stack(
    name: str, title: str, layers: int, hidden: int, batch: int, dtype: torch.dtype, update: bool = True
) -> Workload:
    """Linear + BatchNorm + Tanh, `layers` times; the last one has no Tanh and gives the scores."""
    g = Generator().manual_seed(1)
    widths = (30, *[hidden] * (layers - 1), SYMBOLS)
    params = {"C": torch.randn(SYMBOLS, 10, generator=g, dtype=dtype)}
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        params[f"w{k}"] = torch.randn(a, b, generator=g, dtype=dtype) * a**-0.5
        params[f"g{k}"] = torch.full((b,), 0.1 if k == layers - 1 else 1.0, dtype=dtype)
        params[f"b{k}"] = torch.zeros(b, dtype=dtype)

    def eager(x: Tensor, y: Tensor, values: list[Tensor]) -> Tensor:
        h = values[0][x].view(x.shape[0], -1)
        for k in range(layers):
            w, scale, shift = values[1 + 3 * k : 4 + 3 * k]
            h = F.batch_norm(h @ w, None, None, scale, shift, training=True, eps=EPS)
            if k < layers - 1:
                h = h.tanh()
        return F.cross_entropy(h, y)

    return Workload(name, title, written_out(layers, list(params)), eager, params, 3, batch, widths, update)


def written_out(layers: int, names: list[str]) -> Callable[..., Tensor]:
    """The stack's forward with a parameter for every tensor, BatchNorm by hand."""
    lines = [f"def forward(x, y, {', '.join(names)}):", "    n = x.shape[0]", "    h = C[x].view(n, -1)"]
    for k in range(layers):
        lines += [
            f"    z{k} = h @ w{k}",
            f"    m{k} = z{k}.mean(0)",
            f"    v{k} = z{k}.var(0, unbiased=False)",
            f"    o{k} = g{k} * (z{k} - m{k}) / (v{k} + {EPS}).sqrt() + b{k}",
        ]
        if k < layers - 1:
            lines.append(f"    h = o{k}.tanh()")
    lines += [f"    loss = torch.nn.functional.cross_entropy(o{layers - 1}, y)", "    return loss"]
    text = "\n".join(lines) + "\n"
    filename = f"<stack of {layers} layers>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    space: dict[str, Any] = {"torch": torch}
    exec(compile(text, filename, "exec"), space)
    return cast("Callable[..., Tensor]", space["forward"])


def workload(name: str) -> Workload:
    """A workload by name. Raises KeyError."""
    return WORKLOADS[name]()


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "W1": lambda: shallow("W1", "MLP, context 3, embedding 10, hidden 200, float32, batch 32", 3, 10, 200, 32),
    "W2": lambda: stack("W2", "5 x Linear+BatchNorm+Tanh, hidden 200, float64, batch 32", 5, 200, 32, torch.float64),
    "W3": lambda: stack(
        "W3",
        "71 x Linear+BatchNorm+Tanh, hidden 100, float64, batch 32; eager without update",
        *(71, 100, 32, torch.float64, False),
    ),
    "W4": lambda: shallow("W4", "MLP, context 8, embedding 64, hidden 1024, float32, batch 4096", 8, 64, 1024, 4096),
    "W5": lambda: stack("W5", "W2's architecture, hidden 512, float32, batch 1024", 5, 512, 1024, torch.float32),
}
