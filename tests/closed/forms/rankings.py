"""Losses over pairs and thresholds in smooth steps, and lengths: what a logistic function or a norm is a part of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def lambda_loss(s, rel):
    d = s[:, :, None] - s[:, None, :]
    gain = 2.0**rel - 1
    w = (gain[:, :, None] - gain[:, None, :]).abs()
    m = (rel[:, :, None] > rel[:, None, :]).to(s.dtype)
    return (m * w * torch.log2(1 + torch.exp(-d))).sum((1, 2)).mean()


def lambda_loss_hand(s, rel, g):
    """Burges 2010, "From RankNet to LambdaRank to LambdaMART": the lambda of a document is a sum over its pairs."""
    d = s[:, :, None] - s[:, None, :]
    gain = 2.0**rel - 1
    w = (gain[:, :, None] - gain[:, None, :]).clamp_min(0)
    k = len(s) * math.log(2)
    t = w * torch.sigmoid(-d) * (g / k)
    return (w * F.softplus(-d)).sum() / k, (t.sum(1) - t.sum(2),)


def approximate_ndcg(s, gain, best):
    ranks = 0.5 + torch.sigmoid((s[:, None, :] - s[:, :, None]) / 0.1).sum(-1)
    return -(gain / torch.log2(1 + ranks)).sum(1).div(best).mean()


def approximate_ndcg_hand(s, gain, best, g):
    """Qin et al. 2010, "A General Approximation Framework for Direct Optimization of Information Retrieval Measures"."""
    n = len(s)
    p = torch.sigmoid((s[:, None, :] - s[:, :, None]) * 10)
    r = 1.5 + p.sum(-1)
    log = torch.log(r)
    a = gain / log * (math.log(2) / best[:, None])
    dr = a / (log * r) * (g * 10 / n)
    t = torch.ops.aten.sigmoid_backward(dr[:, :, None].expand_as(p), p)
    return -a.sum() / n, (t.sum(1) - t.sum(2),)


def smooth_quantile(p, y):
    e = y - p
    return (0.3 * e + 0.1 * F.softplus(-e / 0.1)).mean()


def smooth_quantile_hand(p, y, g):
    """Zheng 2011, "Gradient descent algorithms for quantile regression with smooth approximation"."""
    e = y - p
    z = e * -10
    return (0.3 * e + 0.1 * F.softplus(z)).mean(), ((z.sigmoid() - 0.3) * (g / p.numel()),)


def logistic_distance(a, b, c):
    return F.softplus(-2 * ((a - c).pow(2).sum(1) - (a - b).pow(2).sum(1))).mean()


def logistic_distance_hand(a, b, c, g):
    """A triplet loss with a soft margin: Hermans et al. 2017, "In Defense of the Triplet Loss"."""
    u, v = a - b, a - c
    z = -2 * ((v * v).sum(1) - (u * u).sum(1))
    s = (z.sigmoid() * (4 * g / len(a)))[:, None]
    du, dv = u * s, v * s
    return F.softplus(z).mean(), (du - dv, -du, dv)


def survival(x, t, e):
    h = torch.sigmoid(x)
    step = torch.arange(x.shape[1])[None]
    before = (step < t[:, None]).to(x.dtype)
    at = (step == t[:, None]).to(x.dtype) * e[:, None]
    return -(at * torch.log(h) + before * torch.log(1 - h)).sum(1).mean()


def survival_hand(x, t, e, g):
    """Gensheimer and Narasimhan 2019, "A scalable discrete-time survival model for neural networks"."""
    step = torch.arange(x.shape[1])[None]
    at = (step == t[:, None]).to(x.dtype) * e[:, None]
    m = at + (step < t[:, None]).to(x.dtype)
    return (F.softplus(x) * m - at * x).sum() / len(x), ((x.sigmoid() * m - at) * (g / len(x)),)


def gradient_penalty(x):
    return 10 * ((x.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def gradient_penalty_hand(x, g):
    """Gulrajani et al. 2017, the penalty of WGAN-GP (equation 3), by the gradient."""
    n = len(x)
    r = x.flatten(1).norm(dim=1)
    e = r - 1
    return 10 * (e * e).mean(), (x * (e / r * (20 * g / n)).view(n, 1, 1, 1),)


def hydra(q, k, v):
    return q / q.norm(dim=-1, keepdim=True) * (k / k.norm(dim=-1, keepdim=True) * v).sum(1, keepdim=True)


def hydra_hand(q, k, v, g):
    """Bolya et al. 2022, "Hydra Attention", equation 6."""
    rq, rk = 1 / q.norm(dim=-1, keepdim=True), 1 / k.norm(dim=-1, keepdim=True)
    u, w = q * rq, k * rk
    s = (w * v).sum(1, keepdim=True)
    du, ds = g * s, (g * u).sum(1, keepdim=True)
    dw = v * ds
    dq = (du - u * (du * u).sum(-1, keepdim=True)) * rq
    return u * s, (dq, (dw - w * (dw * w).sum(-1, keepdim=True)) * rk, w * ds)


def on_the_sphere(h, f, alpha):
    def unit(x):
        return x / x.norm(p=2, dim=-1, keepdim=True)

    return unit(h + alpha * (unit(f) - h))


def on_the_sphere_hand(h, f, alpha, g):
    """Loshchilov et al. 2024, "nGPT", equation 10."""
    i = 1 / f.norm(dim=-1, keepdim=True)
    u = f * i
    e = u - h
    z = torch.addcmul(h, alpha, e)
    iz = 1 / z.norm(dim=-1, keepdim=True)
    o = z * iz
    dz = (g - o * (g * o).sum(-1, keepdim=True)) * iz
    du = dz * alpha
    return o, (dz - du, (du - u * (du * u).sum(-1, keepdim=True)) * i, (dz * e).sum(0))


# Davidson 1970: Bradley and Terry's comparisons with ties, whose weight is the geometric mean of the two strengths'
def ties(a, b, t):
    one, other = a.exp(), b.exp()
    tie = t.exp() * (one * other).sqrt()
    z = one + other + tie
    return -(one / z).log().mean() - (tie / z).log().mean()


def ties_hand(a, b, t, g):
    e = torch.stack([a, b, t + (a + b) / 2])
    z = e.logsumexp(0)
    out = (2 * z - e[0] - e[2]).mean()
    p = (e - z).exp() * (2 * g / len(a))
    c = g / len(a)
    dt = p[2] - c
    return (out, (p[0] - c + dt / 2, p[1] + dt / 2, dt.sum()))


RANKINGS = (
    Form(
        "lambda loss",
        lambda_loss,
        lambda d, n: [d.normal(n, 8), d.classes(4, n, 8).to(d.dtype)],
        lambda_loss_hand,
        wrt=("s",),
        large=16,
    ),
    Form(
        "approximate ndcg",
        approximate_ndcg,
        lambda d, n: [d.normal(n, 8), d.positive(n, 8), d.positive(n)],
        approximate_ndcg_hand,
        wrt=("s",),
        large=16,
        extreme=True,
    ),
    Form(
        "smooth quantile",
        smooth_quantile,
        lambda d, n: [d.normal(n, 12), d.normal(n, 12)],
        smooth_quantile_hand,
        wrt=("p",),
        extreme=True,
    ),
    Form(
        "soft margin",
        logistic_distance,
        lambda d, n: [d.normal(n, 6), d.normal(n, 6), d.normal(n, 6)],
        logistic_distance_hand,
    ),
    Form(
        "discrete survival",
        survival,
        lambda d, n: [d.normal(n, 6), d.classes(6, n), d.classes(2, n).to(d.dtype)],
        survival_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form("gradient penalty", gradient_penalty, lambda d, n: [d.normal(n, 3, 4, 4)], gradient_penalty_hand),
    Form(
        "hydra attention",
        hydra,
        lambda d, n: [d.normal(n, 7, 6), d.normal(n, 7, 6), d.normal(n, 7, 6)],
        hydra_hand,
        large=16,
    ),
    Form("on the sphere", on_the_sphere, lambda d, n: [d.normal(n, 8), d.normal(n, 8), d.unit(8)], on_the_sphere_hand),
    Form(
        "comparisons with ties",
        ties,
        lambda d, n: [d.normal(n), d.normal(n), d.normal(1)[0]],
        ties_hand,
        extreme=True,
    ),
)
