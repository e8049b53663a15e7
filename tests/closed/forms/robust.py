"""Losses with kinks, heavy tails and margins."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

K = 48


def huber(x, y):
    r = x - y
    return torch.where(r.abs() <= 1.0, 0.5 * r**2, 1.0 * (r.abs() - 0.5)).mean()


def huber_hand(x, y, g):
    r = x - y
    d = r.clamp(-1, 1)
    out = (d * (r - 0.5 * d)).mean()
    dx = d * (g / r.numel())
    return (out, (dx, -dx))


def huber_d(x, y):
    delta = 0.7
    r = (x - y).abs()
    return torch.where(r < delta, 0.5 * r * r, delta * (r - 0.5 * delta)).sum()


def huber_d_hand(x, y, g):
    r = x - y
    d = r.clamp(-0.7, 0.7)
    out = (d * (r - 0.5 * d)).sum()
    dx = d * g
    return (out, (dx, -dx))


def smooth_l1(x, y):
    beta = 0.5
    r = x - y
    a = r.abs()
    return torch.where(a < beta, 0.5 * a**2 / beta, a - 0.5 * beta).mean()


def smooth_l1_hand(x, y, g):
    r = x - y
    d = r.clamp(-0.5, 0.5) * (2 * g / r.numel())
    return torch.nn.functional.smooth_l1_loss(x, y, beta=0.5), (d, -d)


# Fujimoto et al., Addressing function approximation error in actor-critic methods, 2018
def twin_critics(q1, q2, t):
    return torch.nn.functional.smooth_l1_loss(q1, t) + torch.nn.functional.smooth_l1_loss(q2, t)


def twin_critics_hand(q1, q2, t, g):
    huber, c = torch.nn.functional.huber_loss, g / t.numel()
    return huber(q1, t) + huber(q2, t), ((q1 - t).clamp(-1, 1) * c, (q2 - t).clamp(-1, 1) * c)


def laplace_nll(m, s, y):
    return ((y - m).abs() / s.exp() + s).mean()


def laplace_nll_hand(m, s, y, g):
    r = m - y
    i = (-s).exp()
    z = r.abs() * i
    c = g / r.numel()
    dm = r.sign() * i * c
    return ((z + s).mean(), (dm, c - z * c, -dm))


def student_t(x, m):
    nu = 4.0
    return (0.5 * (nu + 1) * (1 + (x - m) ** 2 / nu).log()).mean()


def student_t_hand(x, m, g):
    r = x - m
    q = r * r
    dx = r / (q + 4) * (5 * g / r.numel())
    return (torch.log1p(q / 4).mean() * 2.5, (dx, -dx))


def charbonnier(x, y):
    return ((x - y) ** 2 + 1e-06).sqrt().mean()


def charbonnier_hand(x, y, g):
    r = x - y
    q = (r * r + 1e-06).sqrt()
    dx = r / q * (g / r.numel())
    return (q.mean(), (dx, -dx))


def exp_loss(x, y):
    return (-x * y).exp().mean()


def exp_loss_hand(x, y, g):
    e = (-x * y).exp()
    return (e.mean(), (e * y * (-g / x.numel()),))


def squared_hinge(x, y):
    return ((1 - x * y).clamp(min=0) ** 2).mean()


def squared_hinge_hand(x, y, g):
    m = (1 - x * y).clamp(min=0)
    return ((m * m).mean(), (m * y * (-2 * g / x.numel()),))


def tweedie(x, y):
    p = 1.5
    return (-y * (x * (1 - p)).exp() / (1 - p) + (x * (2 - p)).exp() / (2 - p)).mean()


def tweedie_hand(x, y, g):
    a = (x * -0.5).exp()
    b = (x * 0.5).exp()
    ya = y * a
    return ((ya + b).mean() * 2, ((b - ya) * (g / x.numel()),))


def mape(x, y):
    return ((x - y) / y).abs().mean()


def mape_hand(x, y, g):
    r = (x - y) / y
    return (r.abs().mean(), (r.sign() / y * (g / r.numel()),))


def msle(x, y):
    return (((1 + x).log() - (1 + y).log()) ** 2).mean()


def msle_hand(x, y, g):
    r = torch.log1p(x) - torch.log1p(y)
    return ((r * r).mean(), (r / (1 + x) * (2 * g / r.numel()),))


def contrastive10(a, b, y):
    d = ((a - b) ** 2).sum(1).sqrt()
    return (y * d**2 + (1 - y) * (10 - d).clamp(min=0) ** 2).mean()


def contrastive10_hand(a, b, y, g):
    r = a - b
    q = (r * r).sum(1)
    d = q.sqrt()
    m = (10 - d).clamp(min=0)
    out = (y * q + (1 - y) * m * m).mean()
    k = (y - (1 - y) * m / d) * (2 * g / len(y))
    da = r * k[:, None]
    return (out, (da, -da))


def iou(p, y):
    i = (p * y).sum()
    u = p.sum() + y.sum() - i
    return 1 - i / u


def iou_hand(p, y, g):
    i = (p * y).sum()
    u = p.sum() + y.sum() - i
    r = i / u
    k = g / u
    return (1 - r, (k * r - y * (k * (1 + r)),))


def tversky(p, y):
    tp = (p * y).sum()
    fp = (p * (1 - y)).sum()
    fn = ((1 - p) * y).sum()
    return 1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)


def tversky_hand(p, y, g):
    tp = (p * y).sum()
    sp = p.sum()
    sy = y.sum()
    d = tp + 0.3 * (sp - tp) + 0.7 * (sy - tp) + 1
    t = (tp + 1) / d
    k = g / d
    return (1 - t, (y * -k + 0.3 * k * t,))


def pinball(y, q):
    e = y - q
    return torch.maximum(0.9 * e, (0.9 - 1) * e).mean()


def pinball_hand(y, q, g):
    e = y - q
    d = (e.sign() + 0.8) * (g / (2 * e.numel()))
    return (torch.maximum(0.9 * e, -0.1 * e).mean(), (d, -d))


def clipped(new, old, a):
    r = (new - old).exp()
    return -torch.minimum(r * a, r.clamp(0.8, 1.2) * a).mean()


def clipped_hand(new, old, a, g):
    r = (new - old).exp()
    x, y = r * a, r.clamp(0.8, 1.2) * a
    return (-torch.minimum(x, y).mean(), (torch.where(x <= y, x, 0) * (-g / len(a)),))


def several(count, *shape):
    return lambda d, n: [d.normal(n, *shape) for _ in range(count)]


def pair(d, n):
    return [d.normal(n, K), d.normal(n, K)]


ROBUST = (
    Form("huber where", huber, pair, huber_hand, twice=False),
    Form("huber delta abs", huber_d, pair, huber_d_hand, twice=False),
    Form("smooth l1", smooth_l1, pair, smooth_l1_hand, twice=False),
    Form("twin critics", twin_critics, several(3), twin_critics_hand, wrt=("q1", "q2"), twice=False),
    Form("laplace nll", laplace_nll, several(3, K), laplace_nll_hand, twice=False),
    Form("student t", student_t, pair, student_t_hand),
    Form("charbonnier", charbonnier, pair, charbonnier_hand),
    Form("exp loss", exp_loss, lambda d, n: [d.normal(n, K), d.signs(n, K)], exp_loss_hand, wrt=("x",)),
    Form(
        "squared hinge",
        squared_hinge,
        lambda d, n: [d.normal(n, K), d.signs(n, K)],
        squared_hinge_hand,
        wrt=("x",),
        twice=False,
    ),
    Form("tweedie", tweedie, pair, tweedie_hand, wrt=("x",)),
    Form("mape", mape, pair, mape_hand, wrt=("x",), twice=False),
    Form("msle", msle, lambda d, n: [d.unit(n, K), d.unit(n, K)], msle_hand, wrt=("x",)),
    Form(
        "contrastive",
        contrastive10,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.unit(n)],
        contrastive10_hand,
        wrt=("a", "b"),
        twice=False,
    ),
    Form("pinball", pinball, pair, pinball_hand, twice=False),
    Form("clipped objective", clipped, several(3), clipped_hand, wrt=("new",), twice=False),
    Form("iou", iou, lambda d, n: [d.unit(n, K), d.unit(n, K)], iou_hand, wrt=("p",)),
    Form("tversky", tversky, lambda d, n: [d.unit(n, K), d.unit(n, K)], tversky_hand, wrt=("p",)),
)
