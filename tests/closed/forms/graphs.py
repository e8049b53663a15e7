"""Layers on graphs, products of three, adapters."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

A = torch.ops.aten


def mpnn(x, src, dst, w):
    m = (x @ w)[src]
    out = torch.zeros(x.shape[0], w.shape[1], dtype=x.dtype).index_add_(0, dst, m)
    return torch.relu(out)


def mpnn_hand(x, src, dst, w, g):
    h = x @ w
    o = torch.zeros(x.shape[0], w.shape[1], dtype=x.dtype).index_add_(0, dst, h[src]).relu()
    d = A.threshold_backward(g, o, 0)
    dh = torch.zeros_like(h).index_add_(0, src, d[dst])
    return (o, (dh @ w.T, x.T @ dh))


# Velickovic et al., Graph attention networks, 2018
def graph_attention(h, w, a, b, adj):
    z = h @ w
    e = F.leaky_relu((z @ a)[:, None] + (z @ b)[None, :], 0.2)
    return torch.where(adj == 0, torch.full_like(e, -1e9), e).softmax(1) @ z


def graph_attention_hand(h, w, a, b, adj, g):
    z = h @ w
    s = (z @ a)[:, None] + z @ b
    p = F.leaky_relu(s, 0.2).masked_fill(adj == 0, -1e9).softmax(1)
    o = p @ z
    d = A.leaky_relu_backward(p * (g @ z.T - (g * o).sum(1, keepdim=True)), s, 0.2, False)
    r, c = d.sum(1), d.sum(0)
    dz = p.T @ g + r[:, None] * a + c[:, None] * b
    return (o, (dz @ w.T, h.T @ dz, z.T @ r, z.T @ c))


def adjacent(d, n):
    a = (d.unit(n, n) > 0.5).to(torch.int64)
    return a.fill_diagonal_(1)


def gin(x, a, e, w):
    return torch.tanh(((1 + e) * x + a @ x) @ w)


def gin_hand(x, a, e, w, g):
    s = (1 + e) * x + a @ x
    o = (s @ w).tanh()
    d = A.tanh_backward(g, o)
    ds = d @ w.T
    return (o, (ds * (1 + e) + a.T @ ds, (ds * x).sum(), s.T @ d))


def appnp(h, a):
    z = h
    for _ in range(3):
        z = 0.9 * a @ z + 0.1 * h
    return z


def appnp_hand(h, a, g):
    z = h
    h1 = 0.1 * h
    for _ in range(3):
        z = torch.addmm(h1, a, z, alpha=0.9)
    u1 = a.T @ g * 0.9
    u2 = a.T @ u1 * 0.9
    u3 = a.T @ u2 * 0.9
    return (z, ((g + u1 + u2) * 0.1 + u3,))


def dora(x, w, a, b, m):
    v = w + b @ a
    return x @ (m[:, None] * v / v.norm(dim=1, keepdim=True)).T


def dora_hand(x, w, a, b, m, g):
    v = w + b @ a
    r = (v * v).sum(1, keepdim=True).rsqrt()
    u = v * r
    k = m[:, None]
    wk = u * k
    d = g.T @ x
    dm = (d * u).sum(1, keepdim=True)
    dv = (d - u * dm) * (k * r)
    return (x @ wk.T, (b.T @ dv, dv @ a.T, dm.squeeze(1)))


def fm_mlp(x, w0, w, v):
    return w0 + x @ w + 0.5 * ((x @ v) ** 2 - x**2 @ v**2).sum(1)


def fm_mlp_hand(x, w0, w, v, g):
    s = x @ v
    q = (v * v).sum(1)
    o = w0 + x @ w + 0.5 * ((s * s).sum(1) - x * x @ q)
    gx = g[:, None] * x
    return (o, (g.sum(), x.T @ g, gx.T @ s - v * (gx * x).sum(0)[:, None]))


def ntn(a, b, w):
    return torch.tanh(torch.einsum("nd,kde,ne->nk", a, w, b))


def ntn_hand(a, b, w, g):
    aw = torch.einsum("nd,kde->nke", a, w)
    o = (aw @ b[..., None])[..., 0].tanh()
    s = A.tanh_backward(g, o)
    db = (s[:, None] @ aw)[:, 0]
    sb = s[:, :, None] * b[:, None]
    da = torch.einsum("nke,kde->nd", sb, w)
    return (o, (da, db, torch.einsum("nke,nd->kde", sb, a)))


GRAPHS = (
    Form(
        "message passing index_add",
        mpnn,
        lambda d, n: [d.normal(n, 8), d.classes(n, 3 * n), d.classes(n, 3 * n), d.normal(8, 6)],
        mpnn_hand,
        twice=False,
    ),
    Form(
        "graph attention",
        graph_attention,
        lambda d, n: [d.normal(n, 12), d.normal(12, 8), d.normal(8), d.normal(8), adjacent(d, n)],
        graph_attention_hand,
        twice=False,
    ),
    Form(
        "gin",
        gin,
        lambda d, n: [d.normal(n, 8), (d.unit(n, n) > 0.5).to(d.dtype), d.normal(1).squeeze(0), d.normal(8, 6)],
        gin_hand,
        wrt=("x", "e", "w"),
    ),
    Form("appnp", appnp, lambda d, n: [d.normal(n, 8), d.unit(n, n)], appnp_hand, wrt=("h",)),
    Form("neural tensor", ntn, lambda d, n: [d.normal(n, 5), d.normal(n, 6), d.normal(3, 5, 6)], ntn_hand, large=32),
    Form(
        "factorisation machine v",
        fm_mlp,
        lambda d, n: [d.normal(n, 12), d.normal(1).squeeze(0), d.normal(12), d.normal(12, 4)],
        fm_mlp_hand,
        wrt=("w0", "w", "v"),
    ),
    Form(
        "dora",
        dora,
        lambda d, n: [d.normal(n, 16), d.normal(12, 16), d.normal(3, 16), d.normal(12, 3), d.normal(12)],
        dora_hand,
        wrt=("a", "b", "m"),
    ),
)
