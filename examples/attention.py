"""One head of causal self-attention, softmax written out."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    """Tokens `x` (n, t, c) attend to themselves and to those before them; weights are (c, h), the result is (n, t, h)."""
    t, h = x.shape[1], wq.shape[1]
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.transpose(-2, -1) * h**-0.5
    past = torch.tril(torch.ones(t, t))
    masked = scores.masked_fill(past == 0, float("-inf"))
    weights = masked.exp()
    att = weights / weights.sum(-1, keepdim=True)
    out = att @ v
    return out


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 2 sequences of 5 tokens in 6 channels, a head of 4."""
    shapes = {"x": (2, 5, 6), "wq": (6, 4), "wk": (6, 4), "wv": (6, 4)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
