# pyright: basic
"""Distances among the rows of one tensor: what weighs a row against itself counts for nothing."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form


def squares(a, b):
    return (a.unsqueeze(1) - b.unsqueeze(0)).pow(2).sum(2)


def by_products(x, y):
    return (x * x).sum(1, keepdim=True) - 2 * x @ y.T + (y * y).sum(1)


def pulled(x, w):
    """Of w_ij (x_i - x_j)^2 / 4 for a symmetric w."""
    return x * w.sum(1, keepdim=True) - w @ x


def mmd(x, y):
    """Maximum mean discrepancy under a Gaussian kernel (Gretton et al. 2012)."""
    kxx, kyy, kxy = (torch.exp(-0.5 * squares(a, b)) for a, b in ((x, x), (y, y), (x, y)))
    return kxx.mean() + kyy.mean() - 2 * kxy.mean()


def mmd_hand(x, y, g):
    n, m = len(x), len(y)
    kxx, kyy, kxy = (torch.exp(-0.5 * by_products(a, b)) for a, b in ((x, x), (y, y), (x, y)))
    k = kxy * (2 * g / (n * m))
    dx = pulled(x, kxx) * (-2 * g / n**2) + x * k.sum(1, keepdim=True) - k @ y
    dy = pulled(y, kyy) * (-2 * g / m**2) + y * k.sum(0)[:, None] - k.T @ x
    return kxx.mean() + kyy.mean() - 2 * kxy.mean(), (dx, dy)


def energy(x, y):
    """Energy distance of two samples (Szekely and Rizzo 2013), the root smoothed."""
    dxy, dxx, dyy = ((squares(a, b) + 1e-6).sqrt() for a, b in ((x, y), (x, x), (y, y)))
    return 2 * dxy.mean() - dxx.mean() - dyy.mean()


def energy_hand(x, y, g):
    n, m = len(x), len(y)
    dxy, dxx, dyy = ((by_products(a, b) + 1e-6).sqrt() for a, b in ((x, y), (x, x), (y, y)))
    w, wx, wy = (c / d for c, d in ((2 * g / (n * m), dxy), (-2 * g / n**2, dxx), (-2 * g / m**2, dyy)))
    wx.fill_diagonal_(0)
    wy.fill_diagonal_(0)
    dx = pulled(x, wx) + x * w.sum(1, keepdim=True) - w @ y
    dy = pulled(y, wy) + y * w.sum(0)[:, None] - w.T @ x
    return 2 * dxy.mean() - dxx.mean() - dyy.mean(), (dx, dy)


def egnn(x, h, w, b):
    """Coordinates moved by messages of their distances (Satorras et al. 2021)."""
    diff = x[:, None, :] - x[None, :, :]
    m = torch.tanh(h[:, None] + h[None, :] + w * diff.pow(2).sum(-1) + b)
    return x + (diff * m[..., None]).mean(1)


def egnn_hand(x, h, w, b, g):
    n = len(x)
    s = by_products(x, x)
    m = torch.tanh(h[:, None] + h + (w * s + b))
    out = x + (x * m.sum(1, keepdim=True) - m @ x) / n
    dm = ((g * x).sum(1, keepdim=True) - g @ x.T) / n
    d = torch.ops.aten.tanh_backward(dm, m)
    r, c = d.sum(1), d.sum(0)
    dx = g * (1 + m.sum(1, keepdim=True) / n) - m.T @ g / n + 2 * w * (x * (r + c)[:, None] - d @ x - d.T @ x)
    return out, (dx, r + c, (d * s).sum(), r.sum())


def nca(x, y):
    """Neighbourhood components of points that are mapped already (Goldberger et al. 2004)."""
    p = torch.exp(-squares(x, x)) * (1 - torch.eye(x.shape[0], dtype=x.dtype))
    p = p / p.sum(1, keepdim=True)
    same = (y[:, None] == y[None, :]).to(x.dtype)
    return -(p * same).sum(1).mean()


def nca_hand(x, y, g):
    s = -by_products(x, x)
    s.fill_diagonal_(-float("inf"))
    p = s.softmax(1)
    same = y[:, None] == y
    q = torch.where(same, p, 0)
    t = q.sum(1, keepdim=True)
    d = torch.addcmul(-q, p, t) * (2 * g / len(x))
    d = d + d.T
    return -t.mean(), (-pulled(x, d),)


def repulsion(x, q):
    """Charges on points, screened; each pair is met twice."""
    r = (squares(x, x) + 0.01).sqrt()
    return ((q[:, None] * q) * torch.exp(-r) / r).sum() / 2


def repulsion_hand(x, q, g):
    r = (by_products(x, x) + 0.01).sqrt()
    k = torch.exp(-r) / r
    kq = k @ q
    w = torch.addcdiv(k, k, r) / r * q
    w.fill_diagonal_(0)
    return (q * kq).sum() / 2, ((w @ x - x * w.sum(1, keepdim=True)) * (g * q)[:, None], g * kq)


ROWS = (
    Form("mmd", mmd, lambda d, n: [d.normal(n, 32), d.normal(n + 3, 32)], mmd_hand),
    Form("energy distance", energy, lambda d, n: [d.normal(n, 8), d.normal(n + 3, 8)], energy_hand),
    Form("egnn", egnn, lambda d, n: [d.normal(n, 3), d.normal(n), d.normal(), d.normal()], egnn_hand),
    Form("neighbourhood components", nca, lambda d, n: [d.normal(n, 8) / 3, d.classes(4, n)], nca_hand, batches=(3, 5)),
    Form("screened repulsion", repulsion, lambda d, n: [d.normal(n, 3), d.normal(n)], repulsion_hand),
)
