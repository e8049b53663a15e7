"""Pairs that are meant beside pairs that are not: identities as masks, diagonals left out, odds, and products of four tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


# van den Oord, Li, Vinyals (2018), the pairs that are meant and all others summed apart under float masks
def identity_masks(a, b):
    eye = torch.eye(len(a), dtype=a.dtype)
    sim = torch.exp(a @ b.T / 0.5)
    pos = (sim * eye).sum(1)
    neg = (sim * (1 - eye)).sum(1)
    return -torch.log(pos / (pos + neg)).mean()


def identity_masks_hand(a, b, g):
    lp = (a @ b.T / 0.5).log_softmax(1)
    d = lp.exp()
    d.diagonal().sub_(1)
    d.mul_(g / (0.5 * len(a)))
    return (-lp.diagonal().mean(), (d @ b, d.T @ a))


def two_masks(a, b, mask):
    e = torch.exp(a @ b.T / 0.5)
    pos, neg = (e * mask).sum(1), (e * (1 - mask)).sum(1)
    return -torch.log(pos / (pos + neg)).mean()


def two_masks_hand(a, b, mask, g):
    s = a @ b.T / 0.5
    e = torch.exp(s - s.amax(1, keepdim=True))
    pos, total = (e * mask).sum(1), e.sum(1)
    c = 2 * g / len(a)
    d = e * ((c / total)[:, None] - mask * (c / pos)[:, None])
    return ((total / pos).log().mean(), (d @ b, d.T @ a))


# Belghazi et al. 2018, mutual information from below, by Donsker and Varadhan
def mutual_information(t):
    n = len(t)
    eye = torch.eye(n, dtype=t.dtype)
    return torch.log((torch.exp(t) * (1 - eye)).sum() / (n * (n - 1))) - (t * eye).sum() / n


def mutual_information_hand(t, g):
    n = len(t)
    s = t.clone().fill_diagonal_(-math.inf)
    total = s.logsumexp((0, 1))
    d = torch.exp(s - total) * g
    d.diagonal().sub_(g / n)
    return (total - math.log(n * (n - 1)) - t.diagonal().mean(), (d,))


# Hjelm et al. 2019, the same by Jensen and Shannon
def of_pairs(t):
    n = len(t)
    eye = torch.eye(n, dtype=t.dtype)
    return (F.softplus(-t) * eye).sum() / n + (F.softplus(t) * (1 - eye)).sum() / (n * (n - 1))


def of_pairs_hand(t, g):
    n = len(t)
    k = 1 / (n * (n - 1))
    own, all_of = t.diagonal(), F.softplus(t)
    out = F.softplus(-own).sum() / n + (all_of.sum() - all_of.diagonal().sum()) * k
    d = torch.sigmoid(t) * (k * g)
    d.diagonal().copy_(torch.sigmoid(-own) * (-g / n))
    return (out, (d,))


# Frome et al. 2013, every other pair is a margin away from the one that is meant
def ranked_pairs(a, b):
    s = a @ b.T
    eye = torch.eye(len(a), dtype=a.dtype)
    return (torch.relu(0.2 + s - (s * eye).sum(1, keepdim=True)) * (1 - eye)).sum() / len(a)


def ranked_pairs_hand(a, b, g):
    n = len(a)
    s = a @ b.T
    over = (s - s.diagonal()[:, None] + 0.2).relu().fill_diagonal_(0)
    d = (over > 0) * (g / n)
    d.diagonal().sub_(d.sum(1))
    return (over.sum() / n, (d @ b, d.T @ a))


# Hong, Lee, Thorne (2024), preferences by odds
def odds_ratio(c, r, nll):
    of_c, of_r = c - torch.log1p(-torch.exp(c)), r - torch.log1p(-torch.exp(r))
    return (nll - 0.1 * F.logsigmoid(of_c - of_r)).mean()


def odds_ratio_hand(c, r, nll, g):
    n = len(c)
    left_c, left_r = -torch.expm1(c), -torch.expm1(r)
    t = (c - left_c.log()) - (r - left_r.log())
    s = torch.sigmoid(-t) * (-0.1 * g / n)
    return (nll.mean() + 0.1 * F.softplus(-t).mean(), (s / left_c, -s / left_r, (g / n).expand(n)))


# Dao, Gu (2024), a state space as one product: ((C Bᵀ) L) X
def state_space(c, b, decay, x):
    return torch.einsum("hln,hsn,hls,hsp->hlp", c, b, decay, x)


def state_space_hand(c, b, decay, x, g):
    pairs = c @ b.mT
    mixed = pairs * decay
    dmixed = g @ x.mT
    dpairs = dmixed * decay
    return (mixed @ x, (dpairs @ b, dpairs.mT @ c, dmixed * pairs, mixed.mT @ g))


# contrastive predictive coding with a bilinear score, as one product of three tensors
def predictive(z, w, c):
    s = torch.einsum("id,de,je->ij", z, w, c)
    return (torch.logsumexp(s, 1) - (s * torch.eye(len(z), dtype=z.dtype)).sum(1)).mean()


def predictive_hand(z, w, c, g):
    zw = z @ w
    lp = (zw @ c.T).log_softmax(1)
    d = lp.exp()
    d.diagonal().sub_(1)
    d.mul_(g / len(z))
    dzw = d @ c
    return (-lp.diagonal().mean(), (dzw @ w.T, z.T @ dzw, d.T @ zw))


def quotients(z, w, c):
    """The same by exponentials, of which those that are meant are divided by the sums of all."""
    f = torch.exp(z @ w @ c.T)
    return -torch.log(torch.diag(f) / f.sum(1)).mean()


# Sun and others, Circle loss, 2020: weights that pass nothing back
def circle(sp, sn):
    ap, an = torch.relu(1.25 - sp).detach(), torch.relu(sn + 0.25).detach()
    positive = torch.exp(-32 * ap * (sp - 0.75)).sum(1)
    negative = torch.exp(32 * an * (sn - 0.25)).sum(1)
    return torch.log1p(negative * positive).mean()


def circle_hand(sp, sn, g):
    ap, an = torch.relu(1.25 - sp), torch.relu(sn + 0.25)
    lp, ln = (sp - 0.75).mul(-32).mul_(ap), (sn - 0.25).mul(32).mul_(an)
    z = lp.logsumexp(1) + ln.logsumexp(1)
    d = 32 * torch.sigmoid(z) * g / len(sp)
    return F.softplus(z).mean(), (lp.softmax(1).mul_(ap).mul_(-d[:, None]), ln.softmax(1).mul_(an).mul_(d[:, None]))


CONTRASTS = [
    Form("circle loss", circle, lambda d, n: [d.unit(n, 8), d.unit(n, 24)], circle_hand, extreme=True, straight=True),
    Form("identity masks", identity_masks, lambda d, n: [d.normal(n, 16) / 2, d.normal(n, 16) / 2], identity_masks_hand, extreme=True),
    Form("complementary masks", two_masks, lambda d, n: [d.normal(n, 16) / 2, d.normal(n, 16) / 2, d.unit(n, n)], two_masks_hand, wrt=("a", "b")),
    Form("mutual information", mutual_information, lambda d, n: [d.normal(n, n)], mutual_information_hand, batches=(3, 5)),
    Form("jensen-shannon of pairs", of_pairs, lambda d, n: [d.normal(n, n)], of_pairs_hand, batches=(3, 5)),
    Form("ranked pairs", ranked_pairs, lambda d, n: [d.normal(n, 16), d.normal(n, 16)], ranked_pairs_hand, twice=False),
    Form("odds ratio preference", odds_ratio, lambda d, n: [-d.positive(n), -d.positive(n), d.positive(n)], odds_ratio_hand),
    Form("state space by einsum", state_space, lambda d, n: [d.normal(2, n, 8), d.normal(2, n, 8), d.normal(2, n, n), d.normal(2, n, 16)], state_space_hand),
    Form("predictive coding", predictive, lambda d, n: [d.normal(n, 16) / 2, d.normal(16, 12) / 2, d.normal(n, 12) / 2], predictive_hand),
    Form("predictive coding by quotients", quotients, lambda d, n: [d.normal(n, 16) / 2, d.normal(16, 12) / 2, d.normal(n, 12) / 2], predictive_hand, extreme=True),
]  # fmt: skip
