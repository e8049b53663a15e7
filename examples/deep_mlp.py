"""The makemore MLP made deep: five linear layers without bias, each with a BatchNorm, and tanh between them, in float64.

The BatchNorms keep running means and variances, which `codegen train` evaluates with.
"""

import torch
from torch import Tensor

context = 3  # characters the model sees
n_embd = 10
n_hidden = 200
depth = 5
eps = 1e-5
momentum = 0.001
DEFAULTS = {"steps": 10_000, "batch": 32, "lr": 1.0, "dtype": "float64"}


def batchnorm(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Columns of `x` (n, d) normalised by their mean and biased variance, scaled and shifted; and those two, each (d,)."""
    mean = x.mean(0)
    centred = x - mean
    var = (centred**2).mean(0)
    return w * centred / (var + eps).sqrt() + b, mean, var


def forward(
    x: Tensor, y: Tensor, C: Tensor,
    w1: Tensor, bnw1: Tensor, bnb1: Tensor, w2: Tensor, bnw2: Tensor, bnb2: Tensor, w3: Tensor, bnw3: Tensor, bnb3: Tensor,
    w4: Tensor, bnw4: Tensor, bnb4: Tensor, w5: Tensor, bnw5: Tensor, bnb5: Tensor,
) -> Tensor:  # fmt: skip
    """The mean negative log-likelihood of the next characters `y` (n,) after the contexts `x` (n, context)."""
    emb = C[x].view(x.shape[0], -1)
    h1_bn, mean1, var1 = batchnorm(emb @ w1, bnw1, bnb1)
    h1 = h1_bn.tanh()
    h2_bn, mean2, var2 = batchnorm(h1 @ w2, bnw2, bnb2)
    h2 = h2_bn.tanh()
    h3_bn, mean3, var3 = batchnorm(h2 @ w3, bnw3, bnb3)
    h3 = h3_bn.tanh()
    h4_bn, mean4, var4 = batchnorm(h3 @ w4, bnw4, bnb4)
    h4 = h4_bn.tanh()
    logits, mean5, var5 = batchnorm(h4 @ w5, bnw5, bnb5)
    exp_l = logits.exp()
    probs = exp_l / exp_l.sum(dim=-1, keepdim=True)
    loss = -probs.log()[torch.arange(y.shape[0]), y].mean()
    return loss


def example_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """A batch of 32 and freshly drawn float32 parameters."""
    x = torch.randint(0, 27, (32, context), generator=generator)
    y = torch.randint(0, 27, (32,), generator=generator)
    return {"x": x, "y": y, **init(generator, 27, torch.float32)}


def init(generator: torch.Generator, vocab_size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Initial parameters by name, in the forward's order."""
    params = {"C": torch.randn(vocab_size, n_embd, generator=generator, dtype=dtype)}
    sizes = [n_embd * context, *[n_hidden] * (depth - 1), vocab_size]
    for k in range(depth):
        weight = torch.randn(sizes[k], sizes[k + 1], generator=generator, dtype=dtype)
        params[f"w{k + 1}"] = weight * sizes[k] ** -0.5
        # the last layer a tenth as large: less confident at the start
        params[f"bnw{k + 1}"] = torch.ones(sizes[k + 1], dtype=dtype) * (0.1 if k == depth - 1 else 1.0)
        params[f"bnb{k + 1}"] = torch.zeros(sizes[k + 1], dtype=dtype)
    return params


def init_buffers(dtype: torch.dtype, vocab_size: int) -> dict[str, Tensor]:
    """Running means and variances before the first step, by the forward's names for those of a batch."""
    sizes = [*[n_hidden] * (depth - 1), vocab_size]
    means = {f"mean{k + 1}": torch.zeros(n, dtype=dtype) for k, n in enumerate(sizes)}
    return means | {f"var{k + 1}": torch.ones(n, dtype=dtype) for k, n in enumerate(sizes)}


def update_buffers(buffers: dict[str, Tensor], saved: object) -> None:
    """Move every running statistic a thousandth of the way to the batch's, which `saved` has under the same name."""
    for name, running in buffers.items():
        buffers[name] = running * (1 - momentum) + getattr(saved, name) * momentum


def logits(x: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool) -> Tensor:
    """Scores (n, vocab) of a next character for contexts `x` (n, context), with running statistics or those of `x`."""
    h = params["C"][x].view(x.shape[0], -1)
    for k in range(1, depth + 1):
        h = h @ params[f"w{k}"]
        mean, var = (h.mean(0), h.var(0, correction=0)) if batch_stats else (buffers[f"mean{k}"], buffers[f"var{k}"])
        h = params[f"bnw{k}"] * (h - mean) / (var + eps).sqrt() + params[f"bnb{k}"]
        h = h.tanh() if k < depth else h
    return h
