"""Scores of forecasts and advantages of samples: sums of multiples in one another."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form


# Gneiting et al. 2005: dCRPS/dmu = 1 - 2 Phi(z), dCRPS/dsigma = 2 phi(z) - 1/sqrt(pi)
def crps(mu, ls, y):
    sigma = ls.exp()
    z = (y - mu) / sigma
    phi = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return (sigma * (z * (2 * cdf - 1) + 2 * phi - 1 / math.sqrt(math.pi))).mean()


def crps_hand(mu, ls, y, g):
    s = ls.exp()
    d = y - mu
    z = d / s
    e = torch.erf(z * math.sqrt(0.5))
    q = torch.exp(z * z * -0.5) * (2 / math.sqrt(2 * math.pi)) - 1 / math.sqrt(math.pi)
    sq = s * q
    c = g / mu.numel()
    return ((d * e + sq).mean(), (e * -c, sq * c))


# Kool, van Hoof, Welling 2019, Ahmadian et al. 2024: every sample's baseline is the mean of the others
def leave_one_out(lp, r):
    base = (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)
    return -((r - base).detach() * lp).mean()


def leave_one_out_hand(lp, r, g):
    k = r.shape[1]
    a = (r - r.mean(1, keepdim=True)) * (k / (k - 1))
    return (-(a * lp).mean(), (a * (-g / lp.numel()),))


# Of two normal distributions by their means and the logarithms of their variances
def normals(m, lv, mu, lw):
    return (0.5 * (lw - lv) + (lv.exp() + (m - mu) ** 2) / (2 * lw.exp()) - 0.5).sum(1).mean()


def normals_hand(m, lv, mu, lw, g):
    r, d = m - mu, lv - lw
    e, i = d.exp(), (-lw).exp()
    ri = r * i
    t = e + r * ri
    c = g / len(m)
    dm = ri * c
    return ((t - d - 1).sum() / (2 * len(m)), (dm, (e - 1) * (c / 2), -dm, (1 - t) * (c / 2)))


SCORES = (
    Form("crps of a normal", crps, lambda d, n: [d.normal(n), d.normal(n), d.normal(n)], crps_hand, wrt=("mu", "ls")),
    Form(
        "leave one out",
        leave_one_out,
        lambda d, n: [d.normal(n, 12), d.normal(n, 12)],
        leave_one_out_hand,
        wrt=("lp",),
        twice=False,
    ),
    Form("kl of two normals", normals, lambda d, n: [d.normal(n, 12) for _ in range(4)], normals_hand),
)
