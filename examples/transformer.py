"""A small causal transformer on names: two blocks of attention and a feed-forward layer, with LayerNorm, GELU and residuals.

A row is a whole name. Every position sees the characters before it, and says what comes next; the loss is over all of them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

context = 16  # characters of a name that the model sees
rows = "words"
n_embd = 32
n_head = 4
n_layer = 2
DEFAULTS = {"steps": 10_000, "batch": 32, "lr": 0.5}


def attended(x: Tensor, wqkv: Tensor, wo: Tensor) -> Tensor:
    """Causal attention of `x` (n, t, d) with `n_head` heads."""
    n, t, d = x.shape
    q, k, v = ((x @ w).view(n, t, n_head, d // n_head).transpose(1, 2) for w in wqkv.unbind())
    scores = q @ k.transpose(-2, -1) / math.sqrt(d // n_head)
    ahead = torch.ones(t, t, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(ahead, float("-inf")).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(n, t, d) @ wo


def block(
    x: Tensor, n1w: Tensor, n1b: Tensor, wqkv: Tensor, wo: Tensor, n2w: Tensor, n2b: Tensor, up: Tensor, upb: Tensor, down: Tensor
) -> Tensor:  # fmt: skip
    """Attention and a feed-forward layer, each on a normalised copy and added to `x` (n, t, d)."""
    d = x.shape[-1]
    x = x + attended(F.layer_norm(x, (d,), n1w, n1b), wqkv, wo)
    return x + F.gelu(F.layer_norm(x, (d,), n2w, n2b) @ up + upb) @ down


def scores(x: Tensor, params: list[Tensor]) -> Tensor:
    """Scores (n, t, vocab) of the next character at every position of `x` (n, t)."""
    wte, wpe, *blocks, nw, nb = params
    h = wte[x] + wpe[: x.shape[1]]
    for k in range(n_layer):
        h = block(h, *blocks[9 * k : 9 * (k + 1)])
    h = F.layer_norm(h, (h.shape[-1],), nw, nb)
    return h @ wte[:-1].T


def forward(
    x: Tensor, y: Tensor, wte: Tensor, wpe: Tensor,
    n11w: Tensor, n11b: Tensor, wqkv1: Tensor, wo1: Tensor, n12w: Tensor, n12b: Tensor, up1: Tensor, upb1: Tensor, down1: Tensor,
    n21w: Tensor, n21b: Tensor, wqkv2: Tensor, wo2: Tensor, n22w: Tensor, n22b: Tensor, up2: Tensor, upb2: Tensor, down2: Tensor,
    nw: Tensor, nb: Tensor,
) -> Tensor:  # fmt: skip
    """The mean negative log-likelihood of the characters `y` (n, t) that follow those of `x` (n, t), names alone counted."""
    h = wte[x] + wpe[: x.shape[1]]
    h1 = block(h, n11w, n11b, wqkv1, wo1, n12w, n12b, up1, upb1, down1)
    h2 = block(h1, n21w, n21b, wqkv2, wo2, n22w, n22b, up2, upb2, down2)
    logits = F.layer_norm(h2, (h2.shape[-1],), nw, nb) @ wte[:-1].T
    logp = F.log_softmax(logits, dim=-1)
    nll = -logp.gather(-1, y[..., None]).squeeze(-1)
    inside = (x < wte.shape[0] - 1).to(nll.dtype)
    loss = (nll * inside).sum() / inside.sum()
    return loss


def example_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """A batch of 32 names of 4 to 15 characters and freshly drawn float32 parameters."""
    x = torch.randint(0, 27, (32, context), generator=generator)
    y = torch.randint(0, 27, (32, context), generator=generator)
    length = torch.randint(5, context, (32, 1), generator=generator)
    return {"x": x.where(torch.arange(context) < length, 27), "y": y, **init(generator, 27, torch.float32)}


def init(generator: torch.Generator, vocab_size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Initial parameters by name, in the forward's order. The last row of the table is for what follows a name."""

    def randn(*size: int, std: float) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype) * std

    ones, zeros = torch.ones(n_embd, dtype=dtype), torch.zeros(n_embd, dtype=dtype)
    out = n_embd**-0.5 / math.sqrt(2 * n_layer)
    params = {"wte": randn(vocab_size + 1, n_embd, std=0.1), "wpe": randn(context, n_embd, std=0.1)}
    for k in range(1, n_layer + 1):
        params |= {
            f"n{k}1w": ones.clone(),
            f"n{k}1b": zeros.clone(),
            f"wqkv{k}": randn(3, n_embd, n_embd, std=n_embd**-0.5),
            f"wo{k}": randn(n_embd, n_embd, std=out),
            f"n{k}2w": ones.clone(),
            f"n{k}2b": zeros.clone(),
            f"up{k}": randn(n_embd, 4 * n_embd, std=n_embd**-0.5),
            f"upb{k}": torch.zeros(4 * n_embd, dtype=dtype),
            f"down{k}": randn(4 * n_embd, n_embd, std=out / 2),
        }
    return params | {"nw": ones.clone(), "nb": zeros.clone()}


def logits(x: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool) -> Tensor:
    """Scores (n, vocab) of the character after those of `x` (n, t)."""
    return scores(x, list(params.values()))[:, -1]


def metrics(
    x: Tensor, y: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool
) -> dict[str, Tensor]:
    """The negative log-likelihood of every character of the names, and of each name's end."""
    nll = F.cross_entropy(scores(x, list(params.values())).transpose(1, 2), y, reduction="none")
    return {"loss": nll[x < params["wte"].shape[0] - 1]}
