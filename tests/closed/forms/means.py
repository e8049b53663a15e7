# pyright: basic
"""Means of classes, Laplacians of graphs, hinges on what whole columns have: what is chosen or added for rows meets the tensor last."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def prototypes(s, ys, q, yq):
    """Prototypes are the means of the classes of a support set (Snell et al. 2017)."""
    one_hot = F.one_hot(ys, 4).to(s.dtype)
    c = (one_hot.T @ s) / one_hot.sum(0)[:, None]
    e = (-((q[:, None] - c[None]) ** 2).sum(-1)).exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(len(q)), yq].log().mean()


def prototypes_hand(s, ys, q, yq, g):
    n = torch.bincount(ys, minlength=4).to(s.dtype)[:, None]
    c = torch.zeros(4, s.shape[1], dtype=s.dtype).index_add_(0, ys, s) / n
    scores = 2 * q @ c.T - (c * c).sum(1)
    lse = scores.logsumexp(1, keepdim=True)
    i = torch.arange(len(q))
    d = (scores - lse).exp()
    d[i, yq] -= 1
    d *= 2 * g / len(q)
    dc = (d.T @ q - c * d.sum(0)[:, None]) / n
    return (lse[:, 0] - scores[i, yq]).mean(), (dc[ys], d @ c)


def laplacian(x, w):
    """The quotient that Laplacian eigenmaps minimise (Belkin and Niyogi 2003)."""
    d = w.sum(1)
    lap = torch.diag(d) - w
    return torch.trace(x.T @ lap @ x) / (x * x * d[:, None]).sum()


def laplacian_hand(x, w, g):
    d = w.sum(1, keepdim=True)
    dx = d * x
    lx = dx - w @ x
    b = (x * x).sum(1)
    top, bottom = (x * lx).sum(), (b * d[:, 0]).sum()
    r, k = top / bottom, g / bottom
    dw = (b * ((1 - r) * k))[:, None] - (x * k) @ x.T
    return r, ((lx + dx * (1 - 2 * r) - w.T @ x) * k, dw)


def variance_term(x, t):
    """The hinge on the deviation of every column of VICReg (Bardes et al. 2022)."""
    return torch.relu(t - (x.var(0) + 1e-4).sqrt()).mean()


def variance_term_hand(x, t, g):
    n, d = x.shape
    u = x - x.mean(0)
    s = ((u * u).sum(0) / (n - 1) + 1e-4).sqrt()
    k = torch.where(t > s, g / d, 0.0)
    return (t - s).clamp_min(0).mean(), (u * (-k / (s * (n - 1))), k.sum())


MEANS = (
    Form(
        "prototypes of means",
        prototypes,
        lambda d, n: [d.normal(n, 8), torch.arange(n) % 4, d.normal(n + 1, 8), d.classes(4, n + 1)],
        prototypes_hand,
        batches=(4, 7),
    ),
    Form("laplacian eigenmap", laplacian, lambda d, n: [d.normal(n, 4), d.unit(n, n)], laplacian_hand, batches=(2, 5)),
    Form(
        "variance term",
        variance_term,
        lambda d, n: [d.normal(n, 8), d.positive()],
        variance_term_hand,
        batches=(3, 5),
    ),
)
