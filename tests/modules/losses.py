"""The losses of torch.nn with their reductions, weights and ignored targets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.modules.layers import Case, Draw, whole

REDUCTIONS = ("mean", "sum", "none")


def of_classes(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 5), whole(n, below=5)


def of_padded(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Targets of a sequence whose end is padding, as torch marks it by default."""
    target = whole(n, 4, below=5)
    target[:, 3] = -100
    return draw(n, 5, 4), target


def of_pixels(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 5, 2, 3), whole(n, 2, 3, below=5)


def of_shares(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 5), draw(n, 5).softmax(1)


def pairs(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4), draw(n, 4)


def chances(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4).sigmoid(), draw(n, 4).sigmoid()


def logs(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4).log_softmax(1), draw(n, 4).softmax(1)


def both_logs(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4).log_softmax(1), draw(n, 4).log_softmax(1)


def signs(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4), 2 * (draw(n, 4) > 0).to(draw(1).dtype) - 1


def binary(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4), (draw(n, 4) > 0).to(draw(1).dtype)


def two(n: int, draw: Draw) -> tuple[Tensor, ...]:
    return draw(n, 4), draw(n, 4), 2 * whole(n, below=2) - 1


def ranked(n: int, draw: Draw) -> tuple[Tensor, ...]:
    return draw(n), draw(n), 2 * whole(n, below=2) - 1


def three(n: int, draw: Draw) -> tuple[Tensor, ...]:
    return draw(n, 4), draw(n, 4), draw(n, 4)


def with_variance(n: int, draw: Draw) -> tuple[Tensor, ...]:
    return draw(n, 4), draw(n, 4), draw(n, 4).exp()


def several(n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(n, 4), torch.tensor([[1, 2, -1, 0]]).expand(n, 4).contiguous()


CONSTANT_TARGETS = ("soft margin",)
"""Losses whose targets torch takes no derivative of."""

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5])

LOSSES: dict[str, tuple[Callable[..., nn.Module], Callable[[int, Draw], tuple[Any, ...]], dict[str, Any]]] = {
    "cross entropy": (nn.CrossEntropyLoss, of_classes, {}),
    "cross entropy of pixels": (nn.CrossEntropyLoss, of_pixels, {}),
    "cross entropy of shares": (nn.CrossEntropyLoss, of_shares, {}),
    "cross entropy weighted": (nn.CrossEntropyLoss, of_classes, {"weight": WEIGHTS}),
    "cross entropy of shares weighted": (nn.CrossEntropyLoss, of_shares, {"weight": WEIGHTS}),
    "cross entropy ignoring": (nn.CrossEntropyLoss, of_classes, {"ignore_index": 2}),
    "cross entropy smoothed": (nn.CrossEntropyLoss, of_classes, {"label_smoothing": 0.1}),
    "cross entropy of shares smoothed": (nn.CrossEntropyLoss, of_shares, {"label_smoothing": 0.1}),
    "cross entropy with everything": (
        nn.CrossEntropyLoss,
        of_pixels,
        {"weight": WEIGHTS, "ignore_index": 1, "label_smoothing": 0.2},
    ),
    "cross entropy of padded targets": (nn.CrossEntropyLoss, of_padded, {}),
    "cross entropy of padded targets weighted": (nn.CrossEntropyLoss, of_padded, {"weight": WEIGHTS}),
    "nll of padded targets": (nn.NLLLoss, of_padded, {"weight": WEIGHTS}),
    "nll": (nn.NLLLoss, of_classes, {}),
    "nll weighted, ignoring": (nn.NLLLoss, of_classes, {"weight": WEIGHTS, "ignore_index": 0}),
    "nll of pixels": (nn.NLLLoss, of_pixels, {}),
    "mse": (nn.MSELoss, pairs, {}),
    "l1": (nn.L1Loss, pairs, {}),
    "smooth l1": (nn.SmoothL1Loss, pairs, {"beta": 0.7}),
    "huber": (nn.HuberLoss, pairs, {"delta": 0.6}),
    "bce": (nn.BCELoss, chances, {}),
    "bce weighted": (nn.BCELoss, chances, {"weight": WEIGHTS[:4]}),
    "bce of logits": (nn.BCEWithLogitsLoss, binary, {}),
    "bce of logits, weights": (nn.BCEWithLogitsLoss, binary, {"pos_weight": WEIGHTS[1:], "weight": WEIGHTS[:4]}),
    "kl": (nn.KLDivLoss, logs, {}),
    "kl of logs": (nn.KLDivLoss, both_logs, {"log_target": True}),
    "soft margin": (nn.SoftMarginLoss, signs, {}),
    "hinge embedding": (nn.HingeEmbeddingLoss, signs, {}),
    "cosine embedding": (nn.CosineEmbeddingLoss, two, {"margin": 0.1}),
    "margin ranking": (nn.MarginRankingLoss, ranked, {"margin": 0.2}),
    "triplet": (nn.TripletMarginLoss, three, {}),
    "triplet swapped": (nn.TripletMarginLoss, three, {"swap": True}),
    "multi label soft margin": (nn.MultiLabelSoftMarginLoss, binary, {}),
    "multi label margin": (nn.MultiLabelMarginLoss, several, {}),
    "multi margin": (nn.MultiMarginLoss, of_classes, {}),
    "poisson nll": (nn.PoissonNLLLoss, with_variance, {}),
    "gaussian nll": (nn.GaussianNLLLoss, with_variance, {}),
}


def case(name: str, reduction: str) -> Case:
    make, inputs, options = LOSSES[name]

    def given(n: int, draw: Draw) -> tuple[Any, ...]:
        drawn = inputs(n, draw)
        if name == "poisson nll":
            return drawn[0], drawn[2]
        return drawn

    constants = 1 if name in CONSTANT_TARGETS else 0
    return Case(f"{name}, {reduction}", lambda: make(**options, reduction=reduction), given, constants=constants)


CASES = [case(name, reduction) for name in LOSSES for reduction in REDUCTIONS]
CASES.append(Case("kl, batchmean", lambda: nn.KLDivLoss(reduction="batchmean"), logs))
