"""The lecture notebook's third part check of BatchNorm: from the output back to the input, the variance held."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor, v: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The output (n, d) for `x` (n, d) and a variance `v` (d,) that does not depend on it."""
    n, d = x.shape
    P = torch.eye(n) - torch.ones(n, n) / n
    o = (P @ x) / v.sqrt().view(1, d) * w.view(1, d) + b.view(1, d)
    return o


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features and a variance in (0, 1), as in the notebook."""
    n, d = 100, 10
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d,), (d,)))
    return {"x": x, "v": torch.rand(d, generator=generator), "w": w, "b": b}
