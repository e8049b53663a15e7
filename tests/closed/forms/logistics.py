"""Logistic losses under masks and weights, by quotients, with floors, and of differences: one softplus serves both classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def masked(d, n):
    return [d.normal(n, 8), d.classes(2, n, 8).to(d.dtype), d.positive(n, 8)]


# Gensheimer and Narasimhan, A scalable discrete-time survival model for neural networks, 2019
def hazards(x, e, m):
    h = torch.sigmoid(x)
    event = m * e * torch.log(h)
    none = m * (1 - e) * torch.log(1 - h)
    return -(event + none).sum() / m.sum()


def hazards_hand(x, e, m, g):
    total = m.sum()
    return (m * (F.softplus(x) - e * x)).sum() / total, ((torch.sigmoid(x) - e) * m * (g / total),)


def weighted(x, e, p, m):
    h = torch.sigmoid(x)
    return -(m * (p * e * torch.log(h) + (1 - e) * torch.log(1 - h))).sum() / m.sum()


def weighted_hand(x, e, p, m, g):
    pe = p * e
    k, total = 1 - e + pe, m.sum()
    out = (torch.addcmul(F.softplus(x) * k, pe, x, value=-1) * m).sum() / total
    return out, (torch.addcmul(-pe, torch.sigmoid(x), k) * m * (g / total),)


def floored(x, e, m):
    h = torch.sigmoid(x)
    return -(m * (e * torch.log(h + 1e-7) + (1 - e) * torch.log(1 - h + 1e-7))).sum() / m.sum()


def floored_hand(x, e, m, g):
    h = torch.sigmoid(x)
    a, b, total = h + 1e-7, 1 - h + 1e-7, m.sum()
    out = -(m * torch.lerp(b.log(), a.log(), e)).sum() / total
    return out, (torch.ops.aten.sigmoid_backward((e / a - (1 - e) / b) * m * (-g / total), h),)


# Gutmann and Hyvärinen, Noise-contrastive estimation, 2010; the hand version takes the noise for positive
def noise_contrastive(s, t, q, r):
    k = t.shape[1]
    p = torch.exp(s) / (torch.exp(s) + k * q)
    n = torch.exp(t) / (torch.exp(t) + k * r)
    return -(torch.log(p) + torch.log(1 - n).sum(1)).mean()


def noise_contrastive_hand(s, t, q, r, g):
    n, k = t.shape
    a, b = torch.log(q * k) - s, t - torch.log(r * k)
    out = (F.softplus(a) + F.softplus(b).sum(1)).mean()
    return out, (torch.sigmoid(a) * (-g / n), torch.sigmoid(b) * (g / n))


# Burges et al., Learning to rank using gradient descent, 2005
def ranknet(a, b, t):
    d = a - b
    return (F.softplus(d) - t * d).mean()


def ranknet_hand(a, b, t, g):
    d = a - b
    da = (torch.sigmoid(d) - t) * (g / d.numel())
    return torch.addcmul(F.softplus(d), t, d, value=-1).mean(), (da, -da)


LOGISTICS = (
    Form("hazards under a mask", hazards, masked, hazards_hand, ("x",), extreme=True),
    Form("weighted logistic", weighted, lambda d, n: [*masked(d, n), d.positive(n, 8)], weighted_hand, ("x",)),
    Form("logistic with a floor", floored, masked, floored_hand, ("x",)),
    Form(
        "noise contrastive",
        noise_contrastive,
        lambda d, n: [d.normal(n), d.normal(n, 9), d.positive(n), d.positive(n, 9)],
        noise_contrastive_hand,
        ("s", "t"),
        ratio=1.55,
        extreme=True,
    ),
    Form("ranknet with targets", ranknet, lambda d, n: [d.normal(n), d.normal(n), d.unit(n)], ranknet_hand, ("a", "b")),
)
