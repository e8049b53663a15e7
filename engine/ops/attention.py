"""Scaled dot-product attention, written out: every step of it is a node with its own cotangent."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp
import torch

from engine.errors import TraceError
from engine.notation import Amax, Equal, Where, fresh, instantiate, sigma
from engine.table import Definition, Operand, composite, define, op, reduced

F = torch.nn.functional
SAFE_SOFTMAX: Any = vars(torch)["_safe_softmax"]


@op(targets=(SAFE_SOFTMAX,))
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
        weights = SAFE_SOFTMAX(scores.masked_fill(~attn_mask, -math.inf) if boolean else scores + attn_mask, -1)
    else:
        weights = scores.softmax(-1)
    return F.dropout(weights, dropout_p) @ value


@composite(targets=(F.multi_head_attention_forward,))
def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """The attention of `nn.MultiheadAttention`, (time, batch, features), written out."""
    if static_k is not None or static_v is not None:
        raise TraceError("multi-head attention with static keys or values is not in the table")
    batched = query.dim() == 3
    given: Any = (query, key, value) if batched else tuple(x.unsqueeze(1) for x in (query, key, value))
    if key_padding_mask is not None and not batched:
        key_padding_mask = key_padding_mask.unsqueeze(0)
    length, batch = given[0].shape[:2]
    if use_separate_proj_weight:
        weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = in_proj_weight.chunk(3)
    biases: Any = in_proj_bias.chunk(3) if in_proj_bias is not None else (None, None, None)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip(given, weights, biases, strict=True))
    if bias_k is not None:
        k, v = (torch.cat([x, b.expand(1, batch, -1)]) for x, b in ((k, bias_k), (v, bias_v)))
        attn_mask, key_padding_mask = one_key_more(attn_mask), one_key_more(key_padding_mask)
    width = int(embed_dim_to_check) // num_heads
    q, k, v = (x.reshape(x.shape[0], x.shape[1], num_heads, width).permute(1, 2, 0, 3) for x in (q, k, v))
    if add_zero_attn:
        k, v = (torch.cat([x, x.new_zeros(batch, num_heads, 1, width)], 2) for x in (k, v))
        attn_mask, key_padding_mask = one_key_more(attn_mask), one_key_more(key_padding_mask)
    scores = q @ k.mT * (1 / math.sqrt(width))
    masked = False
    if attn_mask is not None:
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.reshape(batch, num_heads, attn_mask.shape[-2], attn_mask.shape[-1])
        scores, masked = left_out(scores, attn_mask), True
    if key_padding_mask is not None:
        scores, masked = left_out(scores, key_padding_mask[:, None, None, :]), True
    attention = SAFE_SOFTMAX(scores, -1) if masked and not need_weights else scores.softmax(-1)
    if training:
        attention = F.dropout(attention, dropout_p)
    joined = (attention @ v).permute(2, 0, 1, 3).reshape(length, batch, embed_dim_to_check)
    out = F.linear(joined, out_proj_weight, out_proj_bias)
    shown = attention.mean(1) if average_attn_weights else attention
    if not batched:
        out, shown = out.squeeze(1), shown.squeeze(0)
    return out, shown if need_weights else None


def one_key_more(mask: Any) -> Any:
    """A mask that lets a further key take part."""
    return None if mask is None else torch.cat([mask, mask.new_zeros(*mask.shape[:-1], 1)], -1)


def left_out(scores: Any, mask: Any) -> Any:
    """Scores with the mask added, or minus infinity where it is True (`scaled_dot_product_attention` has it False)."""
    return scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
