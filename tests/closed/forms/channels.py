# pyright: basic
"""Channels that are scaled beside what they scale: `x + x a` is one product, and what a gets one sum."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

A = torch.ops.aten


def response(x, gamma, beta):
    """Global response normalisation over positions (Woo et al. 2023)."""
    gx = x.norm(dim=1, keepdim=True)
    nx = gx / (gx.mean(-1, keepdim=True) + 1e-6)
    return gamma * (x * nx) + beta + x


def response_hand(x, gamma, beta, g):
    gx = x.norm(dim=1, keepdim=True)
    m = gx.mean(-1, keepdim=True) + 1e-6
    nx = gx / m
    k = gamma * nx + 1
    s = (g * x).sum(1, keepdim=True)
    dn = s * gamma
    dg = (dn - (dn * nx).mean(-1, keepdim=True)) / m
    return torch.addcmul(beta, x, k), (g * k + x * (dg / gx), (s * nx).sum((0, 1)), g.sum((0, 1)))


def excite(x, w1, w2):
    """Squeeze and excite beside a residual (Hu et al. 2018)."""
    a = torch.sigmoid(torch.relu(x.mean((2, 3)) @ w1) @ w2)
    return x + x * a[:, :, None, None]


def excite_hand(x, w1, w2, g):
    s = x.mean((2, 3))
    h = torch.relu(s @ w1)
    a = torch.sigmoid(h @ w2)
    k = (1 + a)[:, :, None, None]
    dz = A.sigmoid_backward((g * x).sum((2, 3)), a)
    dh = A.threshold_backward(dz @ w2.T, h, 0)
    ds = (dh @ w1.T) / (x.shape[2] * x.shape[3])
    return x * k, (torch.addcmul(ds[:, :, None, None], g, k), s.T @ dh, h.T @ dz)


def lerp(x, y, t):
    """Features of two branches mixed by channels."""
    return x * t + y * (1 - t) + x


def lerp_hand(x, y, t, g):
    k, q = t + 1, 1 - t
    return x * k + y * q, (g * k, g * q, (g * (x - y)).sum(0))


def harmonics(normal, light, albedo, y):
    """Shading by nine spherical harmonics beside each other (Ramamoorthi and Hanrahan 2001)."""
    unit = normal / normal.norm(dim=1, keepdim=True)
    a, b, c = unit[:, 0], unit[:, 1], unit[:, 2]
    basis = torch.stack([torch.ones_like(a), b, c, a, a * b, b * c, 3 * c**2 - 1, a * c, a**2 - b**2], 1)
    return ((albedo * (basis @ light) - y) ** 2).mean()


def harmonics_hand(normal, light, albedo, y, g):
    length = normal.norm(dim=1, keepdim=True)
    unit = normal / length
    a, b, c = unit.unbind(1)
    basis = torch.stack([torch.ones_like(a), b, c, a, a * b, b * c, 3 * c * c - 1, a * c, a * a - b * b], 1)
    shade = basis @ light
    r = albedo * shade - y
    d = r * (2 * g / r.numel())
    dshade = d * albedo
    _, p, q, s, t, u, v, w, z = (dshade @ light.T).unbind(1)
    da, db, dc = s + t * b + w * c + 2 * z * a, p + t * a + u * c - 2 * z * b, q + u * b + 6 * v * c + w * a
    dunit = torch.stack([da, db, dc], 1)
    dnormal = (dunit - unit * (unit * dunit).sum(1, keepdim=True)) / length
    return r.square().mean(), (dnormal, basis.T @ dshade, d * shade)


CHANNELS = (
    Form(
        "spherical harmonics",
        harmonics,
        lambda d, n: [d.normal(n, 3), d.normal(9, 3), d.unit(n, 3), d.unit(n, 3)],
        harmonics_hand,
        wrt=("normal", "light", "albedo"),
    ),
    Form(
        "global response normalisation",
        response,
        lambda d, n: [d.normal(n, 9, 16), d.normal(16), d.normal(16)],
        response_hand,
    ),
    Form(
        "excitation beside a residual",
        excite,
        lambda d, n: [d.normal(n, 8, 6, 6), d.normal(8, 2), d.normal(2, 8)],
        excite_hand,
    ),
    Form("branches mixed by channels", lerp, lambda d, n: [d.normal(n, 16), d.normal(n, 16), d.unit(16)], lerp_hand),
)
