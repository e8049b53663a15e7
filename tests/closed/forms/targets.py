"""Targets whose rows sum to one: smoothed labels, a teacher's softmax; targets flattened beside their logits."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form


def smoothed_one_hot(x, y):
    k = x.shape[1]
    t = torch.nn.functional.one_hot(y, k).to(x.dtype) * 0.9 + 0.1 / 20
    e = torch.exp(x - x.max(1, keepdim=True).values)
    return -(t * torch.log(e / e.sum(1, keepdim=True))).sum() / x.shape[0]


def smoothed_one_hot_hand(x, y, g):
    n, k = x.shape
    r = torch.arange(n)
    lse = x.logsumexp(1, keepdim=True)
    loss = (lse.squeeze(1) - 0.1 * x.mean(1) - 0.9 * x[r, y]).mean()
    d = ((x - lse).exp() - 0.1 / k) * (g / n)
    d[r, y] -= 0.9 * g / n
    return loss, (d,)


def smoothed_scatter(x, y):
    t = torch.full_like(x, 0.1 / (x.shape[1] - 1)).scatter_(1, y[:, None], 0.9)
    return -(t * torch.log_softmax(x, 1)).sum(1).mean()


def smoothed_scatter_hand(x, y, g):
    n, k = x.shape
    r = torch.arange(n)
    a = 0.1 / (k - 1)
    lse = x.logsumexp(1, keepdim=True)
    loss = (lse.squeeze(1) - a * x.sum(1) - (0.9 - a) * x[r, y]).mean()
    d = ((x - lse).exp() - a) * (g / n)
    d[r, y] -= (0.9 - a) * g / n
    return loss, (d,)


def smoothed_divergence(x, y):
    k = x.shape[1]
    q = torch.full_like(x, 0.1 / (k - 1)).scatter(1, y[:, None], 0.9)
    lp = x - torch.log(torch.exp(x).sum(1, keepdim=True))
    return (q * (q.log() - lp)).sum(1).mean()


def smoothed_divergence_hand(x, y, g):
    """Müller et al. 2019, "When does label smoothing help?", as the divergence that it is: less the entropy of the targets."""
    n, k = x.shape
    at, a = y[:, None], 0.1 / (k - 1)
    lp = x.log_softmax(1)
    entropy = 0.1 * math.log(a) + 0.9 * math.log(0.9)
    loss = entropy - (a * lp.sum() + (0.9 - a) * lp.gather(1, at).sum()) / n
    d = (lp.exp() - a) * (g / n)
    return loss, (d.scatter_add_(1, at, ((a - 0.9) * g / n).expand(n, 1)),)


def sequence_gather(x, y):
    b, t, v = x.shape
    lp = torch.log_softmax(x.view(b * t, v), -1)
    return -lp.gather(1, y.view(-1, 1)).mean()


def sequence_gather_hand(x, y, g):
    b, t, v = x.shape
    z, at = x.view(b * t, v), y.view(-1, 1)
    lse = z.logsumexp(1, keepdim=True)
    d = (z - lse).exp() * (g / (b * t))
    d.scatter_add_(1, at, (-g / (b * t)).expand_as(at))
    return (lse - z.gather(1, at)).mean(), (d.view_as(x),)


def teacher(s, t, c):
    p = ((t - c) / 0.04).softmax(-1).detach()
    return -(p * (s / 0.1).log_softmax(-1)).sum(-1).mean()


def teacher_hand(s, t, c, g):
    n = s.shape[0]
    p = ((t - c) / 0.04).softmax(-1)
    ls = (s / 0.1).log_softmax(-1)
    return -(p * ls).sum() / n, ((ls.exp() - p) * (10 * g / n),)


def skewed(s, t):
    """The generalised Jensen-Shannon divergence of distillation, with nine parts of the student in the mixture."""
    ls, lt = torch.log_softmax(s, 1), torch.log_softmax(t, 1)
    ps, pt = ls.exp(), lt.exp()
    mixed = (0.1 * pt + 0.9 * ps).log()
    return (0.1 * pt * (lt - mixed) + 0.9 * ps * (ls - mixed)).sum(1).mean()


def skewed_hand(s, t, g):
    ls, lt = torch.log_softmax(s, 1), torch.log_softmax(t, 1)
    ps, pt = ls.exp(), lt.exp()
    mixed = torch.lerp(pt, ps, 0.9).log()
    a, b = pt * (lt - mixed), ps * (ls - mixed)
    total = b.sum(1, keepdim=True)
    out = (0.1 * a.sum(1, keepdim=True) + 0.9 * total).mean()
    return out, (torch.addcmul(b, ps, total, value=-1) * (0.9 * g / s.shape[0]),)


TARGETS = (
    Form("skewed jensen-shannon", skewed, lambda d, n: [d.normal(n, 20), d.normal(n, 20)], skewed_hand, wrt=("s",)),
    Form(
        "labels smoothed by one_hot",
        smoothed_one_hot,
        lambda d, n: [d.normal(n, 20), d.classes(20, n)],
        smoothed_one_hot_hand,
    ),
    Form(
        "labels smoothed by scatter",
        smoothed_scatter,
        lambda d, n: [d.normal(n, 20), d.classes(20, n)],
        smoothed_scatter_hand,
    ),
    Form(
        "smoothed divergence",
        smoothed_divergence,
        lambda d, n: [d.normal(n, 20), d.classes(20, n)],
        smoothed_divergence_hand,
        extreme=True,
    ),
    Form(
        "sequences of targets",
        sequence_gather,
        lambda d, n: [d.normal(n, 5, 20), d.classes(20, n, 5)],
        sequence_gather_hand,
        batches=(2, 7),
        large=16,
    ),
    Form(
        "a teacher's softmax",
        teacher,
        lambda d, n: [d.normal(n, 20), d.normal(n, 20), d.normal(20)],
        teacher_hand,
        wrt=("s",),
    ),
)
