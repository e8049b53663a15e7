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


# Bishop 1994: a mixture's density as it is written down, a sum of shares times densities, far from all of its means
def mixture(mu, a, ls, y):
    p = a.exp() / a.exp().sum(1, keepdim=True)
    s = ls.exp()
    q = (-0.5 * ((y[:, None] - mu) / s[..., None]) ** 2).sum(2)
    density = q.exp() / (s * math.sqrt(2 * math.pi)) ** y.shape[1]
    return -(p * density).sum(1).log().mean()


def mixture_hand(mu, a, ls, y, g):
    n, _, k = mu.shape
    i = (-ls).exp()
    z = (y[:, None] - mu) * i[..., None]
    z2 = z.square().sum(2)
    t = a - 0.5 * z2 - k * ls
    la, loss = a.logsumexp(1, keepdim=True), t.logsumexp(1, keepdim=True)
    out = (la - loss).mean() + 0.5 * k * math.log(2 * math.pi)
    r = (t - loss).exp() * (g / n)
    return (out, (z * (r * -i)[..., None], (a - la).exp() * (g / n) - r, r * (k - z2)))


def weighted_mixture(mu, w, s, y):
    density = (-0.5 * ((y[:, None] - mu) / s) ** 2).exp() / (s * math.sqrt(2 * math.pi))
    return -(w * density).sum(1).log().mean()


def weighted_mixture_hand(mu, w, s, y, g):
    z = (y[:, None] - mu) / s
    z2 = z * z
    m = z2.amin(1)
    e = ((z2 - m[:, None]) * -0.5).exp() / s
    ew = e * w
    total = ew.sum(1)
    c = (-g / len(y) / total)[:, None]
    r = ew * c / s
    return (0.5 * m.mean() - total.log().mean() + 0.5 * math.log(2 * math.pi), (r * z, e * c, r * (z2 - 1)))


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
    Form(
        "mixture of densities",
        mixture,
        lambda d, n: [d.normal(n, 4, 3), d.normal(n, 4), d.normal(n, 4), d.normal(n, 3)],
        mixture_hand,
        wrt=("mu", "a", "ls"),
        extreme=True,
    ),
    Form(
        "mixture of weighted densities",
        weighted_mixture,
        lambda d, n: [d.normal(n, 4), d.positive(n, 4), d.positive(n, 4), d.normal(n)],
        weighted_mixture_hand,
        wrt=("mu", "w", "s"),
        ratio=1.3,  # the number in front of each density is multiplied with before the sum
        extreme=True,
    ),
)
