"""Sums of exponentials beside others, parts of rows, and what is made of several rows at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def moco(q, k, queue):
    pos = torch.einsum("nc,nc->n", q, k.detach()) / 0.2
    neg = torch.einsum("nc,kc->nk", q, queue) / 0.2
    return (torch.log(torch.exp(pos) + torch.exp(neg).sum(1)) - pos).mean()


def moco_hand(q, k, queue, g):
    pos = (q * k).sum(1) * 5
    neg = q @ queue.T * 5
    z = torch.logaddexp(pos, neg.logsumexp(1))
    c = 5 * g / len(q)
    dq = torch.addmm((torch.expm1(pos - z) * c)[:, None] * k, (neg - z[:, None]).exp(), queue, alpha=float(c))
    return ((z - pos).mean(), (dq,))


def detection(x, box, y):
    n = x.shape[0]
    off = (x[:, :4] - box).abs().sum(1).mean()
    logits = x[:, 4:]
    return off + (torch.logsumexp(logits, 1) - logits[torch.arange(n), y]).mean()


def detection_hand(x, box, y, g):
    n = len(x)
    r = torch.arange(n)
    off = x[:, :4] - box
    lp = x[:, 4:].log_softmax(1)
    d = torch.empty_like(x)
    d[:, :4] = off.sign() * (g / n)
    d[:, 4:] = lp.exp() * (g / n)
    d[r, y + 4] -= g / n
    return (off.abs().sum() / n - lp[r, y].mean(), (d,))


def rendering(sigma, color, delta):
    t = sigma * delta
    reached = torch.cumsum(t, 1)
    weight = torch.exp(-(reached - t)) * (1 - torch.exp(-t))
    return torch.einsum("ns,nsc->nc", weight, color)


def rendering_hand(sigma, color, delta, g):
    left = torch.exp(-(sigma * delta).cumsum(1))
    weight = F.pad(left[:, :-1], (1, 0), value=1.0) - left
    dw = (color @ g[:, :, None])[:, :, 0]
    dleft = -dw
    dleft[:, :-1] += dw[:, 1:]
    dt = -(left * dleft).flip(1).cumsum(1).flip(1)
    return ((weight[:, None, :] @ color)[:, 0], (dt * delta, weight[:, :, None] * g[:, None, :]))


def drawn(d, n):
    return [d.normal(n, 8), d.normal(n, 8), d.positive(n, 8), d.positive(n, 8) + 1, d.positive(n, 8)]


def evidential(y, m, v, a, b):
    e = y - m
    om = 2 * b * (1 + v)
    nll = 0.5 * torch.log(math.pi / v) - a * torch.log(om) + (a + 0.5) * torch.log(v * e**2 + om)
    return (nll + torch.lgamma(a) - torch.lgamma(a + 0.5) + 0.01 * e.abs() * (2 * v + a)).mean()


def evidential_hand(y, m, v, a, b, g):
    e = y - m
    ae, q = e.abs(), e * e
    om = 2 * b * (1 + v)
    t = v * q + om
    lo, lt, ah, c = om.log(), t.log(), a + 0.5, 2 * v + a
    out = (-0.5 * v.log() - a * lo + ah * lt + torch.lgamma(a) - torch.lgamma(ah) + 0.01 * ae * c).mean()
    k, u = g / e.numel(), ah / t
    w = u - a / om
    dm = -(2 * u * v * e + 0.01 * e.sign() * c) * k
    dv = (-0.5 / v + u * q + 2 * b * w + 0.02 * ae) * k
    da = (lt - lo + torch.digamma(a) - torch.digamma(ah) + 0.01 * ae) * k
    return (out + 0.5 * math.log(math.pi), (dm, dv, da, 2 * (1 + v) * w * k))


def iwae(m, s, eps, lx):
    z = m + torch.exp(s) * eps
    lw = lx + (-0.5 * z**2).sum(-1) - (-0.5 * eps**2 - s).sum(-1)
    return -(torch.log(torch.exp(lw).mean(0))).mean()


def iwae_hand(m, s, eps, lx, g):
    k, n, _ = eps.shape
    e = s.exp()
    z = torch.addcmul(m, eps, e)
    lw = lx + 0.5 * ((eps * eps).sum(2) - (z * z).sum(2)) + s.sum(1)
    total = lw.logsumexp(0)
    w = (lw - total).exp() * (g / n)
    wz = z * w[:, :, None]
    return (math.log(k) - total.mean(), (wz.sum(0), (wz * eps).sum(0) * e - g / n, -w))


def demodulated(x, s, w):
    ws = w[None] * s[:, None, :]
    return (ws * torch.rsqrt((ws**2).sum(2, keepdim=True) + 1e-8)) @ x


def demodulated_hand(x, s, w, g):
    d = torch.rsqrt((s * s) @ (w * w).T + 1e-8)
    ws = w * s[:, None, :]
    wd = ws * d[:, :, None]
    o = wd @ x
    k = (g * o).sum(2) * d * d
    dws = (g @ x.mT) * d[:, :, None] - ws * k[:, :, None]
    return (o, (wd.mT @ g, (dws * w).sum(1), (dws * s[:, None, :]).sum(0)))


def sampson(f, x, y):
    a, b = x @ f.T, y @ f
    return ((y * a).sum(1) ** 2 / (a[:, 0] ** 2 + a[:, 1] ** 2 + b[:, 0] ** 2 + b[:, 1] ** 2)).mean()


def sampson_hand(f, x, y, g):
    whole, turned = x @ f.T, y @ f
    e, a, b = (y * whole).sum(1), whole[:, :2], turned[:, :2]
    q = e / ((a * a).sum(1) + (b * b).sum(1))
    c = q * (2 * g / len(x))
    cq = (c * q)[:, None]
    df = (y * c[:, None]).T @ x
    df[:2] -= (a * cq).T @ x
    df[:, :2] -= y.T @ (b * cq)
    return ((q * e).mean(), (df,))


def lattice(p):
    near = torch.roll(p, -1, 0) + torch.roll(p, -1, 1)
    return (2 * p**2 - p * near + 0.3 * p**2 + 0.1 * p**4).sum()


def lattice_hand(p, g):
    near = torch.roll(p, -1, 0) + torch.roll(p, -1, 1)
    q = p * p
    around = near + torch.roll(p, 1, 0) + torch.roll(p, 1, 1)
    return ((q * (2.3 + 0.1 * q) - p * near).sum(), ((p * (4.6 + 0.4 * q) - around) * g,))


UNEQUAL = [
    Form("momentum contrast", moco, lambda d, n: [d.normal(n, 8), d.normal(n, 8), d.normal(40, 8)], moco_hand, wrt=("q",), extreme=True),
    Form("boxes and classes", detection, lambda d, n: [d.normal(n, 20), d.normal(n, 4), d.classes(16, n)], detection_hand, wrt=("x",), twice=False),
    Form("volume rendering", rendering, lambda d, n: [d.positive(n, 12), d.unit(n, 12, 3), d.positive(n, 12)], rendering_hand, wrt=("sigma", "color")),
    Form("evidential regression", evidential, drawn, evidential_hand, wrt=("m", "v", "a", "b"), twice=False),
    Form("importance weighted bound", iwae, lambda d, n: [d.normal(n, 6), d.normal(n, 6), d.normal(5, n, 6), d.normal(5, n)], iwae_hand, wrt=("m", "s", "lx")),
    Form("demodulated weights", demodulated, lambda d, n: [d.normal(n, 8, 12), d.normal(n, 8), d.normal(6, 8)], demodulated_hand),
    Form("sampson distance", sampson, lambda d, n: [d.normal(3, 3), d.normal(n, 3), d.normal(n, 3)], sampson_hand, wrt=("f",)),
    Form("lattice action", lattice, lambda d, n: [d.normal(n, 16)], lattice_hand, batches=(3, 5)),
]  # fmt: skip
