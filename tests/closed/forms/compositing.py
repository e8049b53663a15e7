"""Shares of what the factors before leave: running products of transmittances, of gates, and of what is not yet halted."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def before(f):
    """The product of all that come before each place."""
    return torch.cat([torch.ones_like(f[:, :1]), f[:, :-1].cumprod(1)], 1)


def later(s):
    return s.flip(1).cumsum(1).flip(1)


# Mildenhall et al., NeRF: representing scenes as neural radiance fields for view synthesis, 2020
def rendering(sigma, delta, c, y):
    alpha = 1 - torch.exp(-F.relu(sigma) * delta)
    ones = torch.ones((len(alpha), 1), dtype=alpha.dtype)
    seen = torch.cumprod(torch.cat([ones, 1 - alpha + 1e-10], -1), -1)[:, :-1]
    rgb = ((alpha * seen)[..., None] * c).sum(1)
    return ((rgb - y) ** 2).mean()


def rendering_hand(sigma, delta, c, y, g):
    e = torch.exp(-F.relu(sigma) * delta)
    f = e + 1e-10
    seen = before(f)
    w = seen - seen * e
    r = (w[:, None] @ c).squeeze(1) - y
    dr = r * (2 * g / r.numel())
    dw = (c @ dr[..., None]).squeeze(-1)
    s = w * dw
    de = (dw * seen - (later(s) - s) / f) * e * delta
    return r.square().mean(), (torch.where(sigma > 0, de, 0), w[..., None] * dr[:, None])


# Kerbl et al., 3D Gaussian splatting for real-time radiance field rendering, 2023
def splatting(o, q, c, y):
    alpha = (o * torch.exp(-0.5 * q)).clamp(max=0.99)
    seen = torch.cumprod(1 - alpha, 1)
    seen = torch.cat([torch.ones_like(seen[:, :1]), seen[:, :-1]], 1)
    rgb = ((alpha * seen)[..., None] * c).sum(1)
    return ((rgb - y) ** 2).mean()


def splatting_hand(o, q, c, y, g):
    e = torch.exp(-0.5 * q)
    raw = o * e
    alpha = raw.clamp(max=0.99)
    f = 1 - alpha
    seen = before(f)
    w = alpha * seen
    r = (w[:, None] @ c).squeeze(1) - y
    dr = r * (2 * g / r.numel())
    dw = (c @ dr[..., None]).squeeze(-1)
    s = w * dw
    da = torch.where(raw <= 0.99, dw * seen - (later(s) - s) / f, 0)
    return r.square().mean(), (da * e, da * raw * -0.5, w[..., None] * dr[:, None])


# Sethuraman, A constructive definition of Dirichlet priors, 1994
def sticks(z, v):
    b = torch.sigmoid(z)
    rest = F.pad(torch.cumprod(1 - b, 1), (1, 0), value=1.0)[:, :-1]
    return ((b * rest * v).sum(1) ** 2).sum()


def sticks_hand(z, v, g):
    b = torch.sigmoid(z)
    w = b * before(1 - b)
    m = (w * v).sum(1, keepdim=True)
    dm = m * (2 * g)
    s = w * v * dm
    return m.square().sum(), (torch.addcmul(s, b, later(s), value=-1), w * dm)


def survival(x, t):
    """The Brier score of survival curves in discrete time."""
    return (((1 - torch.sigmoid(x)).cumprod(-1) - t) ** 2).mean()


def survival_hand(x, t, g):
    h = torch.sigmoid(x)
    s = (1 - h).cumprod(-1)
    r = s - t
    return r.square().mean(), (later(r * s) * h * (-2 * g / r.numel()),)


COMPOSITING = (
    Form(
        "volume rendering by factors",
        rendering,
        lambda d, n: [d.normal(n, 9), d.positive(n, 9), d.unit(n, 9, 3), d.unit(n, 3)],
        rendering_hand,
        ("sigma", "c"),
        twice=False,
    ),
    Form(
        "gaussian splatting",
        splatting,
        lambda d, n: [1.4 * d.unit(n, 9), d.unit(n, 9), d.unit(n, 9, 3), d.unit(n, 3)],
        splatting_hand,
        ("o", "q", "c"),
        twice=False,
    ),
    Form("stick-breaking", sticks, lambda d, n: [d.normal(n, 9), d.normal(n, 9)], sticks_hand, extreme=True),
    Form("survival curves", survival, lambda d, n: [d.normal(n, 9), d.unit(n, 9)], survival_hand, ("x",), extreme=True),
)
