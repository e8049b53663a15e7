"""Objectives of classifiers, of densities, of policies."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 20


def xy(d, n):
    return [d.normal(n, K), d.classes(K, n)]


def ce_w(x, y, w):
    p = x.exp() / x.exp().sum(1, keepdim=True)
    n = x.shape[0]
    wy = w[y]
    return (-wy * torch.log(p[torch.arange(n), y])).sum() / wy.sum()


def ce_w_hand(x, y, w, g):
    n = x.shape[0]
    r = torch.arange(n)
    lse = x.logsumexp(1, keepdim=True)
    wy = w[y]
    W = wy.sum()
    loss = (wy * (lse.squeeze(1) - x[r, y])).sum() / W
    c = wy * (g / W)
    d = (x - lse).exp() * c[:, None]
    d[r, y] -= c
    return (loss, (d,))


def ce_z(x, y):
    lse = x.exp().sum(-1).log()
    return (lse - x[range(x.shape[0]), y] + 0.01 * lse**2).mean()


def ce_z_hand(x, y, g):
    n = x.shape[0]
    r = torch.arange(n)
    lse = x.logsumexp(1)
    loss = (lse - x[r, y] + 0.01 * lse * lse).mean()
    d = (x - lse[:, None]).exp() * ((1 + 0.02 * lse) * (g / n))[:, None]
    d[r, y] -= g / n
    return (loss, (d,))


def hinton(s, t, y):
    T = 4.0
    ps = (s / T).log_softmax(1)
    pt = (t / T).softmax(1)
    kd = (pt * (pt.log() - ps)).sum(1).mean() * T * T
    ce = -s.log_softmax(1)[torch.arange(s.shape[0]), y].mean()
    return 0.7 * kd + 0.3 * ce


def hinton_hand(s, t, y, g):
    n = s.shape[0]
    T = 4.0
    r = torch.arange(n)
    sT = s / T
    ls = sT.log_softmax(1)
    lt = (t / T).log_softmax(1)
    pt = lt.exp()
    lse = s.logsumexp(1, keepdim=True)
    out = 0.7 * T * T / n * (pt * (lt - ls)).sum() + 0.3 * (lse.squeeze(1) - s[r, y]).mean()
    d = (ls.exp() - pt) * (0.7 * T * g / n) + (s - lse).exp() * (0.3 * g / n)
    d[r, y] -= 0.3 * g / n
    return (out, (d,))


def focal_mc(x, y):
    p = torch.softmax(x, 1).gather(1, y[:, None]).squeeze(1)
    return (-((1 - p) ** 2) * p.log()).mean()


def focal_mc_hand(x, y, g):
    n = x.shape[0]
    r = torch.arange(n)
    lse = x.logsumexp(1)
    lp = x[r, y] - lse
    p = lp.exp()
    q = 1 - p
    out = -(q * q * lp).mean()
    c = (2 * q * lp * p - q * q) * (g / n)
    d = (x - lse[:, None]).exp() * (-c)[:, None]
    d[r, y] += c
    return (out, (d,))


def conf_pen(x, y):
    lp = x - x.logsumexp(1, keepdim=True)
    p = lp.exp()
    H = -(p * lp).sum(1)
    return (-lp[torch.arange(x.size(0)), y] - 0.1 * H).mean()


def conf_pen_hand(x, y, g):
    n = x.shape[0]
    r = torch.arange(n)
    lp = x - x.logsumexp(1, keepdim=True)
    p = lp.exp()
    s = (p * lp).sum(1, keepdim=True)
    out = (0.1 * s.squeeze(1) - lp[r, y]).mean()
    d = p * ((1 + 0.1 * (lp - s)) * (g / n))
    d[r, y] -= g / n
    return (out, (d,))


def mdn(a, mu, ls, y):
    lp = a - torch.logsumexp(a, 1, keepdim=True)
    ll = -0.5 * ((y[:, None] - mu) / ls.exp()) ** 2 - ls - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(lp + ll, 1).mean()


def mdn_hand(a, mu, ls, y, g):
    n = a.shape[0]
    la = a.logsumexp(1, keepdim=True)
    i = (-ls).exp()
    z = (y[:, None] - mu) * i
    z2 = z * z
    t = a - 0.5 * z2 - ls
    loss = t.logsumexp(1, keepdim=True)
    out = (la - loss).mean() + 0.5 * math.log(2 * math.pi)
    r = (t - loss).exp() * (g / n)
    return (out, ((a - la).exp() * (g / n) - r, -(r * z * i), r * (1 - z2)))


def clip_t(a, b, t):
    a = a / (a**2).sum(1, keepdim=True).sqrt()
    b = b / (b**2).sum(1, keepdim=True).sqrt()
    s = t.exp() * a @ b.T
    i = torch.arange(a.shape[0])
    return (-s.log_softmax(1)[i, i].mean() - s.log_softmax(0)[i, i].mean()) / 2


def clip_t_hand(a, b, t, g):
    n = a.shape[0]
    e = t.exp()
    ra = (a * a).sum(1, keepdim=True).rsqrt()
    rb = (b * b).sum(1, keepdim=True).rsqrt()
    za, zb = (a * ra, b * rb)
    ze = za * e
    s = ze @ zb.T
    l1 = s.logsumexp(1, keepdim=True)
    l0 = s.logsumexp(0, keepdim=True)
    out = (l1.sum() + l0.sum() - 2 * s.diagonal().sum()) / (2 * n)
    d = ((s - l1).exp() + (s - l0).exp()) * (g / (2 * n))
    d.diagonal().sub_(g / n)
    da = d @ zb
    db = d.T @ ze
    dt = (da * ze).sum()
    da = da * e
    return (out, (ra * (da - za * (da * za).sum(1, keepdim=True)), rb * (db - zb * (db * zb).sum(1, keepdim=True)), dt))


def reinforce_base(x, act, R):
    lp = torch.log(x.softmax(-1)[torch.arange(x.shape[0]), act])
    adv = (R - R.mean()) / (R.std() + 1e-08)
    return -(lp * adv).sum()


def reinforce_base_hand(x, act, R, g):
    i = torch.arange(x.shape[0])
    lse = x.logsumexp(1)
    Rc = R - R.mean()
    adv = Rc / (((Rc * Rc).sum() / (len(R) - 1)).sqrt() + 1e-08)
    out = -((x[i, act] - lse) * adv).sum()
    c = adv * g
    d = (x - lse[:, None]).exp() * c[:, None]
    d[i, act] -= c
    return (out, (d,))


def gauss_policy(m, ls, a, adv):
    s = ls.exp()
    lp = (-((a - m) ** 2) / (2 * s**2) - ls - 0.5 * math.log(2 * math.pi)).sum(1)
    return -(lp * adv).mean()


def gauss_policy_hand(m, ls, a, adv, g):
    n = m.shape[0]
    i = (-ls).exp()
    z = (a - m) * i
    z2 = z * z
    c = (adv * (g / n))[:, None]
    lp = -0.5 * z2.sum(1) - ls.sum() - 0.5 * m.shape[1] * math.log(2 * math.pi)
    return (-(lp * adv).mean(), (z * i * -c, ((1 - z2) * c).sum(0)))


def ipo(c, r, rc, rr):
    return ((c - rc - (r - rr) - 1 / (2 * 0.1)) ** 2).mean()


def ipo_hand(c, r, rc, rr, g):
    h = c - rc - r + rr - 5
    d = h * (2 * g / len(h))
    return ((h * h).mean(), (d, -d))


def mos(h, w, pi):
    p = torch.einsum("nd,kdv->nkv", h, w).softmax(-1)
    m = pi.softmax(-1)
    return torch.log((m[..., None] * p).sum(1))


def mos_hand(h, w, pi, g):
    p = torch.einsum("nd,kdv->nkv", h, w).softmax(-1)
    m = pi.softmax(-1)
    q = (m[:, None] @ p)[:, 0]
    dq = g / q
    t = (p @ dq[..., None])[..., 0]
    mt = m * t
    ds = p * (dq[:, None] * m[..., None] - mt[..., None])
    return (
        q.log(),
        (torch.einsum("nkv,kdv->nd", ds, w), torch.einsum("nd,nkv->kdv", h, ds), mt - m * mt.sum(1, keepdim=True)),
    )


def gamma_reg(x, w, y):
    mu = torch.exp(x @ w)
    return (y / mu + torch.log(mu)).mean()


def gamma_hand(x, w, y, g):
    z = x @ w
    r = y * (-z).exp()
    return ((r + z).mean(), (x.T @ ((1 - r) * (g / len(z))),))


def negbin(x, w, y):
    mu = torch.exp(x @ w)
    r = 3.0
    return -(y * torch.log(mu / (mu + r)) + r * torch.log(r / (mu + r))).mean()


def negbin_hand(x, w, y, g):
    z = x @ w
    t = z - math.log(3.0)
    n = len(z)
    return (((y + 3) * F.softplus(t) - y * t).mean(), (x.T @ (((y + 3) * t.sigmoid() - y) * (g / n)),))


def zero_inflated(x, a, y):
    rate, none = torch.exp(x), 1 / (1 + torch.exp(-a))
    zero = torch.log(none + (1 - none) * torch.exp(-rate))
    return -torch.where(y == 0, zero, torch.log(1 - none) - rate + y * x - torch.lgamma(y + 1)).mean()


def zero_inflated_hand(x, a, y, g):
    """Lambert 1992, "Zero-inflated Poisson regression": zeros of either kind are as likely as log(e^a + e^-rate) - softplus(a) says."""
    rate, zero = x.exp(), y == 0
    out = torch.where(zero, torch.logaddexp(a, -rate), y * x - rate - torch.lgamma(y + 1)) - F.softplus(a)
    c, q = g / x.numel(), torch.sigmoid(a + rate)
    da = (torch.sigmoid(a) - torch.where(zero, q, 0.0)) * c
    return -out.mean(), (torch.where(zero, rate * (1 - q), rate - y) * c, da)


def invgauss(x, w, y):
    mu = torch.exp(x @ w)
    return ((y - mu) ** 2 / (2 * mu**2 * y)).mean()


def invgauss_hand(x, w, y, g):
    r = (-(x @ w)).exp()
    n = len(r)
    t = y * r - 1
    return ((t * t / y).mean() / 2, (x.T @ (t * r * (-g / n)),))


def expsurv(x, w, t, e):
    h = (x @ w).exp()
    return (h * t - e * torch.log(h)).sum()


def expsurv_hand(x, w, t, e, g):
    z = x @ w
    a = z.exp() * t
    return ((a - e * z).sum(), (x.T @ ((a - e) * g),))


OBJECTIVES = (
    Form(
        "reinforce baseline",
        reinforce_base,
        lambda d, n: [d.normal(n, 6), d.classes(6, n), d.normal(n)],
        reinforce_base_hand,
        wrt=("x",),
        batches=(5,),
    ),
    Form(
        "gaussian policy",
        gauss_policy,
        lambda d, n: [d.normal(n, 6), d.normal(6), d.normal(n, 6), d.normal(n)],
        gauss_policy_hand,
        wrt=("m", "ls"),
    ),
    Form("ipo", ipo, lambda d, n: [d.normal(n) for _ in range(4)], ipo_hand, wrt=("c", "r")),
    Form(
        "mixture density network",
        mdn,
        lambda d, n: [d.normal(n, 5), d.normal(n, 5), d.normal(n, 5), d.normal(n)],
        mdn_hand,
        wrt=("a", "mu", "ls"),
    ),
    Form(
        "ce class weights", ce_w, lambda d, n: [d.normal(n, K), d.classes(K, n), d.positive(K)], ce_w_hand, wrt=("x",)
    ),
    Form("ce z-loss", ce_z, xy, ce_z_hand),
    Form("confidence penalty", conf_pen, xy, conf_pen_hand),
    Form("focal multiclass", focal_mc, xy, focal_mc_hand),
    Form(
        "hinton distillation",
        hinton,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.classes(K, n)],
        hinton_hand,
        wrt=("s",),
    ),
    Form(
        "mixture of softmaxes",
        mos,
        lambda d, n: [d.normal(n, 6), d.normal(3, 6, K), d.normal(n, 3)],
        mos_hand,
        large=16,
    ),
    Form(
        "clip learned temperature",
        clip_t,
        lambda d, n: [d.normal(n, 12), d.normal(n, 12), d.normal(1).squeeze(0)],
        clip_t_hand,
    ),
    Form(
        "gamma regression",
        gamma_reg,
        lambda d, n: [d.normal(n, K), d.normal(K) * 0.2, d.positive(n)],
        gamma_hand,
        wrt=("w",),
    ),
    Form(
        "zero-inflated Poisson",
        zero_inflated,
        lambda d, n: [d.normal(n), d.normal(n), d.classes(3, n).to(d.dtype)],
        zero_inflated_hand,
        wrt=("x", "a"),
    ),
    Form(
        "negative binomial",
        negbin,
        lambda d, n: [d.normal(n, K), d.normal(K) * 0.2, d.classes(6, n).to(d.dtype)],
        negbin_hand,
        wrt=("w",),
        extreme=True,
    ),
    Form(
        "inverse gaussian",
        invgauss,
        lambda d, n: [d.normal(n, K), d.normal(K) * 0.2, d.positive(n)],
        invgauss_hand,
        wrt=("w",),
    ),
    Form(
        "exponential survival",
        expsurv,
        lambda d, n: [d.normal(n, K), d.normal(K) * 0.2, d.positive(n), d.classes(2, n).to(d.dtype)],
        expsurv_hand,
        wrt=("w",),
    ),
)
