"""A small convolutional network that reads handwritten digits: the 1,797 pictures of 8 by 8 that come with scikit-learn."""

import torch
from torch import Tensor
from torch.nn import functional as F

DEFAULTS = {"steps": 3_000, "batch": 32, "lr": 0.2}


def forward(x: Tensor, y: Tensor, c1: Tensor, b1: Tensor, c2: Tensor, b2: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The mean negative log-likelihood of the digits `y` (n,) in the pictures `x` (n, 1, 8, 8)."""
    h1 = F.max_pool2d(F.conv2d(x, c1, b1, padding=1).relu(), 2)
    h2 = F.max_pool2d(F.conv2d(h1, c2, b2, padding=1).relu(), 2)
    logits = h2.flatten(1) @ w + b
    loss = F.cross_entropy(logits, y)
    return loss


def example_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Noise as 32 pictures, and freshly drawn float32 parameters."""
    x = torch.rand(32, 1, 8, 8, generator=generator)
    return {"x": x, "y": torch.arange(32) % 10, **init(generator, torch.float32)}


def init(generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Initial parameters by name, in the forward's order."""

    def randn(*size: int, fan_in: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype) * (2 / fan_in) ** 0.5

    return {
        "c1": randn(8, 1, 3, 3, fan_in=9),
        "b1": torch.zeros(8, dtype=dtype),
        "c2": randn(16, 8, 3, 3, fan_in=72),
        "b2": torch.zeros(16, dtype=dtype),
        "w": randn(64, 10, fan_in=64) * 0.1,
        "b": torch.zeros(10, dtype=dtype),
    }


def data(generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures (n, 1, 8, 8) between 0 and 1 and their digits (n,), in random order, split 80/10/10."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the pictures come with scikit-learn, which is not installed: pip install 'symgrad[examples]'"
        ) from error
    images, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits), generator=generator)
    x = torch.tensor(images, dtype=torch.float64).view(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(digits, dtype=torch.int64)[order]
    cuts = int(0.8 * len(y)), int(0.9 * len(y))
    parts = zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True)
    return dict(zip(("train", "val", "test"), parts, strict=True))


def metrics(
    x: Tensor, y: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool
) -> dict[str, Tensor]:
    """For every picture: the negative log-likelihood of its digit, and whether that is the likeliest."""
    c1, b1, c2, b2, w, b = params.values()
    h = F.max_pool2d(F.conv2d(x, c1, b1, padding=1).relu(), 2)
    h = F.max_pool2d(F.conv2d(h, c2, b2, padding=1).relu(), 2)
    logits = h.flatten(1) @ w + b
    return {"loss": F.cross_entropy(logits, y, reduction="none"), "accuracy": (logits.argmax(1) == y).double()}
