"""The lecture notebook's first part check of BatchNorm: from the variance back to the input."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor) -> Tensor:
    """The variance (d,) of the columns of `x` (n, d)."""
    n = x.shape[0]
    P = torch.eye(n) - torch.ones(n, n) / n
    v = (x.T @ P @ x).diag() / n
    return v


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features, as in the notebook."""
    return {"x": torch.randn(100, 10, generator=generator)}
