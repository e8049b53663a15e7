"""The lecture notebook's second part check of BatchNorm: from the output back to the variance, the centred input held."""

import torch
from torch import Generator, Tensor


def forward(v: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The output (n, d) for a given variance `v` (d,); `x` (n, d) is a constant here, only `v`, `w` and `b` move."""
    n, d = x.shape
    P = torch.eye(n) - torch.ones(n, n) / n
    centred = (P @ x).detach()
    o = centred / v.sqrt().view(1, d) * w.view(1, d) + b.view(1, d)
    return o


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features and a variance in (0, 1), as in the notebook."""
    n, d = 100, 10
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d,), (d,)))
    return {"v": torch.rand(d, generator=generator), "x": x, "w": w, "b": b}
