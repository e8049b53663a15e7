"""Losses of torch.nn.functional, with their reductions, weights, ignored targets and smoothing."""

from __future__ import annotations

import torch

from tests.ops.samples.call import Call, call, i, p, t, weighted


def reduced(*args: torch.Tensor, **kwargs: object) -> list[Call]:
    """A loss with each reduction; a third tensor is a weight."""
    make = weighted if len(args) == 3 and args[1].dtype == torch.int64 else call
    return [make(*args, **kwargs), make(*args, reduction="sum", **kwargs), make(*args, reduction="none", **kwargs)]


def constant_target(*args: torch.Tensor) -> list[Call]:
    """A loss with each reduction, of whose target torch takes no derivative."""
    return [Call(args, {"reduction": r}, constant=(1,)) for r in ("mean", "sum", "none")]


def signs(*shape: int) -> torch.Tensor:
    """Targets of 1 and -1."""
    return i(2, *shape).double() * 2 - 1


PAIR, ONE = (t(3, 4), t(3, 4)), (t(1, 1), t(1, 1))

SAMPLES: dict[str, list[Call]] = {
    "mse_loss": [*reduced(*PAIR), call(*ONE), call(t(), t()), call(t(2), t(2), size_average=False)],
    "l1_loss": [*reduced(*PAIR), call(*ONE)],
    "smooth_l1_loss": [*reduced(*PAIR), call(*ONE), call(*PAIR, beta=0.3), call(*PAIR, beta=0.0)],
    "huber_loss": [*reduced(*PAIR), call(*ONE), call(*PAIR, delta=0.4)],
    "binary_cross_entropy": [
        *reduced(p(3, 4) * 0.9, p(3, 4)), call(p(1) * 0.9, p(1)), weighted(p(3, 4) * 0.9, p(3, 4), p(4)),
    ],
    "binary_cross_entropy_with_logits": [
        *reduced(t(3, 4), p(3, 4)), call(t(1), p(1)), weighted(t(3, 4), p(3, 4), p(4)),
        weighted(t(3, 4), p(3, 4), pos_weight=p(4)),
        call(torch.tensor([70.0, -290.0, 310.0], dtype=torch.float64), p(3)),
    ],
    "kl_div": [
        *reduced(t(3, 4), p(3, 4)), call(t(3, 4), t(3, 4), log_target=True),
        call(t(3, 4), p(3, 4), reduction="batchmean"),
    ],
    "poisson_nll_loss": [
        *reduced(t(3, 4), p(3, 4) * 5), call(p(3), p(3), log_input=False), call(t(3), p(3) * 5, full=True),
    ],
    "gaussian_nll_loss": [*reduced(t(3, 4), t(3, 4), p(3, 4)), call(t(3, 4), t(3, 4), p(3, 1), full=True)],
    "soft_margin_loss": [*constant_target(t(3, 4), signs(3, 4)), *constant_target(t(1), signs(1))],
    "hinge_embedding_loss": [*reduced(t(3, 4), signs(3, 4)), call(t(1), signs(1), margin=0.5)],
    "margin_ranking_loss": [*reduced(t(5), t(5), signs(5)), call(t(1), t(1), signs(1), margin=0.5)],
    "cosine_embedding_loss": [*reduced(t(5, 3), t(5, 3), signs(5)), call(t(3), t(3), signs(), margin=0.2)],
    "triplet_margin_loss": [*reduced(t(5, 3), t(5, 3), t(5, 3)), call(t(5, 3), t(5, 3), t(5, 3), swap=True, p=1)],
    "triplet_margin_with_distance_loss": [
        *reduced(t(5, 3), t(5, 3), t(5, 3)), call(t(5, 3), t(5, 3), t(5, 3), swap=True, margin=0.5),
    ],
    "linear_cross_entropy": [
        call(t(5, 3), t(4, 3), i(4, 5)), call(t(5, 3), t(4, 3), i(4, 5), linear_bias=t(4), label_smoothing=0.1),
        call(t(5, 3), t(4, 3), i(4, 5), reduction="sum", ignore_index=1),
    ],
    "multilabel_soft_margin_loss": [
        *reduced(t(3, 4), i(2, 3, 4).double()), weighted(t(3, 4), i(2, 3, 4).double(), p(4)),
    ],
    "multi_margin_loss": [*reduced(t(3, 4), i(4, 3)), weighted(t(3, 4), i(4, 3), 2, 0.7, p(4)), call(t(4), i(4))],
    "nll_loss": [
        *reduced(t(3, 4), i(4, 3)), call(t(4), i(4)), call(t(1, 2), i(2, 1)), call(t(2, 3, 4), i(3, 2, 4)),
        *reduced(t(5, 4), i(4, 5), p(4)), *reduced(t(5, 4), i(4, 5), p(4), ignore_index=1),
        call(t(5, 4), i(4, 5), ignore_index=2),
    ],
    "cross_entropy": [
        *reduced(t(3, 4), i(4, 3)), call(t(4), i(4)), call(t(1, 2), i(2, 1)), call(t(2, 3, 4), i(3, 2, 4)),
        *reduced(t(5, 4), i(4, 5), p(4), ignore_index=1), call(t(5, 4), i(4, 5), ignore_index=2),
        call(t(3, 4) * 200, i(4, 3)),
        *reduced(t(5, 4), i(4, 5), label_smoothing=0.1),
        *reduced(t(5, 4), i(4, 5), p(4), ignore_index=1, label_smoothing=0.1),
        *reduced(t(3, 4), t(3, 4).softmax(1)), weighted(t(3, 4), t(3, 4).softmax(1), p(4), label_smoothing=0.2),
        call(t(4), t(4).softmax(0)),
    ],
}  # fmt: skip
