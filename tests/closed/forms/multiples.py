"""Numbers in front of small tensors, slopes taken once, functions of ones, gradients that are added where they stand."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

C = 8
aten = torch.ops.aten


# Rasmussen and Williams, Gaussian processes for machine learning, 2006
def gp_mean(x, z, alpha, ls, amp):
    d2 = (x**2).sum(1)[:, None] + (z**2).sum(1)[None, :] - 2 * x @ z.T
    Kxz = amp * torch.exp(-0.5 * d2 / ls**2)
    return Kxz @ alpha


def gp_mean_hand(x, z, alpha, ls, amp, g):
    d2 = torch.addmm((x * x).sum(1)[:, None], x, z.T, alpha=-2) + (z * z).sum(1)
    i = 1 / (ls * ls)
    E = torch.exp(d2 * (-0.5 * i))
    o = E @ alpha
    W = E * g[:, None] * (alpha * amp)
    s = W.sum(1)
    c = W.sum(0)
    dx = (W @ z - s[:, None] * x) * i
    dz = (W.T @ x - c[:, None] * z) * i
    dls = (W * d2).sum() * (i / ls)
    return o * amp, (dx, dz, amp * (g @ E), dls, (g * o).sum())


# Haarnoja et al., Soft actor-critic, 2018
def sac(mu, logstd, eps, w):
    std = torch.exp(logstd)
    u = mu + std * eps
    a = torch.tanh(u)
    logp = (-0.5 * eps**2 - logstd - 0.5 * math.log(2 * math.pi)).sum(1) - torch.log(1 - a**2 + 1e-6).sum(1)
    q = a @ w
    return (0.2 * logp - q).mean()


def sac_hand(mu, logstd, eps, w, g):
    se = logstd.exp() * eps
    a = (mu + se).tanh()
    d = 1 - a * a
    d1 = d + 1e-6
    n, k = mu.shape
    q = a @ w
    out = (
        0.2 * (-0.5 * (eps * eps).sum() - logstd.sum() - d1.log().sum()) / n
        - 0.1 * k * math.log(2 * math.pi)
        - q.mean()
    )
    gn = g / n
    du = d * (a * (0.4 * gn) / d1 - w * gn)
    return out, (du, torch.addcmul(-0.2 * gn, du, se), a.sum(0) * -gn)


# masses on a chain of springs under gravity
def chain(x):
    d = x[1:] - x[:-1]
    q = torch.sqrt((d**2).sum(1))
    return 0.5 * 10 * ((q - 1) ** 2).sum() + 9.81 * x[:, 1].sum()


def chain_hand(x, g):
    d = x[1:] - x[:-1]
    q = d.norm(dim=1, keepdim=True)
    e = q - 1
    out = 5 * (e * e).sum() + 9.81 * x[:, 1].sum()
    f = d * (e / q * (10 * g))
    dx = F.pad(f, (0, 0, 1, 0)) - F.pad(f, (0, 0, 0, 1))
    dx[:, 1] += 9.81 * g
    return out, (dx,)


# Wang et al., Symmetric cross entropy for robust learning with noisy labels, 2019
def sce(x, y):
    logp = x - torch.logsumexp(x, 1, keepdim=True)
    p = torch.exp(logp)
    onehot = F.one_hot(y, 8).to(x.dtype)
    ce = -(onehot * logp).sum(1).mean()
    rce = -(p * torch.log(torch.clamp(onehot, min=1e-4))).sum(1).mean()
    return 0.1 * ce + rce


def sce_hand(x, y, g):
    q = F.log_softmax(x, 1)
    n = len(x)
    i = torch.arange(n)
    ly = q[i, y]
    p = q.exp()
    py = p[i, y]
    a = -math.log(1e-4)
    out = -0.1 * ly.mean() + a * (1 - py).mean()
    w = (0.1 + a * py) * (g / n)
    d = p * w[:, None]
    d[i, y] -= w
    return out, (d,)


# Gibbs and Su, On choosing and bounding probability metrics, 2002: of smoothed labels, by their logarithms
def kl_smoothed(x, y):
    t = F.one_hot(y, 8).to(x.dtype) * 0.9 + 0.1 / 8
    return (t * (torch.log(t) - torch.log_softmax(x, 1))).sum(1).mean()


def kl_smoothed_hand(x, y, g):
    q = F.log_softmax(x, 1)
    n = len(y)
    i = torch.arange(n)
    a, b = 0.9 + 0.1 / 8, 0.1 / 8
    out = a * math.log(a) + 7 * b * math.log(b) - 0.9 * q[i, y].mean() - b * q.sum() / n
    d = (q.exp() - b) * (g / n)
    d[i, y] -= 0.9 * g / n
    return out, (d,)


# the same by torch's divergence of a tensor that ones are put into, as in The annotated transformer, 2018
def smoothing(x, y):
    k = x.shape[1]
    t = torch.full_like(x, 0.1 / (k - 1)).scatter_(1, y[:, None], 0.9)
    return F.kl_div(x.log_softmax(1), t, reduction="batchmean")


def smoothing_hand(x, y, g):
    q = F.log_softmax(x, 1)
    n, k = x.shape
    i, b = torch.arange(n), 0.1 / (k - 1)
    out = 0.9 * math.log(0.9) + 0.1 * math.log(b) - (0.9 - b) * q[i, y].mean() - b * q.sum() / n
    d = (q.exp() - b) * (g / n)
    d[i, y] -= (0.9 - b) * g / n
    return out, (d,)


# Leng et al., PolyLoss, 2022: cross-entropy and what the labels' shares lack of one
def poly_loss(x, y):
    q = F.log_softmax(x, 1).gather(1, y[:, None]).squeeze(1)
    return (1 - q - q.exp()).mean()


def poly_loss_hand(x, y, g):
    q, n, i = F.log_softmax(x, 1), len(y), torch.arange(len(y))
    picked = q[i, y]
    share = picked.exp()
    w = (share + 1) * (g / n)
    d = q.exp() * w[:, None]
    d[i, y] -= w
    return (1 - picked - share).mean(), (d,)


# Xia et al., Listwise approach to learning to rank, 2008
def listmle(s):
    m = s.max(dim=1, keepdim=True).values
    e = torch.exp(s - m)
    c = torch.cumsum(e.flip(1), 1).flip(1)
    return (torch.log(c) - (s - m)).sum(1).mean()


def listmle_hand(s, g):
    c = torch.logcumsumexp(s.flip(1), 1).flip(1)
    d = s.exp() * torch.cumsum(torch.exp(-c), 1)
    gn = g / len(s)
    return (c - s).sum() / len(s), ((d - 1) * gn,)


# Raffel et al., Exploring the limits of transfer learning with a unified text-to-text transformer, 2020: a bias to all scores
def attention_biased(q, k, v, bias):
    s = q @ k.T * q.shape[1] ** -0.5 + bias
    p = torch.exp(s) / torch.exp(s).sum(1, keepdim=True)
    return p @ v


def attention_biased_hand(q, k, v, bias, g):
    scale = q.shape[1] ** -0.5
    p = torch.addmm(bias, q, k.T, alpha=scale).softmax(1)
    o = p @ v
    ds = aten._softmax_backward_data(g @ v.T, p, 1, p.dtype)
    return o, (scale * (ds @ k), scale * (ds.T @ q), p.T @ g, ds)


# Aronszajn, Theory of reproducing kernels, 1950: all squared distances, multiplied out
def similarities(x, c):
    d = (x * x).sum(1, keepdim=True) - 2 * x @ c.T + (c * c).sum(1)
    return torch.exp(-d).sum()


def similarities_hand(x, c, g):
    e = torch.exp(-(torch.addmm((x * x).sum(1, keepdim=True), x, c.T, alpha=-2) + (c * c).sum(1)))
    w = e * (2 * g)
    dx = torch.addmm(-w.sum(1, keepdim=True) * x, w, c)
    return e.sum(), (dx, torch.addmm(-w.sum(0)[:, None] * c, w.T, x))


MULTIPLES = (
    Form(
        "attention with a bias",
        attention_biased,
        lambda d, n: [d.normal(n, C), d.normal(24, C), d.normal(24, C), d.normal(n, 24)],
        attention_biased_hand,
    ),
    Form(
        "similarities multiplied out", similarities, lambda d, n: [d.normal(n, C), d.normal(24, C)], similarities_hand
    ),
    Form("listmle", listmle, lambda d, n: [d.normal(n, C)], listmle_hand, twice=False),
    Form(
        "gp mean",
        gp_mean,
        lambda d, n: [d.normal(n, C), d.normal(16, C), d.normal(16), d.positive(), d.positive()],
        gp_mean_hand,
    ),
    Form(
        "sac actor",
        sac,
        lambda d, n: [d.normal(n, C), d.normal(n, C), d.normal(n, C), d.normal(C)],
        sac_hand,
        wrt=("mu", "logstd", "w"),
    ),
    Form("chain of springs", chain, lambda d, n: [d.normal(n, 3)], chain_hand, batches=(5,)),
    Form("symmetric cross-entropy", sce, lambda d, n: [d.normal(n, C), d.classes(C, n)], sce_hand),
    Form(
        "kl of smoothed labels",
        kl_smoothed,
        lambda d, n: [d.normal(n, C), d.classes(C, n)],
        kl_smoothed_hand,
    ),
    Form("poly loss by places", poly_loss, lambda d, n: [d.normal(n, C), d.classes(C, n)], poly_loss_hand),
    Form("label smoothing by kl_div", smoothing, lambda d, n: [d.normal(n, C), d.classes(C, n)], smoothing_hand),
)
