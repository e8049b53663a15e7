"""The makemore MLP with a hand-made BatchNorm: three characters in, a distribution over the next one out.

The forward is written as in the lecture notebook it comes from, projection matrices included. Everything below it is
what `codegen train` and `codegen sample` need to know about the model besides its forward.
"""

import torch
from torch import Tensor

context = 3  # characters the model sees
n_embd = 10
n_hidden = 200
DEFAULTS = {"steps": 10_000, "batch": 32, "lr": 1.0}


def forward(x: Tensor, y: Tensor, C: Tensor, w1: Tensor, w2: Tensor, b2: Tensor, bnw: Tensor, bnb: Tensor) -> Tensor:
    """The mean negative log-likelihood of the next characters `y` (bs,) after the contexts `x` (bs, context)."""
    bs = x.shape[0]
    # buffer
    mean_proj = torch.ones(1, bs) / bs
    var_proj = torch.eye(bs) - mean_proj

    # 1. logits
    emb = C[x].view(x.shape[0], -1)
    hpreact = emb @ w1
    bnmeani = mean_proj @ hpreact
    bnstdi = (var_proj @ hpreact).square().mean(dim=0, keepdim=True).sqrt()
    hpreact_bn = (hpreact - bnmeani) / bnstdi * bnw + bnb
    h = hpreact_bn.tanh()
    logits = h @ w2 + b2
    # 2. loss
    exp_l = logits.exp()
    count = exp_l.sum(dim=-1, keepdim=True)
    probs = exp_l / count
    nlls = -probs.log()
    loss = nlls[torch.arange(y.shape[0]), y].mean()
    return loss


def example_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with, in the forward's order: a batch of 32 and freshly drawn float32 parameters."""
    params = init(generator, 27, torch.float32)
    x = torch.randint(0, 27, (32, context), generator=generator)
    y = torch.randint(0, 27, (32,), generator=generator)
    return {"x": x, "y": y, **params}


def init(generator: torch.Generator, vocab_size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Initial parameters by name, in the forward's order."""

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    fan_in = n_embd * context
    return {
        "C": randn(vocab_size, n_embd),
        "w1": randn(fan_in, n_hidden) * fan_in**-0.5,
        # a tenth of the usual scale: less confident at the start
        "w2": randn(n_hidden, vocab_size) * (5 / 3) * n_hidden**-0.5 * 0.1,
        "b2": torch.zeros(vocab_size, dtype=dtype),
        "bnw": torch.ones(n_hidden, dtype=dtype),
        "bnb": torch.zeros(n_hidden, dtype=dtype),
    }


def init_buffers(dtype: torch.dtype) -> dict[str, Tensor]:
    """Running statistics before the first step, each (1, n_hidden)."""
    return {
        "bnmean_running": torch.zeros(1, n_hidden, dtype=dtype),
        "bnstd_running": torch.ones(1, n_hidden, dtype=dtype),
    }


def update_buffers(buffers: dict[str, Tensor], saved: object) -> None:
    """Move the running statistics a hundredth of the way to the batch's, `bnmeani` and `bnstdi` in `saved`."""
    bnmeani, bnstdi = (getattr(saved, name) for name in ("bnmeani", "bnstdi"))
    buffers["bnmean_running"] = buffers["bnmean_running"] * 0.99 + bnmeani * 0.01
    buffers["bnstd_running"] = buffers["bnstd_running"] * 0.99 + bnstdi * 0.01


def logits(x: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool) -> Tensor:
    """Scores (n, vocab) of a next character for contexts `x` (n, context), with running statistics or those of `x`."""
    emb = params["C"][x].view(x.shape[0], -1)
    hpreact = emb @ params["w1"]
    if batch_stats:
        mean, std = hpreact.mean(dim=0, keepdim=True), hpreact.std(dim=0, keepdim=True)
    else:
        mean, std = buffers["bnmean_running"], buffers["bnstd_running"]
    h = ((hpreact - mean) / std * params["bnw"] + params["bnb"]).tanh()
    return h @ params["w2"] + params["b2"]
