"""Rows that reduce, order or accumulate along dimensions."""

from __future__ import annotations

import torch

from tests.ops.samples.call import Call, b, call, i, t, ties

INF, NAN = float("inf"), float("nan")


def over_dims(*extra: Call) -> list[Call]:
    """All dimensions, one, several, kept, and of size one."""
    return [
        call(t(3, 4)),
        call(t(3, 4), 1),
        call(t(2, 3, 4), (0, 2), True),
        call(t(1, 3), 0),
        call(t(2, 1), -1, keepdim=True),
        *extra,
    ]


def holes() -> torch.Tensor:
    """Numbers, some of which are missing."""
    return torch.where(b(3, 4), t(3, 4), NAN)


ALONG = [call(t(3, 4), 1), call(t(2, 3, 4), 1), call(t(1, 3), 0), call(t(3, 1), -1), call(t(), 0), call(t(5), 0)]
PICKED = [
    call(t(3, 4), 1),
    call(t(2, 3, 4), 1, True),
    call(t(3, 1), 1),
    call(t(4), 0),
    call(t(2, 3, 4), 0),
    call(t(), 0),
]

SAMPLES: dict[str, list[Call]] = {
    "sum": over_dims(call(t()), call(t(2, 3), dim=0, dtype=torch.float32), call(i(9, 3)), call(b(3, 2), 0)),
    "mean": over_dims(call(t()), call(t(2, 3), axis=0, keepdims=True)),
    "nansum": [call(holes()), call(holes(), 1), call(holes(), (0,), True)],
    "nanmean": [call(holes()), call(t(3, 4), 1), call(t(1, 3), 0, True)],
    "var": [
        call(t(3, 4)), call(t(3, 4), 1), call(t(2, 3, 4), (0, 2), True, True), call(t(4, 1), 0, correction=0),
        call(t(5), False),
    ],
    "std": [
        call(t(3, 4)), call(t(3, 4), 1), call(t(2, 3, 4), (0, 2), True, True), call(t(4, 1), 0, correction=0),
        call(torch.ones(4).double()),
    ],
    "var_mean": [call(t(3, 4)), call(t(3, 4), 1), call(t(4, 1), 0, correction=0, keepdim=True)],
    "std_mean": [call(t(3, 4)), call(t(3, 4), 1), call(t(4, 1), 0, correction=0, keepdim=True)],
    "softmax": [
        call(t(3, 4), 1), call(t(2, 3, 4), 0), call(t(3, 1), 1), call(t(1), 0), call(t(), 0),
        call(t(3), dim=0, dtype=torch.float32),
    ],
    "softmin": [call(t(3, 4), 1), call(t(1, 3), -1)],
    "log_softmax": [call(t(3, 4), 1), call(t(2, 3, 4), 0), call(t(3, 1), 1), call(t(1), 0), call(t(), 0)],
    "_safe_softmax": [
        call(torch.where(b(3, 4), t(3, 4), -INF), -1), call(torch.full((2, 3), -INF).double(), 1), call(t(3, 1), 1),
    ],
    "logsumexp": [call(t(3, 4), 1), call(t(2, 3, 4), (0, 2), True), call(t(3, 1), 1), call(t(5), 0)],
    "prod": [call(t(3, 4)), call(t(3, 5), 1), call(t(3, 1), 1, True), call(t()), call(ties(2, 7), 1), call(t(1))],
    "cumsum": [*ALONG, call(t(3), 0, dtype=torch.float32)],
    "logcumsumexp": list(ALONG),
    "cumprod": [*ALONG, call(ties(2, 7), 1)],
    "diff": [call(t(5)), call(t(2, 4), n=2), call(t(3, 2), dim=0), call(t(3), prepend=t(1), append=t(2))],
    "cumulative_trapezoid": [call(t(5)), call(t(2, 4), dx=0.5), call(t(2, 4), t(4)), call(t(3, 2), dim=0)],
    "quantile": [
        call(t(7), 0.3), call(t(), 0.3, 0, True), call(t(4, 5), 0.5, 1), call(t(4, 5), 0.9, 0, True), call(t(2, 3), 0.5, keepdim=True),
        *[call(t(6), 0.4, interpolation=how) for how in ("lower", "higher", "nearest", "midpoint")],
    ],
    "cov": [call(t(3, 5)), call(t(5)), call(t(1, 5)), call(t(3, 5), correction=0)],
    "corrcoef": [call(t(3, 5)), call(t(1, 5))],
    "msort": [call(t(4, 3)), call(t(5))],
    "trapezoid": [call(t(5)), call(t(2, 4), dx=0.5), call(t(2, 4), t(4)), call(t(3, 2), dim=0)],
    "any": [call(b(3, 4)), call(b(3, 4), 1), call(ties(2, 1), 0, True)],
    "all": [call(b(3, 4)), call(b(3, 4), 1), call(ties(2, 1), 0, True)],
    "count_nonzero": [call(ties(3, 4)), call(ties(3, 4), 1)],
    "amax": over_dims(call(ties(4, 5), 1), call(ties(3, 3))),
    "amin": over_dims(call(ties(4, 5), 1), call(ties(3, 3))),
    "aminmax": [call(t(3, 4)), call(ties(3, 4), dim=1), call(t(1, 3), dim=0, keepdim=True)],
    "max": [call(t(3, 4)), call(ties(3, 3)), call(t(3, 4), t(4)), *PICKED],
    "min": [call(t(3, 4)), call(ties(3, 3)), call(t(3, 4), t(4)), *PICKED],
    "median": [*PICKED, call(t(3, 4)), call(ties(3, 4)), call(ties(5)), call(t()), call(i(5, 3, 2))],
    "nanmedian": [*PICKED, call(t(3, 4)), call(ties(3, 4)), call(t(1, 3))],
    "mode": [call(ties(3, 4), 1), call(t(2, 3, 4), 1, True), call(ties(4))],
    "kthvalue": [call(t(3, 4), 2, 1), call(t(2, 3, 4), 1, 0, True), call(t(4), 3)],
    "sort": [call(t(3, 4)), call(t(2, 3, 4), 1, True), call(t(3, 1), 1), call(t(5), descending=True), call(t())],
    "topk": [call(t(3, 4), 2), call(t(2, 3, 4), 1, 1), call(t(4), 4, largest=False)],
    "cummax": [call(t(3, 4), 1), call(t(2, 3, 4), 1), call(t(4, 1), 0)],
    "argmax": [call(t(3, 4)), call(t(3, 4), 1), call(t(2, 3), 0, True)],
    "argsort": [call(t(3, 4)), call(t(2, 3), 0, True)],
    "linalg_vector_norm": [
        call(t(3, 4)), call(t(3, 4), 1, 1), call(t(2, 3, 4), 3.5, (0, 2), True), call(t(3, 4), INF, 1),
        call(ties(3, 4), -INF, 0),
        call(ties(3, 4), 0, 1), call(t(3, 1), 2, 1), call(torch.zeros(3).double()), call(t(4), 0.5), call(t(), 2),
    ],
    "norm": [
        call(t(3, 4)), call(t(3, 4), dim=1, keepdim=True), call(t(3, 4), 1, 0), call(t(3, 4), INF, dim=1),
        call(torch.zeros(3).double()),
    ],
    "linalg_norm": [call(t(3, 4)), call(t(3, 4), "fro"), call(t(4), 3), call(t(3, 4), 2, 1)],
    "linalg_matrix_norm": [call(t(2, 3, 4)), call(t(3, 1), "fro", (0, 1), True)],
    "dist": [call(t(3, 4), t(3, 4)), call(t(3), t(1), 1), call(t(4), t(4), INF)],
    "cdist": [call(t(3, 2), t(4, 2)), call(t(2, 3, 2), t(2, 1, 2), 1.0)],
    "normalize": [call(t(3, 4)), call(t(3, 4), 1, 0), call(torch.zeros(2, 3).double())],
    "pairwise_distance": [call(t(3, 4), t(3, 4)), call(t(4), t(4), 1.0), call(t(1, 4), t(3, 4), keepdim=True)],
    "_weight_norm": [call(t(3, 4), t(3, 1)), call(t(3, 4), t(1, 4), 1), call(t(3, 4, 2), t(1), -1)],
    "cosine_similarity": [call(t(3, 4), t(3, 4)), call(t(4), t(4), 0), call(t(2, 3, 4), t(1, 3, 4), 2)],
}  # fmt: skip
