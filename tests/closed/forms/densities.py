"""Logarithms of densities as they are written in books, with powers of tensors: what is left are exponents and logarithms."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def binomial(x, k, n):
    p = torch.sigmoid(x)
    return -torch.log(p**k * (1 - p) ** (n - k)).mean()


def binomial_hand(x, k, n, g):
    d = torch.addcmul(-k, n, x.sigmoid()) * (g / len(x))
    return torch.addcmul(n * F.softplus(x, threshold=40), k, x, value=-1).mean(), (d,)


def weibull(x, k, t):
    scale = torch.exp(x)
    return -torch.log(k / scale * (t / scale) ** (k - 1) * torch.exp(-((t / scale) ** k))).mean()


def weibull_hand(x, k, t, g):
    log, c = t.log(), g / len(x)
    u = log - x
    ku = k * u
    w = ku.exp()
    return (w - ku + log - k.log()).mean(), ((1 - w) * k * c, ((w - 1) * u - 1 / k) * c)


DENSITIES = (
    Form(
        "binomial by powers",
        binomial,
        lambda d, n: [d.normal(n), d.classes(5, n).to(d.dtype), d.classes(5, n).to(d.dtype) + 5],
        binomial_hand,
        ("x",),
        extreme=True,
    ),
    Form(
        "weibull by powers",
        weibull,
        lambda d, n: [d.normal(n), d.positive(n), d.positive(n)],
        weibull_hand,
        ("x", "k"),
        ratio=2.25,  # the hand version takes times for positive, and needs no choices at 0
    ),
)
