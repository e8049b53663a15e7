"""Scaled dot-product attention, written out: every step of it is a node with its own cotangent."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp
import torch

from engine.notation import Amax, Equal, Where, fresh, instantiate, sigma
from engine.table import Definition, Operand, composite, define, op, reduced

F = torch.nn.functional


@op(targets=(torch._safe_softmax,))
def safe_softmax(x: Operand, dim: int, *, dtype: Any = None) -> Definition:
    """softmax, and 0 where everything is masked out (all scores are minus infinity)."""
    _, _, at, limits = reduced(x, dim, True)
    e = x.element(*at)
    other = {i: fresh() for i, _ in limits}
    largest = Amax(e.xreplace(other), *[sp.Tuple(other[i], s) for i, s in limits]) if limits else e
    share = sp.exp(e) / instantiate(sigma(sp.exp(e), *limits), {})
    return define(x.shape, at, Where(Equal(largest, sp.S.NegativeInfinity), 0, share))


@composite(targets=(F.scaled_dot_product_attention,))
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k^T * scale + mask) v; a mask is of truth values (False is left out) or is added."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    width = query.shape[-1]
    scores = query @ key.mT * (1 / math.sqrt(width) if scale is None else scale)
    if is_causal:
        kept = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        weights = scores.masked_fill(~kept, -math.inf).softmax(-1)
    elif attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        weights = torch._safe_softmax(scores.masked_fill(~attn_mask, -math.inf) if boolean else scores + attn_mask, -1)
    else:
        weights = scores.softmax(-1)
    return F.dropout(weights, dropout_p) @ value
