"""Gradients of tables that rows are taken from: what is added where an integer tensor says is a statement of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

C, K = 8, 20


# Movshovitz-Attias et al., No fuss distance metric learning using proxies, 2017
def proxy_nca(x, p, y):
    d = ((x[:, None, :] - p[None, :, :]) ** 2).sum(-1)
    logits = -d
    return (-logits.gather(1, y[:, None]).squeeze(1) + torch.logsumexp(logits, 1)).mean()


def proxy_nca_hand(x, p, y, g):
    n = len(y)
    s = torch.addmm((-(p * p).sum(1))[None], x, p.T, alpha=2)
    q = F.log_softmax(s, 1)
    i = torch.arange(n)
    out = -q[i, y].mean()
    d = q.exp() * (2 * g / n)
    d[i, y] -= 2 * g / n
    return out, (d @ p, torch.addcmul(d.T @ x, d.sum(0)[:, None], p, value=-1))


# Mikolov et al., Distributed representations of words and phrases and their compositionality, 2013
def nce(c, o, neg):
    pos = (c * o).sum(1)
    ns = torch.bmm(neg, c.unsqueeze(2)).squeeze(2)
    return -(F.logsigmoid(pos) + F.logsigmoid(-ns).sum(1)).mean()


def nce_hand(c, o, neg, g):
    pos = (c * o).sum(1, keepdim=True)
    ns = torch.bmm(neg, c[:, :, None])[..., 0]
    n = len(c)
    out = -(F.logsigmoid(pos).sum() + F.logsigmoid(-ns).sum()) / n
    gn = g / n
    dp = torch.sigmoid(-pos) * -gn
    dn = torch.sigmoid(ns) * gn
    dc = torch.addcmul((dn[:, None] @ neg)[:, 0], dp, o)
    return out, (dc, dp * c, dn[:, :, None] * c[:, None])


def personalised_ranking(U, V, u, i, j):
    liked, other = (U[u] * V[i]).sum(1), (U[u] * V[j]).sum(1)
    penalty = U[u].pow(2).sum() + V[i].pow(2).sum() + V[j].pow(2).sum()
    return -torch.log(torch.sigmoid(liked - other)).mean() + 0.01 * penalty / u.shape[0]


def personalised_ranking_hand(U, V, u, i, j, g):
    n, a, b, c = len(u), U[u], V[i], V[j]
    d = b - c
    z = (a * d).sum(1)
    out = F.softplus(-z).mean() + 0.01 * (a.square().sum() + b.square().sum() + c.square().sum()) / n
    w = (-torch.sigmoid(-z) * (g / n))[:, None]
    k = 0.02 * g / n
    dU = torch.zeros_like(U).index_add_(0, u, torch.addcmul(k * a, w, d))
    wa = w * a
    return out, (dU, torch.zeros_like(V).index_add_(0, i, wa + k * b).index_add_(0, j, k * c - wa))


TABLES = (
    Form(
        "bayesian personalised ranking",
        personalised_ranking,
        lambda d, n: [d.normal(20, 8), d.normal(30, 8), d.classes(20, n), d.classes(30, n), d.classes(30, n)],
        personalised_ranking_hand,
    ),
    Form(
        "proxy nca",
        proxy_nca,
        lambda d, n: [d.normal(n, C), d.normal(K, C), d.classes(K, n)],
        proxy_nca_hand,
    ),
    Form("negative sampling", nce, lambda d, n: [d.normal(n, C), d.normal(n, C), d.normal(n, 5, C)], nce_hand),
)
