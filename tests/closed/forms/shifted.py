"""Logarithms of shares by hand, of logits that the largest is subtracted from first: log(exp(z) / Sum exp(z)) = z - log Sum exp(z)."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form


def log_shares(x):
    z = x - x.max(1, keepdim=True)[0]
    return z - torch.log(torch.exp(z).sum(1, keepdim=True))


def log_shares_hand(x, g):
    """Bishop 2006, equation 4.106: what is passed back is the cotangent less the shares times its sum."""
    lp = x.log_softmax(1)
    return lp, (g - lp.exp() * g.sum(1, keepdim=True),)


def shifted_cross_entropy(x, y):
    z = x / 0.7
    z = z - z.amax(1, keepdim=True)
    return (torch.log(torch.exp(z).sum(1)) - z[torch.arange(len(y)), y]).mean()


def shifted_cross_entropy_hand(x, y, g):
    n = len(x)
    r = torch.arange(n)
    lp = (x / 0.7).log_softmax(1)
    d = lp.exp() * (g / (0.7 * n))
    d[r, y] -= g / (0.7 * n)
    return -lp[r, y].mean(), (d,)


def sampled_softmax(u, v, i, logq):
    s = u @ v[i].T - logq[None, :]
    z = s - s.max(1, keepdim=True).values
    lp = z - torch.log(torch.exp(z).sum(1, keepdim=True))
    return -torch.trace(lp) / u.shape[0]


def sampled_softmax_hand(u, v, i, logq, g):
    """Yi et al. 2019, "Sampling-bias-corrected neural modeling": the others of a batch are the negatives, less their frequencies."""
    n, vi = len(u), v[i]
    lp = torch.addmm(-logq, u, vi.T).log_softmax(1)
    d = lp.exp() * (g / n)
    d.diagonal().sub_(g / n)
    return -lp.diagonal().sum() / n, (d @ vi, torch.zeros_like(v).index_add_(0, i, d.T @ u))


def pairs(d, n):
    return [d.normal(n, 8), d.normal(100, 8), d.classes(100, n), d.normal(n)]


SHIFTED = (
    Form("log shares shifted", log_shares, lambda d, n: [d.normal(n, 10)], log_shares_hand, extreme=True),
    Form(
        "cross-entropy shifted",
        shifted_cross_entropy,
        lambda d, n: [d.normal(n, 10), d.classes(10, n)],
        shifted_cross_entropy_hand,
        extreme=True,
    ),
    Form("sampled softmax", sampled_softmax, pairs, sampled_softmax_hand, wrt=("u", "v"), extreme=True),
)
