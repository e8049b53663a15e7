"""What is computed once and kept: roots and sums that several terms are made of, clamps for choices by size, sums of clamps."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

K = 20


# Beaton and Tukey, The fitting of power series, 1974; Belagiannis et al., Robust optimization for deep regression, 2015
def biweight(p, y):
    e = (p - y) / 4.685
    r = 4.685**2 / 6
    return torch.where(e.abs() <= 1, r * (1 - (1 - e**2) ** 3), torch.full_like(e, r)).mean()


def biweight_hand(p, y, g):
    e = (p - y) / 4.685
    u = (1 - e * e).clamp(min=0)
    u2 = u * u
    return (4.685**2 / 6) * (1 - u2 * u).mean(), (e * u2 * (4.685 * g / e.numel()),)


# Hinich and Talwar, A simple method for robust regression, 1975
def truncated_squares(p, y):
    e = (p - y) / 2.795
    return torch.where(e.abs() < 1, e**2 / 2, torch.full_like(e, 0.5)).mean()


def truncated_squares_hand(p, y, g):
    e = (p - y) / 2.795
    c = e.clamp(-1, 1)
    return (c * c).mean() / 2, (torch.where(e.abs() < 1, e * (g / (2.795 * e.numel())), 0),)


# Lewis, Fast normalized cross-correlation, 1995
def cross_correlation(x, y):
    a, b = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return -((a * b).mean(1) / (x.std(1, unbiased=False) * y.std(1, unbiased=False))).mean()


def cross_correlation_hand(x, y, g):
    a, b = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    ra, rb = ((c * c).sum(1, keepdim=True).rsqrt() for c in (a, b))
    ah, bh = a * ra, b * rb
    c = (ah * bh).sum(1, keepdim=True)
    return -c.mean(), ((bh - ah * c) * (ra * (-g / len(x))),)


# Barron, Continuously differentiable exponential linear units, 2017, as torch's documentation has it
def celu_by_clamps(x):
    return torch.clamp(x, min=0) + torch.clamp(2 * (torch.exp(x / 2) - 1), max=0)


def celu_by_clamps_hand(x, g):
    e = (x.clamp(max=0) / 2).exp()
    return x.relu() + 2 * (e - 1), (g * (e + (x == 0)),)  # where x is 0 both clamps pass


# Jorgensen, Exponential dispersion models, 1987, with the power 3/2 and a logarithmic link
def tweedie_three_halves(x, y):
    mu = torch.exp(x)
    return (-y * mu ** (-0.5) / (-0.5) + mu**0.5 / 0.5).mean()


def tweedie_three_halves_hand(x, y, g):
    s = (x / 2).exp()
    t = y / s
    return (2 * (t + s)).mean(), ((s - t) * (g / x.numel()),)


# Singh and Krishnan, Filter response normalization layer, 2020
def filter_response(x, w, b, t):
    nu2 = x.pow(2).mean((2, 3), keepdim=True)
    return torch.max(w * x * torch.rsqrt(nu2 + 1e-6) + b, t)


def filter_response_hand(x, w, b, t, g):
    r = ((x * x).mean((2, 3), keepdim=True) + 1e-6).rsqrt()
    h = x * r
    y = h * w + b
    m = g * (y > t)
    s = (m * h).sum((2, 3), keepdim=True)
    dx = r * w * (m - h * (s / (x.shape[2] * x.shape[3])))
    axes = (0, 2, 3)
    sums = s.sum(0, keepdim=True), m.sum(axes, keepdim=True), (g - m).sum(axes, keepdim=True)
    return torch.maximum(y, t), (dx, *sums)


# the thresholded linear unit of the same, after an affine map, smoothed by nothing
def thresholded(x, w, b, t):
    return torch.maximum(x * w + b, t)


def thresholded_hand(x, w, b, t, g):
    y = x * w + b
    m = g * (y > t)
    return torch.maximum(y, t), (m * w, (m * x).sum(0), m.sum(0), (g - m).sum(0))


def channels(d, n):
    return [d.normal(n, 6, 3, 4), d.positive(1, 6, 1, 1), d.normal(1, 6, 1, 1), d.normal(1, 6, 1, 1)]


def pairs(d, n):
    return [3 * d.normal(n, K), 3 * d.normal(n, K)]


# Sabour, Frosst and Hinton, Dynamic routing between capsules, 2017
def capsules(s, y):
    length = (s**2).sum(-1, keepdim=True)
    v = length / (1 + length) * s / (length + 1e-9).sqrt()
    norm = (v**2).sum(-1).sqrt()
    t = torch.nn.functional.one_hot(y, s.shape[1]).to(s.dtype)
    return (t * torch.relu(0.9 - norm) ** 2 + 0.5 * (1 - t) * torch.relu(norm - 0.1) ** 2).sum(1).mean()


def capsules_hand(s, y, g):
    q = s.square().sum(-1)
    u, h, r = q + 1, (q + 1e-9).rsqrt(), q.sqrt()
    norm = q * r * h / u
    rows = torch.arange(s.shape[0])
    over, short = torch.relu(norm - 0.1), torch.relu(0.9 - norm[rows, y])
    lost = 0.5 * over.square()
    lost[rows, y] = short.square()
    over[rows, y] = -2 * short
    dq = over * (g / s.shape[0]) * r * h / u * (1.5 - q / u - 0.5 * q * h * h)
    return lost.sum(1).mean(), (s * (2 * dq).unsqueeze(-1),)


# Hawkes, Spectra of some self-exciting and mutually exciting point processes, 1971
def self_exciting(t, mu, a, b, end):
    d = t[:, None] - t[None]
    k = torch.where(d > 0, torch.exp(-b * d), torch.zeros_like(d))
    rate = mu + a * b * k.sum(1)
    return mu * end + a * (1 - torch.exp(-b * (end - t))).sum() - torch.log(rate).sum()


def self_exciting_hand(t, mu, a, b, end, g):
    d = t[:, None] - t
    k = torch.where(d > 0, torch.exp(-b * d), 0)
    s, left = k.sum(1), end - t
    rate = mu + a * b * s
    e = torch.exp(-b * left)
    over = len(t) - e.sum()
    c = -g / rate
    cs = c @ s
    db = a * (cs - b * (c @ (k * d).sum(1)) + g * (e @ left))
    return mu * end + a * over - rate.log().sum(), (c.sum() + g * end, b * cs + g * over, db)


# Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, 2009
def personal_ranking(users, items, u, i, j):
    a = users[u]
    better = (a * items[i]).sum(1) - (a * items[j]).sum(1)
    return -torch.log(torch.sigmoid(better)).mean()


def personal_ranking_hand(users, items, u, i, j, g):
    a, d = users[u], items[i] - items[j]
    x = (a * d).sum(1)
    s = torch.sigmoid(-x) * (-g / len(x))
    di = a * s[:, None]
    du = torch.zeros_like(users).index_add_(0, u, d * s[:, None])
    dv = torch.zeros_like(items).index_add_(0, i, di).index_add_(0, j, di, alpha=-1)
    return -torch.nn.functional.logsigmoid(x).mean(), (du, dv)


ONCE = (
    Form(
        "self-exciting",
        self_exciting,
        lambda d, n: [d.unit(n).cumsum(0), d.positive(), d.unit(), d.positive(), d.positive() + n],
        self_exciting_hand,
        ("mu", "a", "b"),
    ),
    Form(
        "personal ranking",
        personal_ranking,
        lambda d, n: [d.normal(9, 6), d.normal(9, 6), d.classes(9, n), d.classes(9, n), d.classes(9, n)],
        personal_ranking_hand,
        ("users", "items"),
    ),
    Form("biweight", biweight, pairs, biweight_hand, wrt=("p",), twice=False),
    Form("truncated squares", truncated_squares, pairs, truncated_squares_hand, wrt=("p",), twice=False),
    Form("filter response", filter_response, channels, filter_response_hand, large=16),
    Form(
        "thresholded",
        thresholded,
        lambda d, n: [d.normal(n, K), d.normal(K), d.normal(K), d.normal(K)],
        thresholded_hand,
    ),
    Form(
        "normalised cross-correlation",
        cross_correlation,
        lambda d, n: [d.normal(n, K), d.normal(n, K)],
        cross_correlation_hand,
        wrt=("x",),
    ),
    Form("celu by clamps", celu_by_clamps, lambda d, n: [d.normal(n, K)], celu_by_clamps_hand),
    Form(
        "tweedie of 3/2",
        tweedie_three_halves,
        lambda d, n: [d.normal(n, K), d.positive(n, K)],
        tweedie_three_halves_hand,
        wrt=("x",),
    ),
    Form(
        "capsules",
        capsules,
        lambda d, n: [d.normal(n, 10, 8), d.classes(10, n)],
        capsules_hand,
        wrt=("s",),
        twice=False,
        large=32,
    ),
)
