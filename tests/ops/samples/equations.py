"""What equations define, with well conditioned matrices; and what came to the table with it."""

from __future__ import annotations

from typing import Any

import torch

from tests.ops.samples.call import Call, call, named, spelled

_generator = torch.Generator().manual_seed(1)


def t(*shape: int) -> torch.Tensor:
    """Real numbers."""
    return torch.randn(shape, dtype=torch.float64, generator=_generator)


def r(*shape: int) -> torch.Tensor:
    """Matrices with an inverse, and with a positive determinant."""
    return t(*shape) / 2 + 3 * torch.eye(shape[-1], dtype=torch.float64)


def spd(*shape: int) -> torch.Tensor:
    """Symmetric positive definite matrices."""
    x = t(*shape)
    return x @ x.mT + torch.eye(shape[-1], dtype=torch.float64)


def low(f: Any, *args: Any, **kwargs: Any) -> Any:
    """A call whose factor, the last tensor, is made a triangle first: torch passes back to the other one as well."""
    *before, x = args
    return f(*before, x.triu() if kwargs.get("upper") else x.tril(), **kwargs)


def places(*args: int) -> Call:
    """Places of a triangle, made in a forward that reads a tensor."""
    return spelled(lambda f, x, *rest: f(*rest) + 0 * x.long(), torch.zeros(1), *args)


SAMPLES: dict[str, list[Call]] = {
    "inverse": [call(r(3, 3)), call(r(2, 3, 3)), call(r(1, 1)), call(r(2, 1, 4, 4))],
    "matrix_power": [call(r(3, 3), -1), call(r(2, 2, 2), -3)],
    "linalg_solve": [
        call(r(3, 3), t(3, 2)), call(r(3, 3), t(3)), call(r(2, 3, 3), t(2, 3)), call(r(2, 3, 3), t(3, 4)),
        call(r(3, 3), t(5, 3, 2)), call(r(3, 1, 4, 4), t(2, 4, 3)), call(r(1, 1), t(1, 3)), call(r(2, 1, 1), t(2, 1)),
        call(r(3, 3), t(2, 3), left=False), call(r(2, 3, 3), t(4, 3), left=False), call(r(3, 3), t(3, 1)),
    ],
    "linalg_solve_triangular": [
        call(r(3, 3), t(3, 2), upper=True), call(r(3, 3), t(3, 2), upper=False),
        call(r(3, 3), t(2, 3), upper=True, left=False), call(r(3, 3), t(2, 3), upper=False, left=False),
        call(r(2, 3, 3), t(3, 1), upper=True, unitriangular=True), call(r(3, 3), t(2, 3, 2), upper=False, unitriangular=True),
        call(r(2, 1, 1), t(2, 1, 3), upper=True), call(r(1, 1), t(1, 2), upper=False, unitriangular=True),
    ],
    "triangular_solve": [
        call(t(3, 2), r(3, 3)), call(t(3, 2), r(3, 3), upper=False), call(t(2, 3, 1), r(2, 3, 3), transpose=True),
        call(t(3, 2), r(3, 3), upper=False, transpose=True, unitriangular=True),
    ],
    "cholesky": [call(spd(3, 3)), call(spd(2, 3, 3), upper=True), call(spd(1, 1)), call(spd(2, 1, 2, 2), upper=False)],
    "cholesky_solve": [
        spelled(low, t(3, 2), r(3, 3)), spelled(low, t(3, 2), r(3, 3), upper=True), spelled(low, t(2, 3, 1), r(2, 3, 3)),
        spelled(low, t(2, 1, 3), r(2, 1, 1)), spelled(low, t(3, 2), r(4, 3, 3), upper=True),
    ],
    "cholesky_inverse": [
        spelled(low, r(3, 3)), spelled(low, r(2, 3, 3), upper=True), spelled(low, r(1, 1)),
    ],
    "det": [call(r(3, 3)), call(r(2, 3, 3)), call(r(1, 1)), call(r(2, 1, 2, 2)), call(-r(3, 3))],
    "logdet": [call(r(3, 3)), call(r(2, 3, 3)), call(r(1, 1)), call(r(2, 1, 2, 2))],
    "slogdet": [call(r(3, 3)), call(r(2, 3, 3)), call(r(1, 1)), call(-r(3, 3))],
    "linalg_tensorinv": [named("linalg", r(6, 6).reshape(2, 3, 6), ind=2), named("linalg", r(6, 6).reshape(6, 3, 2), ind=1)],
    "linalg_tensorsolve": [
        named("linalg", r(6, 6).reshape(2, 3, 6), t(2, 3)),
        named("linalg", r(6, 6).reshape(2, 3, 3, 2).permute(0, 2, 1, 3).contiguous(), t(2, 3), dims=(0, 2)),
    ],
    "i0": [call(t(3, 2)), call(torch.tensor([-30.0, 0.0, 2.0]).double())],
    "special_i1": [call(t(3, 2)), call(torch.tensor([-30.0, 0.0, 2.0]).double())],
    "special_i0e": [call(t(3, 2)), call(torch.tensor([-300.0, 0.0, 600.0]).double())],
    "special_i1e": [call(t(3, 2)), call(torch.tensor([-300.0, 0.0, 600.0]).double())],
    "chain_matmul": [call(t(2, 3), t(3, 1), t(1, 4))],
    "triu_indices": [places(4, 4), places(4, 4, 1), places(3, 5, -1), places(2, 2, 2)],
    "tril_indices": [places(4, 4), places(4, 4, -1), places(5, 3, 1), places(1, 1)],
    "pdist": [call(t(5, 3)), call(t(2, 3), 1.0), call(t(3, 1), 3.0)],
    "affine_grid": [
        call(t(2, 2, 3), (2, 1, 3, 4), align_corners=False), call(t(1, 2, 3), [1, 2, 1, 3], align_corners=True),
        call(t(2, 3, 4), (2, 1, 2, 3, 2), align_corners=False),
    ],
}  # fmt: skip
