"""BatchNorm by projection matrices, as the lecture notebook derives it: P takes the mean off every column."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Columns of `x` (n, d) with mean 0 and variance 1, scaled by `w` (d,) and shifted by `b` (d,)."""
    n, d = x.shape
    P = torch.eye(n) - torch.ones(n, n) / n
    v = (x.T @ P @ x).diag() / n
    o = (P @ x) / v.sqrt().view(1, d) * w.view(1, d) + b.view(1, d)
    return o


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features, as in the notebook."""
    n, d = 100, 10
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d,), (d,)))
    return {"x": x, "w": w, "b": b}
