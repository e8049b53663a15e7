"""Softmax, cross-entropy and their family; losses on probabilities and on logits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 48


def softmax(x):
    e = x.exp()
    return e / e.sum(1, keepdim=True)


def softmax_hand(x, g):
    p = x.softmax(1)
    return p, (p * (g - (g * p).sum(1, keepdim=True)),)


def softmax_shifted(x):
    m = x.max(1, keepdim=True).values
    e = (x - m).exp()
    return e / e.sum(1, keepdim=True)


def softmax_temperature(x, t):
    e = (x / t).exp()
    return e / e.sum(1, keepdim=True)


def softmax_temperature_hand(x, t, g):
    p = (x / t).softmax(1)
    d = p * (g - (g * p).sum(1, keepdim=True)) / t
    return p, (d, -(d * x).sum() / t)


def log_softmax(x):
    return x - x.exp().sum(1, keepdim=True).log()


def log_softmax_hand(x, g):
    out = x - x.logsumexp(1, keepdim=True)
    return out, (g - out.exp() * g.sum(1, keepdim=True),)


def log_of_softmax(x):
    e = x.exp()
    return (e / e.sum(1, keepdim=True)).log()


def cross_entropy_naive(x, y):
    e = x.exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


def cross_entropy_hand(x, y, g):
    n = x.shape[0]
    rows = torch.arange(n)
    lse = x.logsumexp(1, keepdim=True)
    loss = (lse.squeeze(1) - x[rows, y]).mean()
    d = (x - lse).exp() * (g / n)
    d[rows, y] -= g / n
    return loss, (d,)


def cross_entropy_makemore(logits, y):
    n = logits.shape[0]
    logit_maxes = logits.max(1, keepdim=True).values
    norm_logits = logits - logit_maxes
    counts = norm_logits.exp()
    counts_sum = counts.sum(1, keepdims=True)
    counts_sum_inv = counts_sum**-1
    probs = counts * counts_sum_inv
    logprobs = probs.log()
    return -logprobs[range(n), y].mean()


def cross_entropy_torch(x, y):
    return F.cross_entropy(x, y)


def cross_entropy_onehot(x, t):
    return -(t * x.log_softmax(1)).sum(1).mean()


def soft_cross_entropy_hand(x, t, g):
    n = x.shape[0]
    lp = x.log_softmax(1)
    return -(t * lp).sum() / n, ((lp.exp() * t.sum(1, keepdim=True) - t) * (g / n), lp * (-g / n))


def label_smoothing(x, y):
    n, _k = x.shape
    lp = x - x.exp().sum(1, keepdim=True).log()
    return -(0.9 * lp[torch.arange(n), y] + 0.1 * lp.mean(1)).mean()


def label_smoothing_hand(x, y, g):
    n, k = x.shape
    rows = torch.arange(n)
    lse = x.logsumexp(1, keepdim=True)
    loss = (lse.squeeze(1) - 0.9 * x[rows, y] - 0.1 * x.mean(1)).mean()
    d = ((x - lse).exp() - 0.1 / k) * (g / n)
    d[rows, y] -= 0.9 * g / n
    return loss, (d,)


def nll(lp, y):
    return -lp[torch.arange(lp.shape[0]), y].mean()


def nll_hand(lp, y, g):
    n = lp.shape[0]
    rows = torch.arange(n)
    d = torch.zeros_like(lp)
    d[rows, y] = -g / n
    return -lp[rows, y].mean(), (d,)


def kl(x, z):
    p = x.exp() / x.exp().sum(1, keepdim=True)
    q = z.exp() / z.exp().sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1).mean()


def kl_hand(x, z, g):
    n = x.shape[0]
    lp, lq = x.log_softmax(1), z.log_softmax(1)
    p = lp.exp()
    r = lp - lq
    per = (p * r).sum(1, keepdim=True)
    return per.mean(), (p * (r - per) * (g / n), (lq.exp() - p) * (g / n))


def logsumexp(x):
    return x.exp().sum(1).log()


def logsumexp_hand(x, g):
    out = x.logsumexp(1)
    return out, ((x - out.unsqueeze(1)).exp() * g.unsqueeze(1),)


def bce_naive(x, y):
    p = 1 / (1 + (-x).exp())
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def bce_sigmoid(x, y):
    p = torch.sigmoid(x)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def bce_stable(x, y):
    return (x.clamp(min=0) - x * y + (1 + (-x.abs()).exp()).log()).mean()


def bce_stable_hand(x, y, g):
    """At x = 0, where clamp and abs have kinks, torch's convention is 1 - y and not sigmoid(0) - y."""
    e = (-x.abs()).exp()
    loss = (x.clamp(min=0) - x * y + e.log1p()).mean()
    return loss, (((x >= 0).to(x.dtype) - y - x.sign() * (e / (1 + e))) * (g / x.numel()),)


def bce_logits(x, y):
    return F.binary_cross_entropy_with_logits(x, y)


def bce_hand(x, y, g):
    n = x.numel()
    loss = (F.softplus(x) - x * y).mean()
    return loss, ((x.sigmoid() - y) * (g / n),)


def bce_probabilities(p, y):
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def bce_probabilities_hand(p, y, g):
    loss = -(y * p.log() + (1 - y) * torch.log1p(-p)).mean()
    return loss, ((p - y) / (p * (1 - p)) * (g / p.numel()),)


def huber(x, y):
    r = x - y
    a = r.abs()
    return torch.where(a < 1, 0.5 * r * r, a - 0.5).mean()


def huber_hand(x, y, g):
    r = x - y
    a = r.abs()
    loss = torch.where(a < 1, 0.5 * r * r, a - 0.5).mean()
    d = r.clamp(-1, 1) * (g / r.numel())
    return loss, (d, -d)


def mse(x, y):
    return ((x - y) ** 2).mean()


def mse_hand(x, y, g):
    r = x - y
    d = r * (2 * g / r.numel())
    return (r * r).mean(), (d, -d)


def gaussian_nll(m, s, y):
    return (0.5 * (math.log(2 * math.pi) + s.log() + (y - m) ** 2 / s)).mean()


def gaussian_nll_hand(m, s, y, g):
    n = m.numel()
    r = m - y
    u = r / s
    loss = 0.5 * (s.log() + r * u).mean() + 0.5 * math.log(2 * math.pi)
    dm = u * (g / n)
    return loss, (dm, (1 / s - u * u) * (0.5 * g / n), -dm)


def vae_kl(mu, logvar):
    return (-0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)).mean()


def vae_kl_hand(mu, logvar, g):
    n = mu.shape[0]
    e = logvar.exp()
    loss = (logvar - mu * mu - e + 1).sum() * (-0.5 / n)
    return loss, (mu * (g / n), (e - 1) * (0.5 * g / n))


def focal(x, y):
    e = x.exp()
    p = e / e.sum(1, keepdim=True)
    pt = p[torch.arange(x.shape[0]), y]
    return (-((1 - pt) ** 2) * pt.log()).mean()


def focal_hand(x, y, g):
    n = x.shape[0]
    rows = torch.arange(n)
    lse = x.logsumexp(1, keepdim=True)
    p = (x - lse).exp()
    lpt = x[rows, y] - lse.squeeze(1)
    pt = lpt.exp()
    q = 1 - pt
    loss = (-q * q * lpt).mean()
    c = (2 * q * pt * lpt - q * q) * (g / n)
    d = p * -c.unsqueeze(1)
    d[rows, y] += c
    return loss, (d,)


def focal_choice(x, y):
    p = 1 / (1 + torch.exp(-x))
    pt = torch.where(y == 1, p, 1 - p)
    weight = torch.where(y == 1, 0.25, 0.75).to(x.dtype)
    return (-weight * (1 - pt) ** 2 * torch.log(pt)).mean()


def focal_choice_hand(x, y, g):
    """Lin et al. 2017, "Focal loss", appendix B: by the logit of what came out, x or -x."""
    m = y == 1
    lp = F.logsigmoid(torch.where(m, x, -x))
    p = lp.exp()
    q = 1 - p
    aq = torch.where(m, 0.25, 0.75) * q
    d = aq * q * (2 * p * lp - q) * (g / x.numel())
    return -(aq * q * lp).mean(), (torch.where(m, d, -d),)


def triplet(a, p, n):
    dp = ((a - p) ** 2).sum(1)
    dn = ((a - n) ** 2).sum(1)
    return (dp - dn + 1).clamp(min=0).mean()


def triplet_hand(a, p, n, g):
    u, v = a - p, a - n
    m = (u * u).sum(1) - (v * v).sum(1) + 1
    k = (m > 0).to(a.dtype).unsqueeze(1) * (2 * g / a.shape[0])
    du, dv = u * k, v * k
    return m.clamp(min=0).mean(), (du - dv, -du, dv)


def infonce(a, b):
    s = a @ b.T / 0.1
    n = a.shape[0]
    e = s.exp()
    p = e / e.sum(1, keepdim=True)
    i = torch.arange(n)
    return -p[i, i].log().mean()


def infonce_hand(a, b, g):
    n = a.shape[0]
    s = (a @ b.T) / 0.1
    lse = s.logsumexp(1, keepdim=True)
    loss = (lse.squeeze(1) - s.diagonal()).mean()
    d = (s - lse).exp() * (g / n / 0.1)
    d.diagonal().sub_(g / n / 0.1)
    return loss, (d @ b, d.T @ a)


def clip(a, b):
    s = a @ b.T / 0.1
    y = torch.arange(a.shape[0])
    return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2


def hinge(x, y):
    return (1 - x * y).clamp(min=0).mean()


def hinge_hand(x, y, g):
    m = 1 - x * y
    k = (m > 0).to(x.dtype) * (-g / x.numel())
    return m.clamp(min=0).mean(), (y * k,)


def logistic_loss(x, y):
    return (1 + (-x * y).exp()).log().mean()


def logistic_loss_hand(x, y, g):
    m = x * y
    k = torch.sigmoid(-m) * (-g / x.numel())
    return -F.logsigmoid(m).mean(), (y * k,)


def entropy(x):
    p = x.softmax(1)
    return -(p * p.log()).sum(1).mean()


def entropy_hand(x, g):
    lp = x.log_softmax(1)
    p = lp.exp()
    h = -(p * lp).sum(1, keepdim=True)
    return h.mean(), (p * (lp + h) * (-g / x.shape[0]),)


def xy(d, n):
    return [d.normal(n, K), d.classes(K, n)]


def pair(d, n):
    return [d.normal(n, K), d.normal(n, K)]


LOSSES = (
    Form("softmax", softmax, lambda d, n: [d.normal(n, K)], softmax_hand, extreme=True),
    Form("softmax shifted by max", softmax_shifted, lambda d, n: [d.normal(n, K)], softmax_hand, extreme=True),
    Form(
        "softmax with temperature",
        softmax_temperature,
        lambda d, n: [d.normal(n, K), d.positive()],
        softmax_temperature_hand,
    ),
    Form("log_softmax", log_softmax, lambda d, n: [d.normal(n, K)], log_softmax_hand, extreme=True),
    Form("log of softmax", log_of_softmax, lambda d, n: [d.normal(n, K)], log_softmax_hand, extreme=True),
    Form("cross-entropy naive", cross_entropy_naive, xy, cross_entropy_hand, extreme=True),
    Form("cross-entropy makemore", cross_entropy_makemore, xy, cross_entropy_hand, extreme=True),
    Form("F.cross_entropy", cross_entropy_torch, xy, cross_entropy_hand, extreme=True),
    Form(
        "cross-entropy soft targets",
        cross_entropy_onehot,
        lambda d, n: [d.normal(n, K), d.unit(n, K)],
        soft_cross_entropy_hand,
        extreme=True,
    ),
    Form("label smoothing", label_smoothing, xy, label_smoothing_hand, extreme=True),
    Form("nll", nll, xy, nll_hand),
    Form("kl of two softmaxes", kl, pair, kl_hand, extreme=True),
    Form("logsumexp", logsumexp, lambda d, n: [d.normal(n, K)], logsumexp_hand, extreme=True),
    Form(
        "bce naive sigmoid", bce_naive, lambda d, n: [d.normal(n, K), d.unit(n, K)], bce_hand, wrt=("x",), extreme=True
    ),
    Form(
        "bce torch sigmoid",
        bce_sigmoid,
        lambda d, n: [d.normal(n, K), d.unit(n, K)],
        bce_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form(
        "bce stable by hand",
        bce_stable,
        lambda d, n: [d.normal(n, K), d.unit(n, K)],
        bce_stable_hand,
        wrt=("x",),
        twice=False,
        extreme=True,
    ),
    Form(
        "bce with logits", bce_logits, lambda d, n: [d.normal(n, K), d.unit(n, K)], bce_hand, wrt=("x",), extreme=True
    ),
    Form(
        "bce of probabilities",
        bce_probabilities,
        lambda d, n: [d.unit(n, K) * 0.8 + 0.1, d.unit(n, K)],
        bce_probabilities_hand,
        wrt=("p",),
    ),
    Form("huber", huber, pair, huber_hand, twice=False),
    Form("mse", mse, pair, mse_hand),
    Form(
        "gaussian nll", gaussian_nll, lambda d, n: [d.normal(n, K), d.positive(n, K), d.normal(n, K)], gaussian_nll_hand
    ),
    Form("vae kl", vae_kl, pair, vae_kl_hand),
    Form("focal", focal, xy, focal_hand),
    Form(
        "focal by choice",
        focal_choice,
        lambda d, n: [d.normal(n, 4), (d.unit(n, 4) < 0.5).to(d.dtype)],
        focal_choice_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form("triplet", triplet, lambda d, n: [d.normal(n, K) for _ in range(3)], triplet_hand, twice=False),
    Form("infonce", infonce, pair, infonce_hand, extreme=True),
    Form("clip", clip, pair, None),
    Form("hinge", hinge, lambda d, n: [d.normal(n), d.signs(n)], hinge_hand, wrt=("x",), twice=False, large=4096),
    Form(
        "logistic loss",
        logistic_loss,
        lambda d, n: [d.normal(n), d.signs(n)],
        logistic_loss_hand,
        wrt=("x",),
        large=4096,
        extreme=True,
    ),
    Form("entropy of softmax", entropy, lambda d, n: [d.normal(n, K)], entropy_hand),
)
