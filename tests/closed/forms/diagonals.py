"""What stands on a diagonal or is left out there, of matrices of any shape and of batches; shares of two gates."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form


# Feng et al. (2024), one step of the minimal LSTM
def minimal_lstm(h, x, wf, wi, wh):
    f = torch.sigmoid(x @ wf)
    i = torch.sigmoid(x @ wi)
    c = x @ wh
    return f / (f + i) * h + i / (f + i) * c


def minimal_lstm_hand(h, x, wf, wi, wh, g):
    c = x @ wh
    f, i = torch.sigmoid(x @ wf), torch.sigmoid(x @ wi)
    p = f / (f + i)
    e = h - c
    dh = g * p
    dc = g - dh
    t = e * dh * (1 - p)
    da, db = t * (1 - f), t * (i - 1)
    return c + p * e, (dh, da @ wf.T + db @ wi.T + dc @ wh.T, x.T @ da, x.T @ db, x.T @ dc)


# Gao, Yao, Chen (2021), the contradictions of all sentences beside their entailments
def hard_negatives(a, b, c):
    def unit(x):
        return x / x.norm(dim=1, keepdim=True)

    a, b, c = unit(a), unit(b), unit(c)
    s = torch.cat([a @ b.T, a @ c.T], 1) / 0.1
    e = s.exp()
    p = e / e.sum(1, keepdim=True)
    n = torch.arange(len(a))
    return -p[n, n].log().mean()


def hard_negatives_hand(a, b, c, g):
    def unit(x):
        r = x.norm(dim=1, keepdim=True).reciprocal()
        return x * r, r

    (u, ra), (v, rb), (w, rc) = unit(a), unit(b), unit(c)
    n = len(a)
    m = torch.cat([v, w])
    lp = (u @ m.T / 0.1).log_softmax(1)
    d = lp.exp()
    d.diagonal().sub_(1)
    d = d * (10 * g / n)
    du, dm = d @ m, d.T @ u

    def back(dx, x, r):
        return (dx - x * (dx * x).sum(1, keepdim=True)) * r

    return -lp.diagonal().mean(), (back(du, u, ra), back(dm[:n], v, rb), back(dm[n:], w, rc))


# the divergence of N(m, L Lᵀ) from the standard normal
def full_normal(m, factor):
    t = torch.tril(factor)
    trace = torch.diagonal(t @ t.transpose(1, 2), dim1=1, dim2=2).sum(1)
    log_det = 2 * torch.diagonal(t, dim1=1, dim2=2).log().sum(1)
    return 0.5 * (trace + (m**2).sum(1) - m.shape[1] - log_det)


def full_normal_hand(m, factor, g):
    t = factor.tril()
    diagonal = factor.diagonal(dim1=1, dim2=2)
    out = 0.5 * ((t * t).sum((1, 2)) + (m * m).sum(1) - m.shape[1]) - diagonal.log().sum(1)
    d = t * g[:, None, None]
    d.diagonal(dim1=1, dim2=2).sub_(g[:, None] / diagonal)
    return out, (m * g[:, None], d)


# Jones (1924), every pair of atoms once
def lennard_jones(x):
    n = x.shape[0]
    d = x[:, None, :] - x[None, :, :]
    eye = torch.eye(n, dtype=x.dtype)
    sixth = (1 / ((d**2).sum(-1) + eye)) ** 3
    return 0.5 * (4 * (sixth**2 - sixth) * (1 - eye)).sum()


def lennard_jones_hand(x, g):
    d = x[:, None] - x
    r = (d * d).sum(-1).fill_diagonal_(1)
    inverse = (1 / r).fill_diagonal_(0)
    sixth = inverse * inverse * inverse
    twelfth = sixth * sixth
    c = inverse * (12 * sixth - 24 * twelfth) * g
    return 2 * (twelfth - sixth).sum(), (2 * (c.sum(1, keepdim=True) * x - c @ x),)


# Liu, Lee, Jordan (2016), with a Gaussian kernel
def stein_discrepancy(x, s):
    diff = x[:, None, :] - x[None, :, :]
    d = (diff**2).sum(-1)
    cross = ((s[:, None, :] - s[None, :, :]) * diff).sum(-1)
    return (torch.exp(-d / 2) * (s @ s.T + cross + x.shape[1] - d)).mean()


def stein_discrepancy_hand(x, s, g):
    n = len(x)
    d = ((x[:, None] - x) ** 2).sum(-1)
    k = (-0.5 * d).exp()
    sx = s @ x.T
    own = sx.diagonal()
    u = s @ s.T + (own[:, None] - sx - sx.T + own) + x.shape[1] - d
    w = k * (g / (n * n))
    rows, ws = w.sum(1, keepdim=True), w @ s
    a = w * (0.5 * u + 1)
    dx = 2 * (rows * s - ws) - 4 * (a.sum(1, keepdim=True) * x - a @ x)
    return (k * u).mean(), (dx, 2 * (ws + rows * x - w @ x))


def off_diagonal(x):
    """The covariance term of VICReg."""
    x = x - x.mean(0)
    c = x.T @ x / (x.shape[0] - 1)
    return (c - torch.diag(c.diag())).pow(2).sum() / x.shape[1]


def off_diagonal_hand(x, g):
    n, k = x.shape
    x = x - x.mean(0)
    c = x.T @ x / (n - 1)
    c.fill_diagonal_(0)
    dx = x @ (c * (4 * g / (k * (n - 1))))
    return c.square().sum() / k, (dx - dx.mean(0),)


DIAGONALS = (
    Form("covariances", off_diagonal, lambda d, n: [d.normal(n, 20)], off_diagonal_hand, batches=(2, 5)),
    Form(
        "minimal lstm",
        minimal_lstm,
        lambda d, n: [d.normal(n, 16), d.normal(n, 8), d.normal(8, 16), d.normal(8, 16), d.normal(8, 16)],
        minimal_lstm_hand,
    ),
    Form(
        "hard negatives",
        hard_negatives,
        lambda d, n: [d.normal(n, 8), d.normal(n, 8), d.normal(n, 8)],
        hard_negatives_hand,
        extreme=True,
    ),
    Form("kl of a full normal", full_normal, lambda d, n: [d.normal(n, 4), d.positive(n, 4, 4)], full_normal_hand),
    Form(
        "lennard-jones",
        lennard_jones,
        lambda d, n: [3 * d.normal(n, 3)],
        lennard_jones_hand,
        batches=(2, 5),
        twice=False,
    ),
    Form(
        "stein discrepancy",
        stein_discrepancy,
        lambda d, n: [d.normal(n, 4), d.normal(n, 4)],
        stein_discrepancy_hand,
        ratio=1.3,
    ),
)
