"""Normalizations in torch.nn.functional's spelling."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr

from engine.notation import instantiate, sigma
from engine.sizes import expression
from engine.table import Definition, Operand, aligned, define, indices_of, op, product


@op("layer_norm")
def layer_norm(x: Operand, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Definition:
    at = indices_of(x.shape)
    dims = range(x.rank - len(tuple(normalized_shape)), x.rank)
    limits = [(cast("Any", at[d]), x.shape[d]) for d in dims if x.shape[d] != 1]
    count = product([s for _, s in limits])
    mean = instantiate(sigma(x[at], *limits), {}) / count
    variance = instantiate(sigma((x[at] - mean) ** 2, *limits), {}) / count
    out: Expr = (x[at] - mean) / sp.sqrt(variance + expression(eps))
    if weight is not None:
        out = cast("Expr", out * aligned(weight, at))
    if bias is not None:
        out = cast("Expr", out + aligned(bias, at))
    return define(x.shape, at, out)
