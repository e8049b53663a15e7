"""Distances of rows from rows: what is summed over the differences are products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

A = torch.ops.aten


def squares(x, y):
    return (x * x).sum(1, keepdim=True) - 2 * x @ y.T + (y * y).sum(1)


def pulled(x, y, d):
    """Of d_ij (x_i - y_j)^2 / 2: what x and y get."""
    return x * d.sum(1, keepdim=True) - d @ y, y * d.sum(0)[:, None] - d.T @ x


def prototypes(x, c, y):
    d = ((x[:, None] - c[None]) ** 2).sum(-1)
    p = torch.exp(-d) / torch.exp(-d).sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


def prototypes_hand(x, c, y, g):
    i = torch.arange(x.shape[0])
    s = 2 * x @ c.T - (c * c).sum(1)
    lse = s.logsumexp(1, keepdim=True)
    d = (s - lse).exp()
    d[i, y] -= 1
    d = d * (2 * g / x.shape[0])
    return (lse.squeeze(1) - s[i, y]).mean(), (d @ c, d.T @ x - c * d.sum(0)[:, None])


def distance_matrix(x, y):
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1).sqrt()


def distance_matrix_hand(x, y, g):
    d = squares(x, y).sqrt()
    return d, pulled(x, y, g / d)


def soft_assignment(x, c):
    d = (x[:, None] - c).pow(2).sum(-1)
    return ((-d).softmax(1) * d).sum()


def soft_assignment_hand(x, c, g):
    d = squares(x, c)
    r = (-d).softmax(1)
    rd = r * d
    s = rd.sum(1, keepdim=True)
    return s.sum(), pulled(x, c, (r * (1 + s) - rd) * (2 * g))


def rbf_network(x, c, b, w):
    diff = x[:, None] - c
    return torch.exp(-(diff * diff).sum(2) * b) @ w


def rbf_network_hand(x, c, b, w, g):
    d = squares(x, c)
    k = (-d * b).exp()
    m = g @ w.T * k
    return k @ w, (*pulled(x, c, m * (-2 * b)), -(m * d).sum(0), k.T @ g)


def residuals(x, c, w):
    a = (x @ w).softmax(-1)
    r = x[:, :, None] - c
    return (a[..., None] * r).sum(1)


def residuals_hand(x, c, w, g):
    a = (x @ w).softmax(-1)
    s = a.sum(1)[..., None]
    da = x @ g.mT - (g * c).sum(-1)[:, None]
    ds = a * (da - (da * a).sum(-1, keepdim=True))
    dw = x.flatten(0, 1).T @ ds.flatten(0, 1)
    return torch.baddbmm(-(s * c), a.mT, x), (a @ g + ds @ w.T, -(g * s).sum(0), dw)


def student_clusters(x, c, p):
    q = 1 / (1 + ((x[:, None] - c) ** 2).sum(-1))
    q = q / q.sum(1, keepdim=True)
    return (p * (p / q).log()).sum()


def student_clusters_hand(x, c, p, g):
    u = squares(x, c) + 1
    k = 1 / u
    z = k.sum(1, keepdim=True)
    q = k / z
    d = (p - q * p.sum(1, keepdim=True)) * k * (2 * g)
    return (p * (p / q).log()).sum(), pulled(x, c, d)


def stress(y, target):
    return ((((y[:, None] - y[None]) ** 2).sum(-1) - target) ** 2).sum()


def stress_hand(y, target, g):
    r = squares(y, y) - target
    m = r + r.T
    return (r * r).sum(), ((y * m.sum(1, keepdim=True) - m @ y) * (4 * g),)


def uniform(x, y):
    """Alignment of pairs and uniformity on the sphere (Wang and Isola 2020)."""
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    d = ((x[:, None] - x[None]) ** 2).sum(2)
    return ((x - y) ** 2).sum(1).mean() + (-2 * d).exp().mean().log()


def uniform_hand(x, y, g):
    n = len(x)
    r, s = (t.norm(dim=1, keepdim=True).clamp_min(1e-12) for t in (x, y))
    u, v = x / r, y / s
    k = torch.exp(4 * (u @ u.T) - 4)
    total = k.sum()
    out = (2 - 2 * (u * v).sum(1)).mean() + torch.log(total / (n * n))
    du, dv = (k @ u) * (8 * g / total) - v * (2 * g / n), u * (-2 * g / n)
    return out, tuple((d - a * (d * a).sum(1, keepdim=True)) / q for d, a, q in ((du, u, r), (dv, v, s)))


DISTANCES = (
    Form(
        "alignment and uniformity", uniform, lambda d, n: [d.normal(n, 6), d.normal(n, 6)], uniform_hand, batches=(2, 5)
    ),
    Form("prototypes", prototypes, lambda d, n: [d.normal(n, 8), d.normal(7, 8), d.classes(7, n)], prototypes_hand),
    Form(
        "distance matrix",
        distance_matrix,
        lambda d, n: [d.normal(n, 8), d.normal(n + 1, 8)],
        distance_matrix_hand,
    ),
    Form("soft assignment", soft_assignment, lambda d, n: [d.normal(n, 8), d.normal(5, 8)], soft_assignment_hand),
    Form(
        "rbf network",
        rbf_network,
        lambda d, n: [d.normal(n, 8), d.normal(12, 8), d.positive(12) / 4, d.normal(12, 3)],
        rbf_network_hand,
    ),
    Form(
        "residuals of clusters",
        residuals,
        lambda d, n: [d.normal(3, n, 8), d.normal(5, 8), d.normal(8, 5)],
        residuals_hand,
        large=16,
    ),
    Form(
        "student clusters",
        student_clusters,
        lambda d, n: [d.normal(n, 8), d.normal(5, 8), d.unit(n, 5)],
        student_clusters_hand,
        wrt=("x", "c"),
    ),
    Form("stress", stress, lambda d, n: [d.normal(n, 3), d.positive(n, n)], stress_hand, wrt=("y",)),
)
