"""Deviations from means with weights, and from those of rows and columns."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form

K = 48


def weighted_variance(x, w):
    total = w.sum()
    m = (w * x).sum() / total
    return (w * (x - m) ** 2).sum() / total


def weighted_variance_hand(x, w, g):
    total = w.sum()
    r = x - (w * x).sum() / total
    wr = w * r
    v = (wr * r).sum() / total
    k = g / total
    return v, (wr * (2 * k), (r * r - v) * k)


def distance_covariance(x, y):
    """Székely et al. 2007."""
    a, b = (x[:, None] - x[None]).abs(), (y[:, None] - y[None]).abs()
    a, b = (c - c.mean(0, keepdim=True) - c.mean(1, keepdim=True) + c.mean() for c in (a, b))
    return (a * b).mean()


def distance_covariance_hand(x, y, g):
    n = len(x)
    u, v = x[:, None] - x, y[:, None] - y
    a, b = u.abs(), v.abs()
    p, q = a.mean(1), b.mean(1)
    a = a - p - (p - p.mean())[:, None]
    b = b - q - (q - q.mean())[:, None]
    k = 2 * g / n**2
    return (a * b).mean(), ((b * u.sign()).sum(1) * k, (a * v.sign()).sum(1) * k)


def concordance(x, y):
    """One less Lin's coefficient (1989)."""
    mx, my = x.mean(), y.mean()
    together = ((x - mx) * (y - my)).mean()
    return 1 - 2 * together / (x.var(unbiased=False) + y.var(unbiased=False) + (mx - my) ** 2)


def concordance_hand(x, y, g):
    n = len(x)
    mx, my = x.mean(), y.mean()
    a, b, d = x - mx, y - my, mx - my
    whole = (a * a).mean() + (b * b).mean() + d * d
    r = 2 * (a * b).mean() / whole
    k = -2 * g / (n * whole)
    return 1 - r, (k * b - (k * r) * a - k * r * d,)


def si_sdr(x, y):
    """The scale-invariant signal-to-distortion ratio in decibels (Le Roux et al. 2019), to be minimised."""
    target = (x * y).sum(-1, keepdim=True) / (y * y).sum(-1, keepdim=True) * y
    return -(10 * torch.log10((target**2).sum(-1) / ((x - target) ** 2).sum(-1))).mean()


def si_sdr_hand(x, y, g):
    xy = (x * y).sum(-1)
    scale = xy / (y * y).sum(-1)
    e = x - scale[:, None] * y
    ee = (e * e).sum(-1)
    k = -10 / math.log(10)
    c = 2 * k * g / len(x)
    return k * (scale * xy / ee).log().mean(), ((c / xy)[:, None] * y - (c / ee)[:, None] * e,)


DEVIATIONS = (
    Form(
        "weighted variance",
        weighted_variance,
        lambda d, n: [d.normal(n), d.positive(n)],
        weighted_variance_hand,
        batches=(3, 5),
        large=512,
    ),
    Form(
        "distance covariance",
        distance_covariance,
        lambda d, n: [d.normal(n), d.normal(n)],
        distance_covariance_hand,
        batches=(3, 5),
        twice=False,
    ),
    Form(
        "concordance",
        concordance,
        lambda d, n: [d.normal(n), d.normal(n)],
        concordance_hand,
        ("x",),
        (3, 5),
        512,
    ),
    Form("si-sdr", si_sdr, lambda d, n: [d.normal(n, K), d.normal(n, K)], si_sdr_hand, ("x",)),
)
