"""Products of products, in the order that moves least: kernel matrices that need not be made, diagonal and outer products."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form


def linear_attention(q, k, v):
    return (q @ k.T) @ v


def linear_attention_hand(q, k, v, g):
    s = k.T @ v
    ds = q.T @ g
    return q @ s, (g @ s.T, v @ ds.T, k @ ds)


def normalised_attention(q, k, v):
    a = q.square() @ k.square().T
    return (a / a.sum(1, keepdim=True)) @ v


def normalised_attention_hand(q, k, v, g):
    f, h = q.square(), k.square()
    s, z = h.T @ v, h.sum(0)
    below = (f @ z)[:, None]
    share = f / below
    o = share @ s
    dshare = g @ s.T
    r = (dshare * share).sum(1)
    df = (dshare - torch.outer(r, z)) / below
    ds = share.T @ g
    dh = v @ ds.T - r @ share
    return o, (2 * q * df, 2 * k * dh, h @ ds)


def galerkin(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    return q @ k.T @ v / x.shape[0]


def galerkin_hand(x, wq, wk, wv, g):
    q, k, v, n = x @ wq, x @ wk, x @ wv, x.shape[0]
    s = k.T @ v / n
    dq, ds = g @ s.T, q.T @ g / n
    dk, dv = v @ ds.T, k @ ds
    return q @ s, (dq @ wq.T + dk @ wk.T + dv @ wv.T, x.T @ dq, x.T @ dk, x.T @ dv)


def cubic(x):
    return (x @ x.T) @ x


def cubic_hand(x, g):
    c, m = x.T @ x, x.T @ g
    return x @ c, (g @ c + x @ (m + m.T),)


def gram_norm(x):
    return ((x @ x.T) ** 2).sum()


def gram_norm_hand(x, g):
    c = x.T @ x
    return (c * c).sum(), (x @ (c * (4 * g)),)


def style(f, t):
    c, m = f.shape
    return ((f @ f.T / (c * m) - t) ** 2).sum()


def style_hand(f, t, g):
    c, m = f.shape
    r = f @ f.T / (c * m) - t
    return (r * r).sum(), (((r + r.T) * (2 * g / (c * m))) @ f,)


def hsic(x, y):
    n = x.shape[0]
    h = torch.eye(n, dtype=x.dtype) - 1 / n
    return torch.trace(h @ (x @ x.T) @ h @ (y @ y.T)) / (n - 1) ** 2


def hsic_hand(x, y, g):
    n = x.shape[0]
    x, y = x - x.mean(0), y - y.mean(0)
    c = x.T @ y
    dc = c * (2 * g / (n - 1) ** 2)
    return (c * c).sum() / (n - 1) ** 2, (y @ dc.T, x @ dc)


def kernel_alignment(x, y):
    n = x.shape[0]
    h = torch.eye(n, dtype=x.dtype) - 1 / n
    k, m = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()


def kernel_alignment_hand(x, y, g):
    x, y = x - x.mean(0), y - y.mean(0)
    c, a, b = y.T @ x, x.T @ x, y.T @ y
    aa, bb = (a * a).sum(), (b * b).sum()
    i = (aa * bb).rsqrt()
    o, k = (c * c).sum() * i, 2 * g
    return o, (y @ (c * (k * i)) - x @ (a * (k * o / aa)), x @ (c.T * (k * i)) - y @ (b * (k * o / bb)))


def coral(s, t):
    n, d = s.shape
    cs = (s - s.mean(0)).T @ (s - s.mean(0)) / (n - 1)
    ct = (t - t.mean(0)).T @ (t - t.mean(0)) / (n - 1)
    return ((cs - ct) ** 2).sum() / (4 * d * d)


def coral_hand(s, t, g):
    n, d = s.shape
    s, t = s - s.mean(0), t - t.mean(0)
    r = (s.T @ s - t.T @ t) / (n - 1)
    k = r * (g / (d * d * (n - 1)))
    return (r * r).sum() / (4 * d * d), (s @ k, t @ -k)


def decov(x):
    x = x - x.mean(0)
    c = x.T @ x / x.shape[0]
    return ((c**2).sum() - (c.diagonal() ** 2).sum()) / 2


def decov_hand(x, g):
    n = x.shape[0]
    x = x - x.mean(0)
    c = x.T @ x / n
    d = c.diagonal()
    out = ((c * c).sum() - (d * d).sum()) / 2
    k = c * (2 * g / n)
    k.diagonal().zero_()
    return out, (x @ k,)


def sum_of_rows(x, w):
    return (x @ w).sum(0)


def sum_of_rows_hand(x, w, g):
    s = x.sum(0)
    return s @ w, ((w @ g).expand_as(x), torch.outer(s, g))


def graph_layer(x, a, w):
    d = torch.diag(a.sum(1) ** -0.5)
    return torch.relu(d @ a @ d @ x @ w)


def graph_layer_hand(x, a, w, g):
    s = a.sum(1).rsqrt()[:, None]
    o = ((a @ ((x @ w) * s)) * s).relu()
    dm = torch.ops.aten.threshold_backward(g, o, 0)
    t = (a.T @ (dm * s)) * s
    return o, (t @ w.T, x.T @ t)


def planar_flow(z, u, w, b):
    h = torch.tanh(z @ w + b)
    psi = (1 - h**2)[:, None] * w
    return ((z + h[:, None] * u) ** 2).sum(1) / 2 - (1 + psi @ u).abs().log()


def planar_flow_hand(z, u, w, b, g):
    h = torch.tanh(z @ w + b)
    s, wu = 1 - h * h, w @ u
    det, f = 1 + s * wu, torch.addr(z, h, u)
    df = f * g[:, None]
    da = (df @ u + g / det * 2 * h * wu) * s
    dwu = -(g * s / det).sum()
    return (f * f).sum(1) / 2 - det.abs().log(), (
        torch.addr(df, da, w),
        df.T @ h + dwu * w,
        z.T @ da + dwu * u,
        da.sum(),
    )


CONTRACTIONS = (
    Form(
        "linear attention without softmax",
        linear_attention,
        lambda d, n: [d.normal(n, 3), d.normal(n, 3), d.normal(n, 4)],
        linear_attention_hand,
        batches=(1, 9),
    ),
    Form(
        "linear attention over row sums",
        normalised_attention,
        lambda d, n: [d.normal(n, 4), d.normal(n, 4), d.normal(n, 5)],
        normalised_attention_hand,
        batches=(1, 12),
    ),
    Form(
        "galerkin attention",
        galerkin,
        lambda d, n: [d.normal(n, 4), d.normal(4, 3), d.normal(4, 3), d.normal(4, 3)],
        galerkin_hand,
        batches=(1, 12),
    ),
    Form("x xT x", cubic, lambda d, n: [d.normal(n, 3)], cubic_hand, batches=(1, 9)),
    Form("gram norm", gram_norm, lambda d, n: [d.normal(n, 3)], gram_norm_hand, batches=(1, 9)),
    Form(
        "style loss",
        style,
        lambda d, n: [d.normal(3, 4 * n), d.normal(3, 3)],
        style_hand,
        wrt=("f",),
    ),
    Form("hsic", hsic, lambda d, n: [d.normal(n, 3), d.normal(n, 2)], hsic_hand, batches=(9,)),
    Form(
        "kernel alignment",
        kernel_alignment,
        lambda d, n: [d.normal(n, 3), d.normal(n, 2)],
        kernel_alignment_hand,
        batches=(9,),
    ),
    # What the forward centres is centred in the backward, too, as accuracy at an offset needs it; by hand it is not.
    Form("deep coral", coral, lambda d, n: [d.normal(n, 6), d.normal(n, 6)], coral_hand, batches=(3, 5), ratio=1.6),
    Form("decov", decov, lambda d, n: [d.normal(n, 6)], decov_hand, batches=(3, 5), ratio=1.6),
    Form("sum of rows", sum_of_rows, lambda d, n: [d.normal(n, 6), d.normal(6, 7)], sum_of_rows_hand),
    Form(
        "graph layer by diagonal matrices",
        graph_layer,
        lambda d, n: [d.normal(n, 6), d.positive(n, n), d.normal(6, 3)],
        graph_layer_hand,
        wrt=("x", "w"),
        twice=False,
    ),
    Form(
        "planar flow",
        planar_flow,
        lambda d, n: [d.normal(n, 6), d.normal(6) / 3, d.normal(6) / 3, d.normal(1).squeeze(0)],
        planar_flow_hand,
    ),
)
