"""Cells and layers whose sums have products in them, each made in one call with the sum."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

K = 8
aten = torch.ops.aten


# Lei et al., Simple recurrent units for highly parallelizable recurrence, 2018
def sru(x, c, wx, wf, wr, bf, br):
    u = x @ wx
    f = torch.sigmoid(x @ wf + bf)
    r = torch.sigmoid(x @ wr + br)
    cn = f * c + (1 - f) * u
    return r * torch.tanh(cn) + (1 - r) * x


def sru_hand(x, c, wx, wf, wr, bf, br, g):
    u = x @ wx
    f, r = torch.addmm(bf, x, wf).sigmoid(), torch.addmm(br, x, wr).sigmoid()
    cn = torch.lerp(u, c, f)
    t = cn.tanh()
    out = torch.lerp(x, t, r)
    gr = g * r
    dr = aten.sigmoid_backward(g * (t - x), r)
    dc = aten.tanh_backward(gr, t)
    dcf = dc * f
    df = aten.sigmoid_backward(dc * (c - u), f)
    du = dc - dcf
    dx = torch.addmm(torch.addmm(torch.addmm(g - gr, du, wx.T), df, wf.T), dr, wr.T)
    return out, (dx, dcf, x.T @ du, x.T @ df, x.T @ dr, df.sum(0), dr.sum(0))


# Gers, Schraudolph and Schmidhuber, Learning precise timing with LSTM recurrent networks, 2002
def peephole(zi, zf, zo, zg, c, pi, pf, po):
    i = torch.sigmoid(zi + pi * c)
    f = torch.sigmoid(zf + pf * c)
    cn = f * c + i * torch.tanh(zg)
    o = torch.sigmoid(zo + po * cn)
    return o * torch.tanh(cn)


def peephole_hand(zi, zf, zo, zg, c, pi, pf, po, g):
    i, f, u = torch.addcmul(zi, pi, c).sigmoid(), torch.addcmul(zf, pf, c).sigmoid(), zg.tanh()
    cn = torch.addcmul(f * c, i, u)
    o = torch.addcmul(zo, po, cn).sigmoid()
    t = cn.tanh()
    do = aten.sigmoid_backward(g * t, o)
    dc = torch.addcmul(aten.tanh_backward(g * o, t), do, po)
    di, df, du = aten.sigmoid_backward(dc * u, i), aten.sigmoid_backward(dc * c, f), aten.tanh_backward(dc * i, u)
    dcc = torch.addcmul(torch.addcmul(dc * f, di, pi), df, pf)
    return o * t, (di, df, do, du, dcc, (di * c).sum(0), (df * c).sum(0), (do * cn).sum(0))


# Hamilton, Ying and Leskovec, Inductive representation learning on large graphs, 2017
def sage(x, adj, ws, wn):
    h = adj @ x / adj.sum(1, keepdim=True)
    h = torch.relu(x @ ws + h @ wn)
    return h / torch.sqrt((h**2).sum(1, keepdim=True) + 1e-12)


def sage_hand(x, adj, ws, wn, g):
    r = 1 / adj.sum(1, keepdim=True)
    m = adj @ x * r
    h = torch.addmm(x @ ws, m, wn).relu()
    i = ((h * h).sum(1, keepdim=True) + 1e-12).rsqrt()
    y = h * i
    d = (g - y * (g * y).sum(1, keepdim=True)) * i
    d = aten.threshold_backward(d, h, 0)
    dm = (d @ wn.T) * r
    return y, (torch.addmm(d @ ws.T, adj.T, dm), x.T @ d, m.T @ d)


# Vincent, A connection between score matching and denoising autoencoders, 2011
def dsm(x, eps, w, b, sigma):
    xt = x + sigma * eps
    s = torch.tanh(xt @ w + b)
    return ((sigma * s + eps) ** 2).sum(1).mean()


def dsm_hand(x, eps, w, b, sigma, g):
    xt = torch.addcmul(x, sigma, eps)
    s = torch.addmm(b, xt, w).tanh()
    e = torch.addcmul(eps, sigma, s)
    out = (e * e).sum() / len(x)
    ds = e * (sigma * (2 * g / len(x)))
    dh = aten.tanh_backward(ds, s)
    return out, (xt.T @ dh, dh.sum(0))


# Beck et al. 2024: a matrix memory that forgets, takes up v kᵀ and is read by q
def memory(c, q, k, v, i, f):
    new = f[:, :, None] * c + i[:, :, None] * v[:, :, None] * k[:, None, :]
    return torch.einsum("bij,bj->bi", new, q)


def memory_hand(c, q, k, v, i, f, g):
    new = torch.addcmul(f[:, :, None] * c, (i * v)[:, :, None], k[:, None, :])
    out = torch.einsum("bij,bj->bi", new, q)
    vg, kq = (v * g).sum(1, keepdim=True), (k * q).sum(1, keepdim=True)
    df = (torch.einsum("bij,bi->bj", c, g) * q).sum(1, keepdim=True)
    dc, dq = g[:, :, None] * (f * q)[:, None], torch.einsum("bij,bi->bj", new, g)
    return out, (dc, dq, q * (i * vg), g * (i * kq), vg * kq, df)


# Beck et al., xLSTM: extended long short-term memory, 2024
def mlstm(c, m, q, k, v, i, f, o):
    new = f[:, None, None] * c + i[:, None, None] * v[:, :, None] * k[:, None, :]
    n = f[:, None] * m + i[:, None] * k
    above = (new @ q[:, :, None]).squeeze(-1)
    return o * above / (n * q).sum(1, keepdim=True).abs().clamp(min=1)


def mlstm_hand(c, m, q, k, v, i, f, o, g):
    i, f = i[:, None], f[:, None]
    cq, kq, mq = (c @ q[:, :, None]).squeeze(-1), (k * q).sum(1, keepdim=True), (m * q).sum(1, keepdim=True)
    ikq = i * kq
    above, below = torch.addcmul(ikq * v, f, cq), torch.addcmul(ikq, f, mq)
    length = below.abs()
    bottom = length.clamp(min=1)
    share = above / bottom
    da = g * o / bottom
    do = g * share
    db = torch.where(length >= 1, (do * o).sum(1, keepdim=True) / bottom * -below.sign(), 0)
    fd, t, fdb = f * da, (v * da).sum(1, keepdim=True) + db, f * db
    it = i * t
    dq = torch.addcmul(torch.addcmul((fd[:, None] @ c).squeeze(1), it, k), fdb, m)
    df = (da * cq).sum(1) + (db * mq).squeeze(1)
    return o * share, (fd[:, :, None] * q[:, None], fdb * q, dq, it * q, ikq * da, (kq * t).squeeze(1), df, do)


CELLS = (
    Form(
        "sru",
        sru,
        lambda d, n: [d.normal(n, K), d.normal(n, K), *(d.normal(K, K) for _ in range(3)), d.normal(K), d.normal(K)],
        sru_hand,
    ),
    Form(
        "peephole lstm",
        peephole,
        lambda d, n: [*(d.normal(n, K) for _ in range(5)), *(d.normal(K) for _ in range(3))],
        peephole_hand,
    ),
    Form(
        "graphsage",
        sage,
        lambda d, n: [d.normal(n, K), d.positive(n, n), d.normal(K, K), d.normal(K, K)],
        sage_hand,
        wrt=("x", "ws", "wn"),
        twice=False,
    ),
    Form(
        "denoising score matching",
        dsm,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.normal(K, K), d.normal(K), d.positive(n, 1)],
        dsm_hand,
        wrt=("w", "b"),
    ),
    Form(
        "matrix memory",
        memory,
        lambda d, n: [d.normal(n, 6, 6), *(d.normal(n, 6) for _ in range(3)), d.normal(n, 1), d.normal(n, 1)],
        memory_hand,
    ),
    Form(
        "mlstm",
        mlstm,
        lambda d, n: [d.normal(n, K, K), *(d.normal(n, K) for _ in range(4)), d.positive(n), d.unit(n), d.unit(n, K)],
        mlstm_hand,
        twice=False,
    ),
)
