"""Attention: one head, many, causal in several spellings."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form

D = 16


def attention(q, k, v):
    s = q @ k.T / math.sqrt(q.shape[-1])
    e = s.exp()
    p = e / e.sum(1, keepdim=True)
    return p @ v


def attention_hand(q, k, v, g):
    c = 1 / math.sqrt(q.shape[-1])
    p = (q @ k.transpose(-2, -1) * c).softmax(-1)
    out = p @ v
    dp = g @ v.transpose(-2, -1)
    ds = p * (dp - (g * out).sum(-1, keepdim=True)) * c
    return out, (ds @ k, ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ g)


def attention_unscaled(q, k, v):
    return (q @ k.T).softmax(1) @ v


def attention_broadcast(q, k, v):
    e = (q[:, None, :] * k[None, :, :]).sum(-1).exp()
    return (e[:, :, None] * v[None, :, :]).sum(1) / e.sum(-1, keepdim=True)


def attention_unscaled_hand(q, k, v, g):
    p = (q @ k.T).softmax(1)
    out = p @ v
    ds = p * (g @ v.T - (g * out).sum(1, keepdim=True))
    return out, (ds @ k, ds.T @ q, p.T @ g)


def attention_batched(q, k, v):
    s = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return s.softmax(-1) @ v


def attention_causal_tril(q, k, v):
    t = q.shape[1]
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    s = s.masked_fill(torch.tril(torch.ones(t, t)) == 0, float("-inf"))
    return s.softmax(-1) @ v


def attention_causal_triu(q, k, v):
    t = q.shape[1]
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    s = s + torch.triu(torch.full((t, t), float("-inf")), diagonal=1)
    return s.softmax(-1) @ v


def attention_causal_where(q, k, v):
    t = q.shape[1]
    i = torch.arange(t)
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    s = torch.where(i[:, None] >= i[None, :], s, -1e9)
    e = (s - s.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True) @ v


def attention_causal_product(q, k, v):
    t = q.shape[1]
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    e = s.exp() * torch.tril(torch.ones(t, t))
    return e / e.sum(-1, keepdim=True) @ v


def attention_causal_hand(q, k, v, g):
    t = q.shape[1]
    c = q.shape[-1] ** -0.5
    s = q @ k.transpose(-2, -1) * c
    p = s.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf")).softmax(-1)
    out = p @ v
    ds = p * (g @ v.transpose(-2, -1) - (g * out).sum(-1, keepdim=True)) * c
    return out, (ds @ k, ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ g)


def multi_head(x, w, o):
    n, t, d = x.shape
    heads = 4
    q, k, v = (x @ w).split(d, dim=2)
    q = q.view(n, t, heads, d // heads).transpose(1, 2)
    k = k.view(n, t, heads, d // heads).transpose(1, 2)
    v = v.view(n, t, heads, d // heads).transpose(1, 2)
    s = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.size(-1)))
    s = s.masked_fill(torch.tril(torch.ones(t, t)) == 0, float("-inf"))
    y = s.softmax(-1) @ v
    return y.transpose(1, 2).contiguous().view(n, t, d) @ o


def multi_head_hand(x, w, o, g):
    n, t, d = x.shape
    heads, c = 4, 1 / math.sqrt(d // 4)
    qkv = x @ w
    q, k, v = (z.view(n, t, heads, d // heads).transpose(1, 2) for z in qkv.split(d, dim=2))
    s = q @ k.transpose(-2, -1) * c
    p = s.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf")).softmax(-1)
    y = p @ v
    flat = y.transpose(1, 2).reshape(n, t, d)
    out = flat @ o
    dy = (g @ o.T).view(n, t, heads, d // heads).transpose(1, 2)
    do = flat.reshape(n * t, d).T @ g.reshape(n * t, d)
    ds = p * (dy @ v.transpose(-2, -1) - (dy * y).sum(-1, keepdim=True)) * c
    dq, dk, dv = ds @ k, ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ dy
    dqkv = torch.cat([z.transpose(1, 2).reshape(n, t, d) for z in (dq, dk, dv)], 2)
    return out, (dqkv @ w.T, x.reshape(n * t, d).T @ dqkv.reshape(n * t, 3 * d), do)


def linear_attention(q, k, v):
    a, b = q.exp(), k.exp()
    return a @ (b.T @ v) / (a @ b.sum(0)).unsqueeze(1)


def attention_divided_last(q, k, v):
    e = (q @ k.T / math.sqrt(q.shape[-1])).exp()
    return (e @ v) / e.sum(-1, keepdim=True)


def attention_beside_one(q, k, v):
    e = (q @ k.T / math.sqrt(q.shape[-1])).exp()
    return (e / (1 + e.sum(-1, keepdim=True))) @ v


def attention_beside_one_hand(q, k, v, g):
    scale = 1 / math.sqrt(q.shape[-1])
    s = q @ k.T * scale
    m = s.amax(-1, keepdim=True).clamp(min=0)
    e = (s - m).exp()
    p = e / ((-m).exp() + e.sum(-1, keepdim=True))
    o = p @ v
    ds = p * (g @ v.T - (g * o).sum(-1, keepdim=True)) * scale
    return o, (ds @ k, ds.T @ q, p.T @ g)


def qkv(d, n):
    return [d.normal(n, 9, D), d.normal(n, 9, D), d.normal(n, 9, D)]


def flat_qkv(d, n):
    return [d.normal(n, D), d.normal(n + 1, D), d.normal(n + 1, D)]


def attention_online(q, k, v):
    """Softmax over blocks of keys with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022)."""
    s = q @ k[0].T
    m = s.max(1, keepdim=True).values
    e = torch.exp(s - m)
    total, out = e.sum(1, keepdim=True), e @ v[0]
    for j in range(1, 3):
        s = q @ k[j].T
        new = torch.maximum(m, s.max(1, keepdim=True).values)
        e, scale = torch.exp(s - new), torch.exp(m - new)
        total, out, m = total * scale + e.sum(1, keepdim=True), out * scale + e @ v[j], new
    return out / total


def attention_online_hand(q, k, v, g):
    """The forward as it is, and the backward from the logarithm of the sum alone, as in FlashAttention-2."""
    s = [q @ k[j].T for j in range(3)]
    m = s[0].amax(1, keepdim=True)
    e = (s[0] - m).exp()
    total, out = e.sum(1, keepdim=True), e @ v[0]
    for j in range(1, 3):
        new = torch.maximum(m, s[j].amax(1, keepdim=True))
        e, scale = (s[j] - new).exp(), (m - new).exp()
        total, out, m = total * scale + e.sum(1, keepdim=True), out * scale + e @ v[j], new
    out = out / total
    lse = m + total.log()
    inner = (g * out).sum(1, keepdim=True)
    dk, dv, dq = torch.empty_like(k), torch.empty_like(v), 0.0
    for j in range(3):
        p = (s[j] - lse).exp()
        dv[j] = p.T @ g
        ds = p * (g @ v[j].T - inner)
        dk[j] = ds.T @ q
        dq = ds @ k[j] + dq
    return out, (dq, dk, dv)


ATTENTION = (
    Form(
        "attention online",
        attention_online,
        lambda d, n: [d.normal(n, D), d.normal(3, 12, D), d.normal(3, 12, D)],
        attention_online_hand,
        extreme=True,
    ),
    Form("attention", attention, flat_qkv, attention_hand, extreme=True),
    Form("attention unscaled", attention_unscaled, flat_qkv, attention_unscaled_hand),
    Form("attention by broadcasting", attention_broadcast, flat_qkv, attention_unscaled_hand),
    Form("attention divided last", attention_divided_last, flat_qkv, attention_hand, extreme=True),
    Form("attention beside one", attention_beside_one, flat_qkv, attention_beside_one_hand, extreme=True),
    Form("attention batched", attention_batched, qkv, attention_hand, batches=(1, 2), large=8),
    Form("attention causal tril", attention_causal_tril, qkv, attention_causal_hand, batches=(1, 2), large=8),
    Form("attention causal triu", attention_causal_triu, qkv, attention_causal_hand, batches=(1, 2), large=8),
    Form("attention causal where", attention_causal_where, qkv, attention_causal_hand, batches=(1, 2), large=8),
    Form("attention causal product", attention_causal_product, qkv, attention_causal_hand, batches=(1, 2), large=8),
    Form(
        "multi-head attention",
        multi_head,
        lambda d, n: [d.normal(n, 6, 16), d.normal(16, 48), d.normal(16, 16)],
        multi_head_hand,
        batches=(1, 2),
        large=8,
    ),
    Form("linear attention", linear_attention, flat_qkv, None),
)
