"""Sums over pairs of angles, of atoms and of rows, and rows that are looked up and read twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


# Kuramoto (1975) by the order parameter: Sum_j sin(t_j - t_i) = cos t_i S - sin t_i C
def kuramoto(theta, omega, coupling):
    diff = theta.unsqueeze(0) - theta.unsqueeze(1)
    return omega + coupling / theta.shape[0] * torch.sin(diff).sum(1)


def kuramoto_hand(t, o, k, g):
    n = t.numel()
    s, c = (t.sin(), t.cos())
    s_sum, c_sum = (s.sum(), c.sum())
    q = (s_sum * c - c_sum * s) / n
    dt = k / n * (c * (g @ c) + s * (g @ s) - g * (s_sum * s + c_sum * c))
    return (o + k * q, (dt, g, g @ q))


# Mardia, Jupp, Directional Statistics (2000): the mean cosine of all differences is the squared mean resultant length
def resultant(x):
    return torch.cos(x[:, :, None] - x[:, None, :]).mean((1, 2))


def resultant_hand(x, g):
    s, c = (x.sin(), x.cos())
    s_mean, c_mean = (s.mean(1, keepdim=True), c.mean(1, keepdim=True))
    out = (s_mean * s_mean + c_mean * c_mean).squeeze(1)
    k = (2 / x.shape[1] * g).unsqueeze(1)
    return (out, (c * (s_mean * k) - s * (c_mean * k),))


# bonds of a force field, Levitt, Lifson (1969): the force along a bond is k (r - r0) times its direction
def bonds(x, pairs, k, r0):
    i, j = pairs[0], pairs[1]
    r = torch.sqrt(((x[i] - x[j]) ** 2).sum(-1))
    return 0.5 * (k * (r - r0) ** 2).sum()


def bonds_hand(x, pairs, k, r0, g):
    i, j = (pairs[0], pairs[1])
    d = x[i] - x[j]
    r = torch.linalg.vector_norm(d, dim=-1)
    e = r - r0
    ke = k * e * g
    f = d * (ke / r).unsqueeze(1)
    dx = torch.zeros_like(x).index_add_(0, i, f).index_add_(0, j, -f)
    return ((k * e * e).sum() / 2, (dx, e * e * (g / 2), -ke))


# Frosst, Papernot, Hinton 2019, soft nearest neighbour loss
def soft_nearest(x, y):
    n = len(x)
    d2 = ((x[:, None] - x[None]) ** 2).sum(-1)
    e = torch.exp(-d2) * (1 - torch.eye(n, dtype=x.dtype))
    same = (y[:, None] == y[None, :]).to(x.dtype)
    return -torch.log((e * same).sum(1) / e.sum(1)).mean()


def soft_nearest_hand(x, y, g):
    n = len(x)
    x = x - x.mean(0)
    e = torch.cdist(x, x).square().neg().exp().fill_diagonal_(0)
    es = e * (y[:, None] == y)
    a, s = (e.sum(1), es.sum(1))
    w = e / a.unsqueeze(1) - es / s.unsqueeze(1)
    dx = (w @ x + w.T @ x - x * (w.sum(0) + w.sum(1)).unsqueeze(1)) * (2 * g / n)
    return ((a / s).log().mean(), (dx,))


# Koren, Bell, Volinsky 2009: e = r - r^, db = -2 e, dp = 2 (lambda p - e q), each added to its row
def factorisation(u, i, r, p, q, bu, bi):
    e = r - ((p[u] * q[i]).sum(1) + bu[u] + bi[i] + 3.5)
    return (e**2).mean() + 0.02 * (p[u].pow(2).sum(1) + q[i].pow(2).sum(1)).mean()


def factorisation_hand(u, i, r, p, q, bu, bi, g):
    n = len(u)
    a, b = (p[u], q[i])
    e = r - ((a * b).sum(1) + bu[u] + bi[i] + 3.5)
    out = (e * e).mean() + 0.02 / n * ((a * a).sum() + (b * b).sum())
    c = 2 * g / n
    ec = (e * c).unsqueeze(1)
    dp = torch.zeros_like(p).index_add_(0, u, a * (0.02 * c) - b * ec)
    dq = torch.zeros_like(q).index_add_(0, i, b * (0.02 * c) - a * ec)
    du = torch.zeros_like(bu).index_add_(0, u, -ec.squeeze(1))
    di = torch.zeros_like(bi).index_add_(0, i, -ec.squeeze(1))
    return (out, (dp, dq, du, di))


# Rendle et al. 2009, Bayesian personalised ranking with the penalty of the rows of a batch
def ranked(u, i, j, p, q):
    a, b, c = p[u], q[i], q[j]
    x = (a * (b - c)).sum(1)
    return -torch.log(torch.sigmoid(x)).sum() + 0.01 * ((a**2).sum() + (b**2).sum() + (c**2).sum())


def ranked_hand(u, i, j, p, q, g):
    a, b, c = (p[u], q[i], q[j])
    d = b - c
    x = (a * d).sum(1)
    out = F.softplus(-x).sum() + 0.01 * ((a * a).sum() + (b * b).sum() + (c * c).sum())
    s = (torch.sigmoid(-x) * g).unsqueeze(1)
    w = 0.02 * g
    sa = a * s
    dp = torch.zeros_like(p).index_add_(0, u, a * w - d * s)
    dq = torch.zeros_like(q).index_add_(0, i, b * w - sa).index_add_(0, j, c * w + sa)
    return (out, (dp, dq))


# Zhai et al. 2021, an attention free transformer (simple): p = softmax(k) over positions, dk = p dc (v - c)
def attention_free(q, k, v):
    w = torch.exp(k)
    return torch.sigmoid(q) * ((w * v).sum(1, keepdim=True) / w.sum(1, keepdim=True))


def attention_free_hand(q, k, v, g):
    e = (k - k.amax(1, keepdim=True)).exp()
    z = e.sum(1, keepdim=True)
    c = (e * v).sum(1, keepdim=True) / z
    s = q.sigmoid()
    dv = e * ((g * s).sum(1, keepdim=True) / z)
    return (s * c, (torch.ops.aten.sigmoid_backward(g * c, s), dv * (v - c), dv))


# Boyd, Vandenberghe 2004, 11.2: the gradient of the barrier is A^T (1 / slack)
def barrier(x, a, b, c):
    return (x @ c).sum() - 0.1 * torch.log(b - x @ a.T).sum()


def barrier_hand(x, a, b, c, g):
    slack = b - x @ a.T
    return ((x @ c).sum() - 0.1 * slack.log().sum(), ((c + (0.1 / slack) @ a) * g,))


PAIRS = (
    Form("angles of all pairs", kuramoto, lambda d, n: [d.normal(n), d.normal(n), d.positive()], kuramoto_hand, batches=(3, 5)),
    Form("mean cosine of differences", resultant, lambda d, n: [d.normal(n, 12)], resultant_hand),
    Form(
        "bonds of atoms",
        bonds,
        lambda d, n: [
            d.normal(n, 3),
            torch.stack([torch.arange(n - 1), torch.arange(1, n)]),
            d.positive(n - 1),
            d.positive(n - 1),
        ],
        bonds_hand,
        wrt=("x", "k", "r0"),
        batches=(4, 6),
    ),
    Form(
        "soft nearest neighbours",
        soft_nearest,
        lambda d, n: [d.normal(n, 6) * 0.5, torch.arange(n) % 2],
        soft_nearest_hand,
        wrt=("x",),
        batches=(4, 6),
    ),
    Form(
        "factorisation with penalty",
        factorisation,
        lambda d, n: [
            d.classes(9, n),
            d.classes(8, n),
            d.normal(n),
            d.normal(9, 8),
            d.normal(8, 8),
            d.normal(9),
            d.normal(8),
        ],
        factorisation_hand,
        wrt=("p", "q", "bu", "bi"),
    ),
    Form(
        "ranked rows with penalty",
        ranked,
        lambda d, n: [d.classes(9, n), d.classes(8, n), d.classes(8, n), d.normal(9, 8), d.normal(8, 8)],
        ranked_hand,
        wrt=("p", "q"),
    ),
    Form(
        "attention free",
        attention_free,
        lambda d, n: [d.normal(n, 6, 5), d.normal(n, 6, 5), d.normal(n, 6, 5)],
        attention_free_hand,
    ),
    Form(
        "log barrier",
        barrier,
        lambda d, n: [d.normal(n, 6) * 0.1, d.normal(10, 6), d.positive(10) + 2, d.normal(6)],
        barrier_hand,
        wrt=("x",),
    ),
)  # fmt: skip
