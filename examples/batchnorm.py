"""BatchNorm from torch's own mean and standard deviation, as the lecture notebook's reference has it (`ot`)."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Columns of `x` (n, d) with mean 0 and standard deviation 1, scaled by `w` (d,) and shifted by `b` (d,)."""
    d = x.shape[1]
    o = (x - x.mean(dim=0, keepdim=True)) / x.std(dim=0, keepdim=True, unbiased=False) * w.view(1, d) + b.view(1, d)
    return o


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 100 rows of 10 features, as in the notebook."""
    n, d = 100, 10
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d,), (d,)))
    return {"x": x, "w": w, "b": b}
