"""Diagonals and places of a class that are set or masked; slopes that are chosen by the sign of what they are the slope at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

A = torch.ops.aten


def all_classes_hinge(x, y):
    n = x.shape[0]
    m = torch.clamp(x - x[torch.arange(n), y].view(-1, 1) + 1, min=0)
    m[torch.arange(n), y] = 0
    return m.sum() / n


def all_classes_hinge_hand(x, y, g):
    n = x.shape[0]
    r = torch.arange(n)
    m = (x - x[r, y][:, None] + 1).relu()
    m[r, y] = 0
    d = (m > 0) * (g / n)
    d[r, y] = -d.sum(1)
    return m.sum() / n, (d,)


def self_loops(x, a, w):
    a = a + torch.eye(a.shape[0], dtype=a.dtype)
    d = a.sum(1) ** -0.5
    return torch.relu((d[:, None] * a * d[None, :]) @ x @ w)


def self_loops_hand(x, a, w, g):
    a = a.clone()
    a.diagonal().add_(1)
    d = a.sum(1).rsqrt()
    an = d[:, None] * a * d
    xa = an @ x
    o = (xa @ w).relu()
    do = A.threshold_backward(g, o, 0)
    return o, (an.T @ (do @ w.T), xa.T @ do)


def two_views(a, b):
    z = torch.cat([a, b])
    z = z / z.norm(dim=1, keepdim=True)
    n = a.shape[0]
    s = (z @ z.T / 0.5).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    t = torch.cat([torch.arange(n, 2 * n), torch.arange(0, n)])
    return -torch.log_softmax(s, 1)[torch.arange(2 * n), t].mean()


def two_views_hand(a, b, g):
    n = a.shape[0]
    x = torch.cat([a, b])
    r = (x * x).sum(1, keepdim=True).rsqrt()
    z = x * r
    s = (z @ z.T * 2).fill_diagonal_(-math.inf)
    lse = s.logsumexp(1, keepdim=True)
    i = torch.arange(2 * n)
    t = torch.cat([i[n:], i[:n]])
    d = (s - lse).exp()
    d[i, t] -= 1
    d = d * (g / n)
    dz = (d + d.T) @ z
    dx = r * (dz - z * (dz * z).sum(1, keepdim=True))
    return (lse.squeeze(1) - s[i, t]).mean(), (dx[:n], dx[n:])


def attention_of_pairs(h, w, u, a, adj):
    left, right = h @ w, h @ u
    e = F.leaky_relu(left[:, None] + right[None], 0.2) @ a
    return e.masked_fill(adj == 0, float("-inf")).softmax(-1) @ right


def attention_of_pairs_hand(h, w, u, a, adj, g):
    left, right = h @ w, h @ u
    s = left[:, None] + right
    t = F.leaky_relu(s, 0.2)
    p = (t @ a).masked_fill(adj == 0, float("-inf")).softmax(-1)
    o = p @ right
    de = p * (g @ right.T - (g * o).sum(1, keepdim=True))
    dt = A.leaky_relu_backward(de[..., None] * a, s, 0.2, False)
    dl, dr = dt.sum(1), dt.sum(0) + p.T @ g
    da = t.flatten(0, 1).T @ de.reshape(-1)
    return o, (dl @ w.T + dr @ u.T, h.T @ dl, h.T @ dr, da)


def neighbours(d, n):
    adj = (d.unit(n, n) > 0.5).to(d.dtype)
    return adj + torch.eye(n, dtype=d.dtype)


def discriminator(t, f):
    return F.softplus(-t).mean() + F.softplus(f).mean()


def discriminator_hand(t, f, g):
    n = len(t)
    return F.softplus(-t).mean() + F.softplus(f).mean(), ((-t).sigmoid() * (-g / n), f.sigmoid() * (g / n))


def decoder(x, z, w, b):
    p = 1 / (1 + torch.exp(-(z @ w + b)))
    return -(x * torch.log(p) + (1 - x) * torch.log(1 - p)).sum(1).mean()


def decoder_hand(x, z, w, b, g):
    n = x.shape[0]
    s = z @ w + b
    d = (s.sigmoid() - x) * (g / n)
    return (F.softplus(s) - x * s).sum() / n, (d @ w.T, z.T @ d, d.sum(0))


def orthogonal_rows(a):
    return ((a @ a.T - torch.eye(a.shape[0], dtype=a.dtype)) ** 2).sum()


def orthogonal_rows_hand(a, g):
    m = a @ a.T
    m.diagonal().sub_(1)
    return (m * m).sum(), (m @ a * (4 * g),)


def style(f, target):
    gram = f @ f.T / f.shape[1]
    return ((gram - target @ target.T / target.shape[1]) ** 2).mean()


def style_hand(f, target, g):
    c, n = f.shape
    d = f @ f.T / n - target @ target.T / target.shape[1]
    return (d * d).mean(), (d @ f * (4 * g / (c * c * n)),)


def quantiles(p, y, q):
    e = y[:, None] - p
    return torch.where(e >= 0, q * e, (q - 1) * e).sum(1).mean()


def quantiles_hand(p, y, q, g):
    e = y[:, None] - p
    k = q - (e < 0).to(e.dtype)
    return (k * e).sum() / e.shape[0], (k * (-g / e.shape[0]),)


def quantile_huber(p, t):
    k = p.shape[1]
    tau = (torch.arange(k, dtype=p.dtype) + 0.5) / k
    u = t[:, None, :] - p[:, :, None]
    h = torch.where(u.abs() <= 1, 0.5 * u**2, u.abs() - 0.5)
    return ((tau[:, None] - (u.detach() < 0).to(p.dtype)).abs() * h).mean(2).sum(1).mean()


def quantile_huber_hand(p, t, g):
    n, k = p.shape
    m = t.shape[1]
    tau = (torch.arange(k, dtype=p.dtype) + 0.5) / k
    u = t[:, None, :] - p[:, :, None]
    w = torch.where(u < 0, 1 - tau[:, None], tau[:, None])
    h = torch.nn.functional.huber_loss(*torch.broadcast_tensors(t[:, None], p[:, :, None]), reduction="none")
    return (w * h).sum() / (n * m), ((w * u.clamp(-1, 1)).sum(2) * (-g / (n * m)),)


def soft_f1(x, y):
    p = torch.sigmoid(x)
    tp, fp, fn = (p * y).sum(0), (p * (1 - y)).sum(0), ((1 - p) * y).sum(0)
    return (1 - 2 * tp / (2 * tp + fp + fn + 1e-8)).mean()


def soft_f1_hand(x, y, g):
    p = x.sigmoid()
    tp = (p * y).sum(0)
    r = 1 / (p.sum(0) + y.sum(0) + 1e-8)
    f = 2 * tp * r
    dp = (f - 2 * y) * (r * (g / x.shape[1]))
    return (1 - f).mean(), (A.sigmoid_backward(dp, p),)


CHOICES = (
    Form("soft F1", soft_f1, lambda d, n: [d.normal(n, 20), d.unit(n, 20)], soft_f1_hand, wrt=("x",), batches=(3, 5)),
    Form(
        "quantiles",
        quantiles,
        lambda d, n: [d.normal(n, 7), d.normal(n), d.unit(7)],
        quantiles_hand,
        wrt=("p",),
        twice=False,
    ),
    Form(
        "quantile Huber",
        quantile_huber,
        lambda d, n: [d.normal(n, 5), d.normal(n, 10)],
        quantile_huber_hand,
        wrt=("p",),
        twice=False,
    ),
    Form("orthogonal rows", orthogonal_rows, lambda d, n: [d.normal(n, 20)], orthogonal_rows_hand),
    Form("style of two images", style, lambda d, n: [d.normal(n, 30), d.normal(n, 40)], style_hand, wrt=("f",)),
    Form(
        "hinge over all classes",
        all_classes_hinge,
        lambda d, n: [d.normal(n, 20), d.classes(20, n)],
        all_classes_hinge_hand,
        twice=False,
    ),
    Form(
        "graph with self-loops",
        self_loops,
        lambda d, n: [d.normal(n, 8), d.unit(n, n), d.normal(8, 5)],
        self_loops_hand,
        wrt=("x", "w"),
        twice=False,
    ),
    Form(
        "two views", two_views, lambda d, n: [d.normal(n, 8), d.normal(n, 8)], two_views_hand, batches=(2, 5), large=48
    ),
    Form(
        "attention of pairs",
        attention_of_pairs,
        lambda d, n: [d.normal(n, 6), d.normal(6, 4), d.normal(6, 4), d.normal(4), neighbours(d, n)],
        attention_of_pairs_hand,
        wrt=("h", "w", "u", "a"),
        large=24,
        twice=False,
    ),
    Form("discriminator", discriminator, lambda d, n: [d.normal(n), d.normal(n)], discriminator_hand),
    Form(
        "Bernoulli decoder",
        decoder,
        lambda d, n: [d.unit(n, 20), d.normal(n, 5), d.normal(5, 20), d.normal(20)],
        decoder_hand,
        wrt=("z", "w", "b"),
    ),
)
