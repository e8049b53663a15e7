"""One layer with a tanh and a squared error: the README's example."""

import torch
from torch import Generator, Tensor


def forward(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """The mean squared difference between `tanh(x @ w + b)` and `y` (n, d), for `x` (n, c), `w` (c, d), `b` (d,)."""
    h = (x @ w + b).tanh()
    loss = (h - y).square().mean()
    return loss


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Inputs to trace and check with: 8 rows."""
    shapes = {"x": (8, 4), "w": (4, 3), "b": (3,), "y": (8, 3)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
