"""Attention with what is added to it, or taken from it."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form

A = torch.ops.aten


def flat(t):
    return t.reshape(-1, t.shape[-1])


D = 16


def qkv(d, n):
    return [d.normal(n, 9, D) for _ in range(3)]


def att_bias(q, k, v, b):
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + b
    e = torch.exp(s - s.max(-1, keepdim=True)[0])
    return e / e.sum(-1, keepdim=True) @ v


def att_bias_hand(q, k, v, b, g):
    c = 1 / math.sqrt(q.shape[-1])
    p = torch.baddbmm(b, q, k.mT, alpha=c).softmax(-1) if b.dim() == 3 else (q @ k.mT * c + b).softmax(-1)
    o = p @ v
    ds = p * (g @ v.mT - (g * o).sum(-1, keepdim=True))
    dsc = ds * c
    return (o, (dsc @ k, dsc.mT @ q, p.mT @ g, ds.sum(0)))


def att_drop(q, k, v, m):
    p = torch.softmax(q @ k.transpose(1, 2) * D ** (-0.5), -1)
    return p * m / 0.9 @ v


def att_drop_hand(q, k, v, m, g):
    c = D ** (-0.5)
    p = (q @ k.mT * c).softmax(-1)
    mm = m / 0.9
    pm = p * mm
    o = pm @ v
    ds = (pm * (g @ v.mT) - p * (g * o).sum(-1, keepdim=True)) * c
    return (o, (ds @ k, ds.mT @ q, pm.mT @ g))


def att_pad(q, k, v, m):
    s = torch.einsum("bid,bjd->bij", q, k) / D**0.5
    s = s.masked_fill(~m[:, None, :], -1e30)
    w = s.exp() / s.exp().sum(-1, keepdim=True)
    return torch.einsum("bij,bjd->bid", w, v)


def att_pad_hand(q, k, v, m, g):
    c = D ** (-0.5)
    p = (q @ k.mT * c).masked_fill(~m[:, None, :], -1e30).softmax(-1)
    o = p @ v
    ds = p * (g @ v.mT - (g * o).sum(-1, keepdim=True)) * c
    return (o, (ds @ k, ds.mT @ q, p.mT @ g))


def padmask(d, n):
    m = d.unit(n, 9) > 0.3
    m[:, 0] = True
    return m


def att_cap(q, k, v):
    s = 50 * torch.tanh(q @ k.mT / 4 / 50)
    return s.softmax(-1) @ v


def att_cap_hand(q, k, v, g):
    t = (q @ k.mT / 200).tanh()
    p = (50 * t).softmax(-1)
    o = p @ v
    ds = A.tanh_backward(p * (g @ v.mT - (g * o).sum(-1, keepdim=True)), t) / 4
    return (o, (ds @ k, ds.mT @ q, p.mT @ g))


def att_diff(q1, k1, q2, k2, v, lam):
    a = (q1 @ k1.mT / 4).softmax(-1)
    b = (q2 @ k2.mT / 4).softmax(-1)
    return (a - lam * b) @ v


def att_diff_hand(q1, k1, q2, k2, v, lam, g):
    a = (q1 @ k1.mT / 4).softmax(-1)
    b = (q2 @ k2.mT / 4).softmax(-1)
    p = a - lam * b
    dp = g @ v.mT
    t = dp * b
    sb = t.sum(-1, keepdim=True)
    da = a * (dp - (dp * a).sum(-1, keepdim=True)) / 4
    db = (t - b * sb) * (-lam / 4)
    return (p @ v, (da @ k1, da.mT @ q1, db @ k2, db.mT @ q2, p.mT @ g, -sb.sum()))


def retention(q, k, v):
    t = q.shape[1]
    i = torch.arange(t, dtype=q.dtype)
    dec = torch.where(i[:, None] >= i[None], 0.9 ** (i[:, None] - i[None]), torch.zeros((), dtype=q.dtype))
    return q @ k.mT * dec @ v


def retention_hand(q, k, v, g):
    t = q.shape[1]
    i = torch.arange(t, dtype=q.dtype)
    dec = (0.9 ** (i[:, None] - i)).tril()
    s = q @ k.mT * dec
    ds = g @ v.mT * dec
    return (s @ v, (ds @ k, ds.mT @ q, s.mT @ g))


def mqa(q, k, v):
    s = torch.einsum("bhid,bjd->bhij", q, k) / 4
    return torch.einsum("bhij,bjd->bhid", s.softmax(-1), v)


def mqa_hand(q, k, v, g):
    b, h, t, d = q.shape
    q2 = q.reshape(b, h * t, d)
    g2 = g.reshape(b, h * t, d)
    p = (q2 @ k.mT / 4).softmax(-1)
    o = p @ v
    ds = p * (g2 @ v.mT - (g2 * o).sum(-1, keepdim=True)) / 4
    return (o.view_as(q), ((ds @ k).view_as(q), ds.mT @ q2, p.mT @ g2))


def mha_einsum(x, wq, wk, wv, wo):
    q = torch.einsum("btd,dhk->bhtk", x, wq)
    k = torch.einsum("btd,dhk->bhtk", x, wk)
    v = torch.einsum("btd,dhk->bhtk", x, wv)
    s = torch.einsum("bhik,bhjk->bhij", q, k) / q.shape[-1] ** 0.5
    e = torch.exp(s)
    p = e / e.sum(-1, keepdim=True)
    y = torch.einsum("bhij,bhjk->bhik", p, v)
    return torch.einsum("bhtk,hkd->btd", y, wo)


def mha_einsum_hand(x, wq, wk, wv, wo, g):
    b, t, d = x.shape
    _, h, kk = wq.shape
    fx = flat(x)
    w = [z.reshape(d, h * kk) for z in (wq, wk, wv)]
    q, k, v = ((fx @ z).view(b, t, h, kk).transpose(1, 2) for z in w)
    p = (q @ k.mT / kk**0.5).softmax(-1)
    y = p @ v
    fy = y.transpose(1, 2).reshape(b * t, h * kk)
    fo = wo.reshape(h * kk, d)
    o = (fy @ fo).view(b, t, d)
    fg = flat(g)
    dy = (fg @ fo.T).view(b, t, h, kk).transpose(1, 2)
    ds = p * (dy @ v.mT - (dy * y).sum(-1, keepdim=True)) / kk**0.5
    dq, dk, dv = (z.transpose(1, 2).reshape(b * t, h * kk) for z in (ds @ k, ds.mT @ q, p.mT @ dy))
    dx = dq @ w[0].T + dk @ w[1].T + dv @ w[2].T
    return (
        o,
        (
            dx.view_as(x),
            (fx.T @ dq).view_as(wq),
            (fx.T @ dk).view_as(wk),
            (fx.T @ dv).view_as(wv),
            (fy.T @ fg).view_as(wo),
        ),
    )


def vlad(x, c, w):
    a = (x @ w).softmax(-1)
    v = torch.einsum("bnk,bnd->bkd", a, x) - a.sum(1)[..., None] * c
    return v


def vlad_hand(x, c, w, g):
    a = (x @ w).softmax(-1)
    s = a.sum(1)[..., None]
    o = torch.baddbmm(-(s * c), a.mT, x)
    da = x @ g.mT - (g * c).sum(-1)[:, None]
    ds = a * (da - (da * a).sum(-1, keepdim=True))
    return (o, (a @ g + ds @ w.T, -(g * s).sum(0), flat(x).T @ flat(ds)))


def slot(q, k, v):
    a = (k @ q.mT / 4).softmax(-1) + 1e-08
    a = a / a.sum(1, keepdim=True)
    return a.mT @ v


def slot_hand(q, k, v, g):
    p = (k @ q.mT / 4).softmax(-1)
    a = p + 1e-08
    r = 1 / a.sum(1, keepdim=True)
    w = a * r
    o = w.mT @ v
    da = (v @ g.mT - (g * o).sum(-1)[:, None]) * r
    ds = p * (da - (da * p).sum(-1, keepdim=True)) / 4
    return (o, (ds.mT @ k, ds @ q, w @ g))


HEADS = (
    Form("attention key padding", att_pad, lambda d, n: [*qkv(d, n), padmask(d, n)], att_pad_hand, large=8),
    Form("attention learned bias", att_bias, lambda d, n: [*qkv(d, n), d.normal(9, 9)], att_bias_hand, large=8),
    Form(
        "attention dropout mask",
        att_drop,
        lambda d, n: [*qkv(d, n), (d.unit(n, 9, 9) > 0.1).to(d.dtype)],
        att_drop_hand,
        wrt=("q", "k", "v"),
        large=8,
    ),
    Form("attention softcap", att_cap, qkv, att_cap_hand, large=8),
    Form(
        "differential attention",
        att_diff,
        lambda d, n: [*[d.normal(n, 9, D) for _ in range(5)], d.unit(1).squeeze(0)],
        att_diff_hand,
        large=8,
    ),
    Form("retention", retention, qkv, retention_hand, large=8),
    Form(
        "slot attention",
        slot,
        lambda d, n: [d.normal(n, 4, D), d.normal(n, 9, D), d.normal(n, 9, D)],
        slot_hand,
        large=8,
    ),
    Form("netvlad", vlad, lambda d, n: [d.normal(n, 9, 8), d.normal(5, 8), d.normal(8, 5)], vlad_hand, large=8),
    Form(
        "multi-query attention",
        mqa,
        lambda d, n: [d.normal(n, 3, 9, D), d.normal(n, 9, D), d.normal(n, 9, D)],
        mqa_hand,
        large=8,
    ),
    Form(
        "mha einsum",
        mha_einsum,
        lambda d, n: [
            d.normal(n, 7, 12),
            d.normal(12, 2, 6),
            d.normal(12, 2, 6),
            d.normal(12, 2, 6),
            d.normal(2, 6, 12),
        ],
        mha_einsum_hand,
        large=8,
    ),
)
