"""Objectives of policies whose log-probabilities are written as logits less the logarithm of their sum."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

K = 12


def entropy(x):
    logp = x - x.exp().sum(1, keepdim=True).log()
    return -(logp.exp() * logp).sum(1).mean()


def entropy_hand(x, g):
    logp = x.log_softmax(1)
    p = logp.exp()
    h = (p * logp).sum(1, keepdim=True)
    return -h.mean(), ((logp - h) * p * (-g / x.shape[0]),)


def proximal(x, a, old, adv):
    logp = x - x.exp().sum(1, keepdim=True).log()
    ratio = (logp[torch.arange(a.shape[0]), a] - old).exp()
    worst = torch.min(ratio * adv, torch.clamp(ratio, 0.8, 1.2) * adv)
    return -worst.mean() + 0.01 * (logp.exp() * logp).sum(1).mean()


def proximal_hand(x, a, old, adv, g):
    n = x.shape[0]
    rows = torch.arange(n)
    logp = x.log_softmax(1)
    p = logp.exp()
    ratio = (logp[rows, a] - old).exp()
    gain, clipped = ratio * adv, ratio.clamp(0.8, 1.2) * adv
    pl = p * logp
    h = pl.sum(1, keepdim=True)
    out = 0.01 * h.mean() - torch.min(gain, clipped).mean()
    c = gain * (gain <= clipped) * (g / n)
    k = 0.01 * g / n
    dx = torch.addcmul(pl * k, p, c[:, None] - k * h)
    dx[rows, a] -= c
    return out, (dx,)


POLICIES = (
    Form("entropy of log-probabilities", entropy, lambda d, n: [d.normal(n, K)], entropy_hand, extreme=True),
    Form(
        "proximal policy",
        proximal,
        lambda d, n: [d.normal(n, K), d.classes(K, n), -2.5 * d.positive(n), d.normal(n)],
        proximal_hand,
        wrt=("x",),
        twice=False,
        extreme=True,
    ),
)
