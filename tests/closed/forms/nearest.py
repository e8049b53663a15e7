"""What is nearest, largest or wanted of all pairs: the pairs are compared, and only those that are picked have a gradient."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form


def all_pairs(x, y):
    return (x * x).sum(1, keepdim=True) - 2 * (x @ y.T) + (y * y).sum(1)


# MacQueen 1967, k-means
def kmeans(x, c):
    d = ((x[:, None] - c[None]) ** 2).sum(-1)
    return d.min(1).values.mean()


def kmeans_hand(x, c, g):
    least, at = all_pairs(x, c).min(1)
    dx = (x - c[at]) * (2 * g / x.shape[0])
    return least.mean(), (dx, torch.zeros_like(c).index_add_(0, at, dx, alpha=-1))


# Fan, Su, Guibas 2017, the Chamfer distance of two sets of points
def chamfer(a, b):
    d = ((a[:, None] - b[None]) ** 2).sum(-1)
    return d.min(1).values.mean() + d.min(0).values.mean()


def chamfer_hand(a, b, g):
    d = all_pairs(a, b)
    (u, i), (v, j) = d.min(1), d.min(0)
    e, f = (a - b[i]) * (2 * g / a.shape[0]), (b - a[j]) * (2 * g / b.shape[0])
    return u.mean() + v.mean(), (e.index_add(0, j, f, alpha=-1), f.index_add(0, i, e, alpha=-1))


# Hermans et al. 2017, triplets of the farthest of the same class and the nearest of another
def batch_hard(x, y):
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    same = y[:, None] == y[None]
    far = torch.where(same, d, 0.0).max(1).values
    near = torch.where(same, 1e6, d).min(1).values
    return (far - near + 1).clamp(min=0).mean()


def batch_hard_hand(x, y, g):
    d = all_pairs(x, x)
    same = y[:, None] == y
    (p, i), (q, j) = torch.where(same, d, 0.0).max(1), torch.where(same, 1e6, d).min(1)
    h = p - q + 1
    k = torch.where(h > 0, 2 * g / x.shape[0], 0.0).unsqueeze(1)
    u, v = (x - x[i]) * k, (x - x[j]) * k
    return h.clamp(min=0).mean(), ((u - v).index_add_(0, i, u, alpha=-1).index_add_(0, j, v),)


# Khattab, Zaharia 2020, ColBERT: every token of a query by the most similar one of a document
def late_interaction(q, d):
    return (q @ d.T).max(1).values.sum()


def late_interaction_hand(q, d, g):
    most, at = (q @ d.T).max(1)
    return most.sum(), (d[at] * g, torch.zeros_like(d).index_add_(0, at, q * g))


# the mean score of the wanted class, of a linear classifier
def wanted(x, w, y):
    return (x @ w.T)[torch.arange(x.shape[0]), y].mean()


def wanted_hand(x, w, y, g):
    rows, k = w[y], g / x.shape[0]
    return (x * rows).sum(1).mean(), (rows * k, torch.zeros_like(w).index_add_(0, y, x * k))


# Moody, Darken 1989: the bump of the nearest centre
def nearest_bump(x, c):
    return (-((x[:, None] - c[None]) ** 2).sum(-1)).exp().max(1).values.mean()


def nearest_bump_hand(x, c, g):
    most, at = (-all_pairs(x, c)).exp().max(1)
    dx = (x - c[at]) * (most * (-2 * g / x.shape[0])).unsqueeze(1)
    return most.mean(), (dx, torch.zeros_like(c).index_add_(0, at, dx, alpha=-1))


# Formal et al. 2021, SPLADE: the weights of terms are the largest of log(1 + relu) over a text's tokens, kept few by a penalty
def lexical(x):
    w = torch.log(1 + torch.relu(x)).max(1).values
    return (w.abs().mean(0) ** 2).sum()


def lexical_hand(x, g):
    w, at = x.relu().log1p().max(1, keepdim=True)
    m = w.mean(0)
    d = m * (2 * g / x.shape[0]) * (-w).exp() * (w > 0)
    return (m**2).sum(), (torch.zeros_like(x).scatter_(1, at, d),)


NEAREST = (
    Form("k-means", kmeans, lambda d, n: [d.normal(n, 8), d.normal(max(n // 2, 1), 8)], kmeans_hand),
    Form("chamfer distance", chamfer, lambda d, n: [d.normal(n, 3), d.normal(max(n // 2, 1), 3)], chamfer_hand),
    Form("batch hard triplets", batch_hard, lambda d, n: [d.normal(n, 8), d.classes(5, n)], batch_hard_hand, batches=(2, 5)),
    Form("late interaction", late_interaction, lambda d, n: [d.normal(n, 8), d.normal(max(n // 2, 1), 8)], late_interaction_hand, ratio=1.35),
    Form("wanted scores", wanted, lambda d, n: [d.normal(n, 8), d.normal(40, 8), d.classes(40, n)], wanted_hand),
    Form("nearest bump", nearest_bump, lambda d, n: [d.normal(n, 8) / 3, d.normal(max(n // 2, 1), 8) / 3], nearest_bump_hand),
    Form("lexical weights", lexical, lambda d, n: [d.normal(n, 24, 12)], lexical_hand, twice=False),
)  # fmt: skip
