"""BatchNorm from primitive ops, one line per idea, with the epsilon that keeps constant columns finite."""

import torch
from torch import Generator, Tensor

eps = 1e-5


def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Columns of `x` (n, d) normalised, scaled by `w` (d,) and shifted by `b` (d,)."""
    mean = x.mean(dim=0, keepdim=True)
    diff = x - mean
    var = diff.square().mean(dim=0, keepdim=True)
    xhat = diff / (var + eps).sqrt()
    o = xhat * w + b
    return o


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features."""
    n, d = 100, 10
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d,), (d,)))
    return {"x": x, "w": w, "b": b}
