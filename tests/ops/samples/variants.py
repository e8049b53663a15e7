"""Grids, unpoolings, and further ways to call rows whose first samples stand elsewhere; drawn after all of those."""

from __future__ import annotations

import math
from typing import Any

import torch

from tests.ops.samples.call import Call, call, i, named, p, permutation, spelled, t

F = torch.nn.functional
GRID = t(2, 3, 5, 2)
INF = math.inf


def unpooled(target: Any, x: Any, *windows: Any, **rest: Any) -> Any:
    """What a max pooling of `x` picked, put back, times `x` once more where the sizes are the same."""
    pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[x.dim()]
    found, places = pool(x, *windows, return_indices=True)
    return target(found, places, *windows, **rest)


def pool_backward(target: Any, grad: Any, x: Any) -> Any:
    """The derivative of a max pooling with overlapping windows."""
    places = F.max_pool2d(x, 3, 2, 1, return_indices=True)[1]
    return target(grad, x, [3, 3], [2, 2], [1, 1], [1, 1], False, places)


def with_nans(target: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A call with some entries missing."""
    missing = torch.tensor([False, True, False, False, True, False])
    return target(x.masked_fill(missing, math.nan), *args, **kwargs)


SAMPLES: dict[str, list[Call]] = {
    "grid_sample": [
        call(t(2, 3, 4, 5), GRID), call(t(2, 3, 4, 5), GRID, "bilinear", "border", True),
        call(t(2, 3, 4, 5), GRID, "nearest", "zeros", True), call(t(2, 3, 4, 5), GRID, "nearest", "reflection", False),
        call(t(2, 1, 4, 5), GRID[:, :1], "bicubic", "zeros"), call(t(2, 1, 4, 5), GRID[:, :1], "bicubic", "reflection", True),
        call(t(1, 2, 3, 4, 2), t(1, 2, 2, 3, 3)), call(t(1, 1, 1, 3), t(1, 2, 2, 2), "bilinear", "reflection", True),
    ],
    "grid_sampler_2d": [
        named("torch.grid_sampler_2d", t(2, 1, 4, 5), GRID, 0, 1, True), named("torch.grid_sampler$", t(2, 1, 4, 5), GRID, 0, 2, False),
        named("torch.grid_sampler_3d", t(1, 2, 3, 4, 2), t(1, 2, 2, 3, 3), 1, 2, False),
    ],
    "max_unpool1d": [spelled(unpooled, t(2, 3, 6), 2), spelled(unpooled, t(2, 3, 7), 3, 2, 1, output_size=(7,))],
    "max_unpool2d": [
        spelled(unpooled, t(2, 3, 6, 4), 2), spelled(unpooled, t(2, 1, 6, 5), (3, 2), (3, 2), output_size=(6, 5)),
        spelled(unpooled, t(2, 3, 6, 7), 3, 2, 1, output_size=(2, 3, 6, 7)),
    ],
    "max_unpool3d": [spelled(unpooled, t(1, 2, 4, 4, 2), 2)],
    "max_pool2d_with_indices_backward": [spelled(pool_backward, t(2, 3, 3, 3), t(2, 3, 6, 5))],
    "nanquantile": [
        *[spelled(with_nans, t(4, 6), q, dim, keep) for q in (0.3, 1.0) for dim in (None, 1) for keep in (False, True)],
        spelled(with_nans, t(4, 6), p(3), 1), spelled(with_nans, t(4, 6), p(), 0, True, interpolation="midpoint"),
        *[spelled(with_nans, t(4, 6), 0.4, 1, interpolation=how) for how in ("lower", "higher", "nearest")],
    ],
    "quantile": [
        *[call(t(4, 5), q, dim, keep) for q in (p(3), p()) for dim in (None, 0, 1) for keep in (False, True)],
        *[call(t(6), p(2), interpolation=how) for how in ("lower", "higher", "nearest", "midpoint")], call(t(), p(2), 0),
    ],
    "cov": [
        Call((t(3, 5),), {"fweights": i(3, 5) + 1}, constant=(1,)), call(t(3, 5), aweights=p(5)),
        call(t(3, 5), fweights=i(3, 5) + 1, aweights=p(5), correction=0), call(t(5), aweights=p(5)),
    ],
    "linalg_norm": [call(t(3, 4), 1), call(t(3, 4), -INF), call(t(2, 3, 4), INF, (0, 2), True), call(t(2, 3, 4), 3, 1)],
    "linalg_matrix_norm": [
        *[call(t(2, 3, 4), order, (0, 2), keep) for order in (1, -1, INF, -INF) for keep in (False, True)],
    ],
    "linear_cross_entropy": [
        call(t(5, 3), t(4, 2, 3), i(4, 5, 2)), call(t(5, 3), t(4, 2, 3), i(4, 5, 2), linear_bias=t(4, 2), reduction="sum"),
    ],
    "alpha_dropout": [call(t(3, 4), 0.3, True), call(t(3, 4), 1.0, True), call(t(3), 0.0, True)],
    "feature_alpha_dropout": [call(t(3, 4, 2), 0.3, True), call(t(3, 4, 2), 0.3, False)],
    "put": [
        call(t(3, 4), i(12, 5), t(5), True), call(t(3, 4), permutation(12)[:4].reshape(2, 2), t(2, 2)),
        call(t(3, 4), permutation(12)[:3] - 12, t(3)),
    ],
    "matrix_power": [call(t(3, 3), n) for n in (0, 1, 2, 5)] + [call(t(2, 3, 3), 3)],
    "fft_fftshift": [call(t(4, 5)), call(t(4, 5), 1), call(t(2, 3, 4), (0, 2))],
    "fft_ifftshift": [call(t(4, 5)), call(t(5, 2), (0,))],
    "embedding_bag": [
        call(i(5, 7), t(5, 4), torch.tensor([0, 3, 3])), call(i(5, 7), t(5, 4), torch.tensor([0, 2, 7]), mode="sum", include_last_offset=True),
        call(i(5, 2, 3), t(5, 4), padding_idx=1), call(i(5, 6), t(5, 4), torch.tensor([0, 2]), mode="sum", padding_idx=-1),
        call(i(5, 6), t(5, 4), torch.tensor([0, 4]), mode="sum", per_sample_weights=p(6)),
    ],
    "fold": [
        call(t(2, 12, 9), 4, 2), call(t(1, 12, 12), (5, 4), (2, 3), 1, 1, (2, 1)), call(t(2, 8, 4), (6, 5), 2, (4, 3)),
        call(t(8, 4), 4, 2, stride=2), call(t(2, 6, 1), (2, 3), (2, 3)),
    ],
    "take_along_dim": [call(t(3, 4), i(12, 2, 5)), call(t(3), i(3, 1))],
    "repeat_interleave": [
        call(t(2, 3), 2), call(t(2, 3), torch.tensor([2, 0, 3]), 1, output_size=5), call(t(4), torch.tensor([0, 1, 0, 2]), output_size=3),
        call(t(2, 2), torch.tensor([3]), 0, output_size=6),
    ],
    "pad_sequence": [
        call([t(2, 3), t(4, 3), t(1, 3)]), call([t(2), t(3)], True, -1.0), call([t(2), t(3)], True, 0.5, "left"), call([t(2, 1), t(2, 1)]),
    ],
    "combinations": [call(t(4)), call(t(2)), call(t(3), 2, True)],
    "masked_scatter": [
        call(t(2, 3), torch.tensor([[True, False, True], [False, True, True]]), t(2, 2)), call(t(3, 2), torch.tensor([True, False]), t(7)),
        call(t(3), torch.tensor([False, False, True]), t(1)),
    ],
    "gradient": [
        call(t(5), spacing=None, edge_order=2),
        call(t(5)), call(t(4, 3)), call(t(4, 3), spacing=0.5, dim=0), call(t(4, 3), spacing=(2.0, 0.1), edge_order=2),
        call(t(2, 5), spacing=(p(5).cumsum(0),), dim=-1, edge_order=2), call(t(3, 4), spacing=(p(3).cumsum(0), p(4).cumsum(0))), call(t(2), dim=0),
    ],
    "renorm": [call(t(4, 3), 2, 0, 1.0), call(t(2, 3, 2), 1, 1, 2.5), call(t(2, 2), math.inf, -1, 0.1), call(torch.zeros(2, 2, dtype=torch.float64), 2, 0, 1.0)],
    "linalg_vander": [call(t(4)), call(torch.tensor([0.0, 2.0], dtype=torch.float64), N=4), call(t(2, 3), N=2)],
    "vander": [Call((t(n),), {"N": N, "increasing": up}, constant=(0,)) for n, N, up in ((3, None, False), (3, 4, True), (2, 1, False))],
    "lstm": [
        call(t(3, 2, 3), [t(2, 2, 2), t(2, 2, 4)], [w for _ in range(2) for w in (t(16, 3), t(16, 2), t(16), t(16), t(2, 4))], True, 1, 0.0, False, True, False),
        call(t(2, 3, 3), [t(1, 2, 2), t(1, 2, 4)], [t(16, 3), t(16, 2), t(2, 4)], False, 1, 0.0, False, False, True),
    ],
}  # fmt: skip
