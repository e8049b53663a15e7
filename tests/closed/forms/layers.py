"""Layers of published networks: positions, gates, pooling, normalisation."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form

A = torch.ops.aten
K = 48


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def rope_hand(x, cos, sin, g):
    a, b = x.chunk(2, -1)
    ga, gb = g.chunk(2, -1)
    return (
        torch.cat([a * cos - b * sin, a * sin + b * cos], -1),
        (torch.cat([ga * cos + gb * sin, gb * cos - ga * sin], -1),),
    )


def rope_rot(x, cos, sin):
    a, b = (x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :])
    return x * cos + torch.cat([-b, a], -1) * sin


def rope_rot_hand(x, cos, sin, g):
    a, b = x.chunk(2, -1)
    gs = g * sin
    ga, gb = gs.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin, (g * cos + torch.cat([gb, -ga], -1),))


def rope_pairs(x, cos, sin):
    a, b = (x[..., 0::2], x[..., 1::2])
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def rope_pairs_hand(x, cos, sin, g):
    a, b = (x[..., 0::2], x[..., 1::2])
    ga, gb = (g[..., 0::2], g[..., 1::2])
    return (
        torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2),
        (torch.stack([ga * cos + gb * sin, gb * cos - ga * sin], -1).flatten(-2),),
    )


def attn_pool(h, w):
    s = h @ w
    a = s.softmax(1)
    return (a[..., None] * h).sum(1)


def attn_pool_hand(h, w, g):
    s = h @ w
    a = s.softmax(1)
    o = (a[:, None] @ h)[:, 0]
    da = (h @ g[..., None])[..., 0]
    ds = a * (da - (g * o).sum(1, keepdim=True))
    dh = a[..., None] * g[:, None] + ds[..., None] * w
    return (o, (dh, h.reshape(-1, h.shape[-1]).T @ ds.reshape(-1)))


def attn_pool_exp(h, w):
    e = (h @ w).exp()
    a = e / e.sum(1, keepdim=True)
    return torch.einsum("nt,ntd->nd", a, h)


def cross_attention(x, c, wq, wk, wv):
    q = x @ wq
    k = c @ wk
    v = c @ wv
    s = q @ k.mT / math.sqrt(q.shape[-1])
    e = (s - s.max(-1, keepdim=True).values).exp()
    return e / e.sum(-1, keepdim=True) @ v


def flat(t):
    return t.reshape(-1, t.shape[-1])


def cross_attention_hand(x, c, wq, wk, wv, g):
    q = x @ wq
    k = c @ wk
    v = c @ wv
    z = 1 / math.sqrt(q.shape[-1])
    p = (q @ k.mT * z).softmax(-1)
    o = p @ v
    ds = p * (g @ v.mT - (g * o).sum(-1, keepdim=True)) * z
    dq = ds @ k
    dk = ds.mT @ q
    dv = p.mT @ g
    return (o, (dq @ wq.T, dk @ wk.T + dv @ wv.T, flat(x).T @ flat(dq), flat(c).T @ flat(dk), flat(c).T @ flat(dv)))


def cosine_attention(q, k, v):
    qn = q / (q * q).sum(-1, keepdim=True).sqrt()
    kn = k / (k * k).sum(-1, keepdim=True).sqrt()
    return (10 * qn @ kn.mT).softmax(-1) @ v


def cosine_attention_hand(q, k, v, g):
    rq = (q * q).sum(-1, keepdim=True).rsqrt()
    rk = (k * k).sum(-1, keepdim=True).rsqrt()
    qn = q * rq
    kn = k * rk
    p = (qn * 10 @ kn.mT).softmax(-1)
    o = p @ v
    ds = p * (g @ v.mT - (g * o).sum(-1, keepdim=True)) * 10
    a = ds @ kn
    b = ds.mT @ qn
    return (
        o,
        (rq * (a - qn * (a * qn).sum(-1, keepdim=True)), rk * (b - kn * (b * kn).sum(-1, keepdim=True)), p.mT @ g),
    )


def bahdanau(q, k, wq, wk, u):
    h = ((q @ wq)[:, None] + k @ wk).tanh()
    a = (h @ u).softmax(1)
    return (a[..., None] * k).sum(1)


def bahdanau_hand(q, k, wq, wk, u, g):
    h = ((q @ wq)[:, None] + k @ wk).tanh()
    a = (h @ u).softmax(1)
    o = (a[:, None] @ k)[:, 0]
    ds = a * ((k @ g[..., None])[..., 0] - (g * o).sum(1, keepdim=True))
    dz = A.tanh_backward(ds[..., None] * u, h)
    dq = dz.sum(1)
    return (
        o,
        (dq @ wq.T, dz @ wk.T + a[..., None] * g[:, None], q.T @ dq, flat(k).T @ flat(dz), flat(h).T @ ds.reshape(-1)),
    )


def gated_linear_attention(q, k, v, a):
    o = []
    s = 0
    for t in range(3):
        s = a[:, t, :, None] * s + k[:, t, :, None] * v[:, t, None]
        o.append((q[:, t, None] @ s)[:, 0])
    return torch.stack(o, 1)


def gla_hand(q, k, v, a, g):
    ss = [k[:, 0, :, None] * v[:, 0, None]]
    for t in (1, 2):
        ss.append(a[:, t, :, None] * ss[-1] + k[:, t, :, None] * v[:, t, None])
    o = torch.stack([(q[:, t, None] @ ss[t])[:, 0] for t in range(3)], 1)
    dq = torch.empty_like(q)
    dk = torch.empty_like(k)
    dv = torch.empty_like(v)
    da = torch.zeros_like(a)
    ds = None
    for t in (2, 1, 0):
        dq[:, t] = (ss[t] @ g[:, t, :, None])[..., 0]
        c = q[:, t, :, None] * g[:, t, None]
        ds = c if ds is None else ds + c
        dk[:, t] = (ds @ v[:, t, :, None])[..., 0]
        dv[:, t] = (k[:, t, None] @ ds)[:, 0]
        if t:
            da[:, t] = (ds * ss[t - 1]).sum(-1)
            ds = ds * a[:, t, :, None]
    return (o, (dq, dk, dv, da))


def highway(x, wh, wt):
    t = 1 / (1 + (-(x @ wt)).exp())
    h = (x @ wh).tanh()
    return t * h + (1 - t) * x


def highway_hand(x, wh, wt, g):
    t = (x @ wt).sigmoid()
    h = (x @ wh).tanh()
    e = h - x
    o = x + t * e
    dh = A.tanh_backward(g * t, h)
    dt = A.sigmoid_backward(g * e, t)
    return (o, (g * (1 - t) + dh @ wh.T + dt @ wt.T, x.T @ dh, x.T @ dt))


def elman(x, h, wx, wh):
    for t in range(3):
        h = (x[:, t] @ wx + h @ wh).tanh()
    return h


def elman_hand(x, h, wx, wh, g):
    hs = [h]
    for t in range(3):
        hs.append((x[:, t] @ wx + hs[-1] @ wh).tanh())
    dx = torch.empty_like(x)
    dwx = dwh = 0
    for t in (2, 1, 0):
        a = A.tanh_backward(g, hs[t + 1])
        dx[:, t] = a @ wx.T
        dwx = x[:, t].T @ a + dwx
        dwh = hs[t].T @ a + dwh
        g = a @ wh.T
    return (hs[-1], (dx, g, dwx, dwh))


def rms_residual(x, r, w):
    h = x + r
    return h + h / ((h**2).mean(-1, keepdim=True) + 1e-06).sqrt() * w


def rms_residual_hand(x, r, w, g):
    h = x + r
    s = ((h * h).mean(-1, keepdim=True) + 1e-06).rsqrt()
    n = h * s
    gw = g * w
    dh = g + (gw - n * (gw * n).mean(-1, keepdim=True)) * s
    return (h + n * w, (dh, dh, (g * n).sum(0)))


def ln_linear(x, w, b, u):
    m = x.mean(-1, keepdim=True)
    v = ((x - m) ** 2).mean(-1, keepdim=True)
    return ((x - m) / (v + 1e-05).sqrt() * w + b) @ u


def ln_linear_hand(x, w, b, u, g):
    xc = x - x.mean(-1, keepdim=True)
    r = ((xc * xc).mean(-1, keepdim=True) + 1e-05).rsqrt()
    n = xc * r
    y = n * w + b
    dy = g @ u.T
    du = y.T @ g
    gw = dy * w
    return (
        y @ u,
        (r * (gw - gw.mean(-1, keepdim=True) - n * (gw * n).mean(-1, keepdim=True)), (dy * n).sum(0), dy.sum(0), du),
    )


def scalenorm(x, s):
    return s * x / x.norm(dim=-1, keepdim=True)


def scalenorm_hand(x, s, g):
    r = (x * x).sum(-1, keepdim=True).rsqrt()
    n = x * r
    d = (g * n).sum(-1, keepdim=True)
    return (n * s, ((g - n * d) * (s * r), d.sum()))


def squash(s):
    q = (s**2).sum(-1, keepdim=True)
    return q / (1 + q) * s / (q + 1e-08).sqrt()


def squash_hand(s, g):
    q = (s * s).sum(-1, keepdim=True)
    r = (q + 1e-08).rsqrt()
    c = q * r / (1 + q)
    d = (g * s).sum(-1, keepdim=True)
    k = (1 / (1 + q) ** 2 - 0.5 * q / (1 + q) * r * r) * r * 2 * d
    return (s * c, (g * c + s * k,))


def lrn_l1(x):
    return x / (x.abs().sum(1, keepdim=True) + 1e-12)


def lrn_l1_hand(x, g):
    r = 1 / (x.abs().sum(1, keepdim=True) + 1e-12)
    o = x * r
    return (o, (r * (g - x.sign() * (g * o).sum(1, keepdim=True)),))


def adain(x, y):
    mx, my = (x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True))
    sx = (x.var((2, 3), keepdim=True) + 1e-05).sqrt()
    sy = (y.var((2, 3), keepdim=True) + 1e-05).sqrt()
    return sy * (x - mx) / sx + my


def adain_hand(x, y, g):
    n = x.shape[2] * x.shape[3]
    mx = x.mean((2, 3), keepdim=True)
    my = y.mean((2, 3), keepdim=True)
    xc = x - mx
    yc = y - my
    rx = ((xc * xc).sum((2, 3), keepdim=True) / (n - 1) + 1e-05).rsqrt()
    sy = ((yc * yc).sum((2, 3), keepdim=True) / (n - 1) + 1e-05).sqrt()
    k = sy * rx
    o = xc * k + my
    gs = g.sum((2, 3), keepdim=True)
    gx = (g * xc).sum((2, 3), keepdim=True)
    dx = k * (g - gs / n - xc * (gx * rx * rx / (n - 1)))
    dy = gs / n + yc * (gx * rx / (sy * (n - 1)))
    return (o, (dx, dy))


def film(x, ga, be):
    return ga[:, :, None, None] * x + be[:, :, None, None]


def film_hand(x, ga, be, g):
    return (
        ga[:, :, None, None] * x + be[:, :, None, None],
        (ga[:, :, None, None] * g, (g * x).sum((2, 3)), g.sum((2, 3))),
    )


def gem(x):
    return (x.clamp(min=1e-06) ** 3).mean((2, 3)) ** (1 / 3)


def gem_hand(x, g):
    c = x.clamp(min=1e-06)
    c2 = c * c
    o = (c2 * c).mean((2, 3)) ** (1 / 3)
    n = x.shape[2] * x.shape[3]
    k = g / (o * o) / n
    return (o, (torch.where(x >= 1e-06, c2 * k[..., None, None], 0),))


def soft_argmax(x):
    i = torch.arange(x.shape[1], dtype=x.dtype)
    return (x.softmax(1) * i).sum(1)


def soft_argmax_hand(x, g):
    i = torch.arange(x.shape[1], dtype=x.dtype)
    p = x.softmax(1)
    o = p @ i
    return (o, (p * (i - o[:, None]) * g[:, None],))


def spectral_power(w, v):
    u = w @ v
    u = u / (u * u).sum().sqrt()
    s = u @ (w @ v)
    return w / s


def spectral_hand(w, v, g):
    u = w @ v
    s = (u * u).sum().sqrt()
    o = w / s
    k = (g * o).sum() / (s * s)
    return (o, (g / s - (u * k)[:, None] * v, -(w.T @ u) * k))


def prelu(x, a):
    return torch.where(x > 0, x, a * x)


def prelu_hand(x, a, g):
    o = torch.where(x > 0, x, a * x)
    gx = g * x
    return (o, (torch.where(x > 0, g, g * a), torch.where(x > 0, 0, gx).sum(0)))


def maxout(x, w):
    return (x @ w).view(len(x), 8, 3).max(-1).values


def maxout_hand(x, w, g):
    z = (x @ w).view(len(x), 8, 3)
    o, i = z.max(-1)
    dz = torch.zeros_like(z).scatter_(-1, i[..., None], g[..., None]).view(len(x), 24)
    return (o, (dz @ w.T, x.T @ dz))


def dyt(x, a, w, b):
    return w * torch.tanh(a * x) + b


def dyt_hand(x, a, w, b, g):
    t = (x * a).tanh()
    d = A.tanh_backward(g * w, t)
    return (w * t + b, (d * a, (d * x).sum(), (g * t).sum(0), g.sum(0)))


def moe(x, wg, we):
    p = (x @ wg).softmax(-1)
    y = torch.einsum("nd,edh->neh", x, we)
    return (p[..., None] * y).sum(1)


def moe_hand(x, wg, we, g):
    p = (x @ wg).softmax(-1)
    y = torch.einsum("nd,edh->neh", x, we)
    o = (p[:, None] @ y)[:, 0]
    ds = p * ((y @ g[..., None])[..., 0] - (g * o).sum(1, keepdim=True))
    dy = p[..., None] * g[:, None]
    return (o, (torch.einsum("neh,edh->nd", dy, we) + ds @ wg.T, x.T @ ds, torch.einsum("nd,neh->edh", x, dy)))


def rbf(x, c, w):
    d = ((x[:, None] - c) ** 2).sum(-1)
    return (-0.5 * d).exp() @ w


def rbf_hand(x, c, w, g):
    r = x[:, None] - c
    k = ((r * r).sum(-1) * -0.5).exp()
    e = k * (g @ w.T)
    dr = r * e[..., None]
    return (k @ w, (-dr.sum(1), dr.sum(0), k.T @ g))


def deepsets(x, w1, w2):
    return torch.relu(torch.relu(x @ w1).sum(1) @ w2)


def deepsets_hand(x, w1, w2, g):
    h = torch.relu(x @ w1)
    s = h.sum(1)
    o = torch.relu(s @ w2)
    go = A.threshold_backward(g, o, 0)
    dh = A.threshold_backward((go @ w2.T)[:, None].expand_as(h), h, 0)
    return (o, (dh @ w1.T, flat(x).T @ flat(dh), s.T @ go))


def cross_net(x0, x, w, b):
    return x0 * (x @ w)[:, None] + b + x


def cross_net_hand(x0, x, w, b, g):
    s = x @ w
    d = (g * x0).sum(1)
    return (x0 * s[:, None] + b + x, (g * s[:, None], g + d[:, None] * w, x.T @ d, g.sum(0)))


def gcn(a, x, w):
    d = a.sum(1).rsqrt()
    return torch.relu(d[:, None] * a * d[None, :] @ x @ w)


def gcn_hand(a, x, w, g):
    d = a.sum(1).rsqrt()
    n = d[:, None] * a * d
    h = n @ x
    o = torch.relu(h @ w)
    go = torch.ops.aten.threshold_backward(g, o, 0)
    return (o, (n.T @ (go @ w.T), h.T @ go))


def several(count, *shape):
    return lambda d, n: [d.normal(n, *shape) for _ in range(count)]


LAYERS = (
    Form("rope", rope, lambda d, n: [d.normal(n, 6, 16), d.normal(6, 8), d.normal(6, 8)], rope_hand, wrt=("x",)),
    Form(
        "rope rotate half",
        rope_rot,
        lambda d, n: [d.normal(n, 6, 16), d.normal(6, 16), d.normal(6, 16)],
        rope_rot_hand,
        wrt=("x",),
    ),
    Form(
        "rope pairs",
        rope_pairs,
        lambda d, n: [d.normal(n, 6, 16), d.normal(6, 8), d.normal(6, 8)],
        rope_pairs_hand,
        wrt=("x",),
    ),
    Form("attention pooling", attn_pool, lambda d, n: [d.normal(n, 9, 16), d.normal(16)], attn_pool_hand),
    Form("attention pooling exp", attn_pool_exp, lambda d, n: [d.normal(n, 9, 16), d.normal(16)], attn_pool_hand),
    Form(
        "cross attention",
        cross_attention,
        lambda d, n: [d.normal(n, 6, 12), d.normal(n, 7, 12), d.normal(12, 8), d.normal(12, 8), d.normal(12, 8)],
        cross_attention_hand,
    ),
    Form(
        "cosine attention",
        cosine_attention,
        lambda d, n: [d.normal(n, 9, 8), d.normal(n, 9, 8), d.normal(n, 9, 8)],
        cosine_attention_hand,
    ),
    Form(
        "bahdanau",
        bahdanau,
        lambda d, n: [d.normal(n, 8), d.normal(n, 9, 12), d.normal(8, 10), d.normal(12, 10), d.normal(10)],
        bahdanau_hand,
    ),
    Form(
        "gated linear attention",
        gated_linear_attention,
        lambda d, n: [d.normal(n, 3, 8), d.normal(n, 3, 8), d.normal(n, 3, 6), d.unit(n, 3, 8)],
        gla_hand,
    ),
    Form("highway", highway, lambda d, n: [d.normal(n, 16), d.normal(16, 16), d.normal(16, 16)], highway_hand),
    Form(
        "elman", elman, lambda d, n: [d.normal(n, 3, 8), d.normal(n, 12), d.normal(8, 12), d.normal(12, 12)], elman_hand
    ),
    Form(
        "rmsnorm residual",
        rms_residual,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.positive(K)],
        rms_residual_hand,
    ),
    Form(
        "layernorm linear",
        ln_linear,
        lambda d, n: [d.normal(n, K), d.positive(K), d.normal(K), d.normal(K, 16)],
        ln_linear_hand,
    ),
    Form("scale norm", scalenorm, lambda d, n: [d.normal(n, K), d.positive()], scalenorm_hand),
    Form("squash", squash, several(1, 6, 8), squash_hand),
    Form("l1 normalise", lrn_l1, several(1, K), lrn_l1_hand),
    Form("adain", adain, lambda d, n: [d.normal(n, 4, 5, 6), d.normal(n, 4, 5, 6)], adain_hand, batches=(5,)),
    Form("film", film, lambda d, n: [d.normal(n, 8, 5, 6), d.normal(n, 8), d.normal(n, 8)], film_hand),
    Form("gem pooling", gem, lambda d, n: [d.positive(n, 8, 5, 6)], gem_hand, twice=False),
    Form("soft argmax", soft_argmax, several(1, K), soft_argmax_hand),
    Form("spectral norm", spectral_power, lambda d, n: [d.normal(n, 12), d.normal(12)], spectral_hand),
    Form("prelu", prelu, lambda d, n: [d.normal(n, K), d.unit(K)], prelu_hand, twice=False),
    Form("maxout", maxout, lambda d, n: [d.normal(n, 12), d.normal(12, 24)], maxout_hand, twice=False),
    Form("dynamic tanh", dyt, lambda d, n: [d.normal(n, K), d.positive(), d.normal(K), d.normal(K)], dyt_hand),
    Form("mixture of experts", moe, lambda d, n: [d.normal(n, 12), d.normal(12, 4), d.normal(4, 12, 8)], moe_hand),
    Form("rbf network", rbf, lambda d, n: [d.normal(n, 12), d.normal(5, 12), d.normal(5, 3)], rbf_hand),
    Form("deep sets", deepsets, lambda d, n: [d.normal(n, 7, 12), d.normal(12, 16), d.normal(16, 8)], deepsets_hand),
    Form(
        "cross network",
        cross_net,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.normal(K), d.normal(K)],
        cross_net_hand,
    ),
    Form(
        "gcn",
        gcn,
        lambda d, n: [d.unit(n, n), d.normal(n, 12), d.normal(12, 8)],
        gcn_hand,
        wrt=("x", "w"),
        batches=(5,),
    ),
)
