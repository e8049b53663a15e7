"""Functions by pieces, spelled by masks of ones and zeros, nested choices and clamps."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 48


def wing(x):
    """By a mask (Feng et al. 2018)."""
    m = (x.abs() < 1).to(x.dtype)
    return (m * torch.log(1 + x.abs() / 0.5) + (1 - m) * (x.abs() - 0.25)).mean()


def wing_hand(x, g):
    a = x.abs()
    near = a < 1
    out = torch.where(near, torch.log1p(a * 2), a - 0.25).mean()
    return out, (torch.where(near, 1 / (a + 0.5), 1.0) * x.sign() * (g / x.numel()),)


def huber_masked(x, y):
    r = x - y
    m = (r.abs() <= 1).to(x.dtype)
    return (m * 0.5 * r**2 + (1 - m) * (r.abs() - 0.5)).mean()


def huber_masked_hand(x, y, g):
    r = x - y
    d = r.clamp(-1, 1)
    dx = d * (g / r.numel())
    return (d * (r - 0.5 * d)).mean(), (dx, -dx)


def expectile(x, y):
    """Newey and Powell 1987."""
    r = y - x
    return torch.where(r < 0, 0.2 * r**2, 0.8 * r**2).mean()


def expectile_hand(x, y, g):
    r = y - x
    weighed = r * torch.where(r < 0, r.new_tensor(0.2), 0.8)
    d = weighed * (2 * g / x.numel())
    return (weighed * r).mean(), (-d, d)


def pinball_cases(x, y):
    e = y - x
    return torch.where(e < 0, -0.1 * e, 0.9 * e).mean()


def pinball_cases_hand(x, y, g):
    e = y - x
    slope = torch.where(e < 0, e.new_tensor(-0.1), 0.9)
    d = slope * (g / e.numel())
    return (slope * e).mean(), (-d, d)


def smelu(x):
    """By masks (Shamir et al. 2020)."""
    low, high = (x <= -1.5).to(x.dtype), (x >= 1.5).to(x.dtype)
    return (1 - low - high) * (x + 1.5) ** 2 / 6 + high * x


def smelu_hand(x, g):
    c = (x + 1.5).clamp(0, 3)
    return torch.where(x >= 1.5, x, c * c / 6), (g * c / 3,)


def smooth_hinge(x, y):
    """By nested choices (Rennie and Srebro 2005)."""
    z = x * y
    return torch.where(z >= 1, torch.zeros_like(z), torch.where(z <= 0, 0.5 - z, 0.5 * (1 - z) ** 2)).mean()


def smooth_hinge_hand(x, y, g):
    u = 1 - x * y
    c = u.clamp(0, 1)
    return (c * (u - c * 0.5)).mean(), (c * y * (-g / x.numel()),)


def relu6(x):
    return F.relu6(x)


def relu6_hand(x, g):
    return F.hardtanh(x, 0, 6), (torch.ops.aten.hardtanh_backward(g, x, 0.0, 6.0),)


def clamped_twice(x):
    return torch.clamp(torch.clamp(x, max=1.0), min=-1.0)


def clamped_twice_hand(x, g):
    c = x.clamp(-1, 1)
    return c, (torch.where(x == c, g, 0),)


def boxed(x, y):
    """The larger of -1 and the smaller of 1 and a difference: half the slope is passed back at either."""
    r, one = x - y, torch.ones_like(x)
    return (torch.maximum(torch.minimum(r, one), -one) ** 2).mean()


def boxed_hand(x, y, g):
    r = x - y
    c = r.clamp(-1, 1)
    d = (1 - (r.abs() - 1).sign()) * c * (g / r.numel())
    return (c * c).mean(), (d, -d)


def dirichlet(a, b):
    """The divergence of two Dirichlet distributions."""
    of_a, of_b = a.sum(1), b.sum(1)
    near = (a - b) * (torch.digamma(a) - torch.digamma(of_a)[:, None])
    beta = torch.lgamma(b).sum(1) - torch.lgamma(a).sum(1) - torch.lgamma(of_b)
    return (torch.lgamma(of_a) + beta + near.sum(1)).mean()


def dirichlet_hand(a, b, g):
    of_a, of_b = a.sum(1), b.sum(1)
    d, q = a - b, torch.digamma(a) - torch.digamma(of_a)[:, None]
    out = (torch.lgamma(of_a) - torch.lgamma(of_b) + (torch.lgamma(b) - torch.lgamma(a) + d * q).sum(1)).mean()
    c = g / len(a)
    da = (d * torch.polygamma(1, a) - (torch.polygamma(1, of_a) * (of_a - of_b))[:, None]) * c
    return out, (da, (torch.digamma(b) - torch.digamma(of_b)[:, None] - q) * c)


def one(d, n):
    return [d.normal(n, K) * 2]


def pair(d, n):
    return [d.normal(n, K), d.normal(n, K)]


# regression splines: the truncated cubics of the textbooks
def cubics(x, t, c):
    return (torch.clamp(x[:, None] - t, min=0) ** 3 * c).sum(1)


def cubics_hand(x, t, c, g):
    u = (x[:, None] - t).relu()
    u2 = u**2
    u3 = u2 * u
    d = u2 * (3 * c)
    return u3 @ c, (g * d.sum(1), -(g @ d), g @ u3)


PIECEWISE = (
    Form("wing by masks", wing, one, wing_hand, twice=False),
    Form("huber by masks", huber_masked, pair, huber_masked_hand, twice=False),
    Form("expectile", expectile, pair, expectile_hand, twice=False),
    Form("pinball by cases", pinball_cases, pair, pinball_cases_hand, twice=False),
    Form("smelu by masks", smelu, one, smelu_hand, twice=False),
    Form(
        "smooth hinge",
        smooth_hinge,
        lambda d, n: [d.normal(n, K), d.signs(n, K)],
        smooth_hinge_hand,
        ("x",),
        twice=False,
    ),
    Form("truncated cubics", cubics, lambda d, n: [d.normal(n), d.normal(K), d.normal(K)], cubics_hand, twice=False),
    Form("relu6", relu6, one, relu6_hand, twice=False),
    Form("clamped twice", clamped_twice, one, clamped_twice_hand, twice=False),
    Form("a square in a box", boxed, pair, boxed_hand, twice=False),
    Form(
        "kl of two dirichlets",
        dirichlet,
        lambda d, n: [d.positive(n, K), d.positive(n, K)],
        dirichlet_hand,
        twice=False,
    ),
)
