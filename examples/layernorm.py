"""LayerNorm from primitive ops."""

import torch
from torch import Generator, Tensor

eps = 1e-5


def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The last dimension of `x` (n, t, c) normalised, scaled by `w` (c,) and shifted by `b` (c,)."""
    mean = x.mean(-1, keepdim=True)
    xshift = x - mean
    var = (xshift**2).mean(-1, keepdim=True)
    rstd = (var + eps) ** -0.5
    norm = xshift * rstd
    out = norm * w + b
    return out


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 2 sequences of 3 tokens in 4 channels."""
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 4), (4,), (4,)))
    return {"x": x, "w": w, "b": b}
