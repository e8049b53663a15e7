"""Slopes that torch has kernels for, or that the forward holds: of gates, and of waves."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 20


def mish_ratio(x):
    e = x.exp()
    n = e * (e + 2)
    return x * n / (n + 2)


def mish_hand(x, g):
    return F.mish(x), (torch.ops.aten.mish_backward(g, x),)


def gelu_sigmoid(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
    return x / (1 + torch.exp(-2 * u))


def gelu_sigmoid_hand(x, g):
    """Hendrycks and Gimpel 2016, equation 2, by 1 + tanh(u) = 2 sigmoid(2u)."""
    return F.gelu(x, approximate="tanh"), (torch.ops.aten.gelu_backward(g, x, approximate="tanh"),)


def tanh_sigmoid(x):
    return 2 * torch.sigmoid(2 * x) - 1


def tanh_sigmoid_hand(x, g):
    t = x.tanh()
    return t, (torch.ops.aten.tanh_backward(g, t),)


def geglu_erf(x, w, v, u):
    a = x @ w
    return (0.5 * a * (1 + torch.erf(a / math.sqrt(2))) * (x @ v)) @ u


def geglu_hand(x, w, v, u, g):
    a, b = x @ w, x @ v
    h = F.gelu(a)
    m, dm = h * b, g @ u.T
    da, db = torch.ops.aten.gelu_backward(dm * b, a), dm * h
    return m @ u, (da @ w.T + db @ v.T, x.T @ da, x.T @ db, m.T @ g)


def swiglu(x, w, v, u):
    a = x @ w
    return (a / (1 + torch.exp(-a)) * (x @ v)) @ u


def swiglu_hand(x, w, v, u, g):
    a, b = x @ w, x @ v
    h = F.silu(a)
    m, dm = h * b, g @ u.T
    da, db = torch.ops.aten.silu_backward(dm * b, a), dm * h
    return m @ u, (da @ w.T + db @ v.T, x.T @ da, x.T @ db, m.T @ g)


def kto(c, r, kl):
    return (1 - torch.sigmoid(0.1 * (c - kl))).mean() + (1 - torch.sigmoid(0.1 * (kl - r))).mean()


def kto_hand(c, r, kl, g):
    p, q = (0.1 * (c - kl)).sigmoid(), (0.1 * (kl - r)).sigmoid()
    k = (0.1 * g / len(c)).expand(len(c))
    dp, dq = torch.ops.aten.sigmoid_backward(-k, p), torch.ops.aten.sigmoid_backward(k, q)
    return (1 - p).mean() + (1 - q).mean(), (dp, dq)


def rotate(hr, hi, ph, tr, ti):
    c, s = ph.cos(), ph.sin()
    dr, di = hr * c - hi * s - tr, hr * s + hi * c - ti
    return torch.sqrt(dr**2 + di**2 + 1e-9).sum(1)


def rotate_hand(hr, hi, ph, tr, ti, g):
    c, s = ph.cos(), ph.sin()
    r, i = hr * c - hi * s, hr * s + hi * c
    dr, di = r - tr, i - ti
    n = torch.sqrt(dr * dr + di * di + 1e-9)
    k = g[:, None] / n
    a, b = dr * k, di * k
    return n.sum(1), (a * c + b * s, b * c - a * s, b * r - a * i, -a, -b)


def layers(d, n):
    return [d.normal(n, 8), d.normal(8, 12), d.normal(8, 12), d.normal(12, 8)]


def weibull(x, w, k, t, e):
    """Accelerated failure times, some of them censored (Kalbfleisch and Prentice 1980)."""
    scale, shape = torch.exp(x @ w), k.exp()
    hazard = torch.log(shape) - torch.log(scale) + (shape - 1) * (torch.log(t) - torch.log(scale))
    return -(e * hazard - (t / scale) ** shape).mean()


def weibull_hand(x, w, k, t, e, g):
    z = x @ w
    shape = k.exp()
    u = t.log() - z
    a = shape * u
    h = a.exp()
    n = len(z)
    out = -(e * (k - z + (shape - 1) * u) - h).mean()
    left = e - h
    return out, (x.T @ (left * (shape * g / n)), -(g / n) * (e.sum() + (left * a).sum()))


def hill(x, k, n):
    p = (x / k) ** n
    return p / (1 + p)


def hill_hand(x, k, n, g):
    p = (x / k) ** n
    q = 1 + p
    out = p / q
    return out, (-(n / k) * (g * out / q).sum(0),)


SLOPES = (
    Form(
        "weibull censored",
        weibull,
        lambda d, n: [
            d.normal(n, 20),
            d.normal(20) * 0.2,
            d.normal(1).squeeze(0),
            d.positive(n),
            d.classes(2, n).to(d.dtype),
        ],
        weibull_hand,
        wrt=("w", "k"),
    ),
    Form(
        "hill half saturation", hill, lambda d, n: [d.positive(n, 6), d.positive(6), d.positive(6)], hill_hand, ("k",)
    ),
    Form("mish by ratio", mish_ratio, lambda d, n: [d.normal(n, K)], mish_hand, extreme=True),
    Form("gelu tanh by sigmoid", gelu_sigmoid, lambda d, n: [d.normal(n, K)], gelu_sigmoid_hand, extreme=True),
    Form("tanh by sigmoid", tanh_sigmoid, lambda d, n: [d.normal(n, K)], tanh_sigmoid_hand, extreme=True),
    Form("geglu by erf", geglu_erf, layers, geglu_hand),
    Form("kto", kto, lambda d, n: [d.normal(n), d.normal(n), d.normal()], kto_hand, wrt=("c", "r"), large=512),
    Form("rotate", rotate, lambda d, n: [d.normal(n, K) for _ in range(5)], rotate_hand),
    Form("swiglu layer", swiglu, layers, swiglu_hand, extreme=True),
)
