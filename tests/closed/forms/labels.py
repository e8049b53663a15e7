"""Losses whose labels are ones at places, or 1 there and -1 elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form
from tests.closed.forms.losses import cross_entropy_hand

K = 16


# Rifkin and Klautau, In defense of one-vs-all classification, 2004, with the logistic loss
def one_vs_all_logistic(x, y):
    t = 2 * F.one_hot(y, x.shape[1]).to(x.dtype) - 1
    return torch.log(1 + torch.exp(-t * x)).sum(1).mean()


def one_vs_all_logistic_hand(x, y, g):
    n = len(y)
    d = x.sigmoid() * (g / n)
    d.scatter_add_(1, y[:, None], (-g / n).expand(n, 1))
    return (F.softplus(x).sum() - x.gather(1, y[:, None]).sum()) / n, (d,)


# Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, 2019
def margins_of_labels(x, m, y):
    ones = F.one_hot(y, x.shape[1]).to(x.dtype)
    z = torch.where(ones > 0, x - m[y][:, None], x)
    return -torch.log(torch.softmax(3 * z, 1))[torch.arange(len(y)), y].mean()


def margins_of_labels_hand(x, m, y, g):
    n = len(y)
    z = 3 * x
    z.scatter_add_(1, y[:, None], (-3 * m[y])[:, None])
    p = z.log_softmax(1)
    d = p.exp() * (3 * g / n)
    d.scatter_add_(1, y[:, None], (-3 * g / n).expand(n, 1))
    return -p.gather(1, y[:, None]).mean(), (d,)


def siglip(a, b, t, bias):
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    lo = a @ b.T * t.exp() + bias
    n = a.shape[0]
    labels = 2 * torch.eye(n, dtype=a.dtype) - torch.ones(n, n, dtype=a.dtype)
    return -torch.log(torch.sigmoid(labels * lo)).sum() / n


def siglip_hand(a, b, t, bias, g):
    n = a.shape[0]
    ra, rb = ((x * x).sum(1, keepdim=True).rsqrt() for x in (a, b))
    za, zb, e = a * ra, b * rb, t.exp()
    c = za @ zb.T * e
    lo = c + bias
    out = (F.softplus(lo).sum() - lo.diagonal().sum()) / n
    d = lo.sigmoid() * (g / n)
    d.diagonal().sub_(g / n)
    da, db = d @ zb * e, d.T @ za * e
    da, db = ra * (da - za * (da * za).sum(1, keepdim=True)), rb * (db - zb * (db * zb).sum(1, keepdim=True))
    return out, (da, db, (d * c).sum(), d.sum())


def one_vs_all(x, y):
    t = 2 * F.one_hot(y, x.shape[1]).to(x.dtype) - 1
    return torch.relu(1 - t * x).sum(1).mean()


def one_vs_all_hand(x, y, g):
    at, z = y[:, None], 1 + x
    z.scatter_(1, at, 1 - x.gather(1, at))
    r = z.relu()
    d = (r > 0).to(x.dtype) * (g / len(y))
    d.scatter_(1, at, -d.gather(1, at))
    return r.sum(1).mean(), (d,)


def n_pair(a, p):
    s = a @ p.T
    n = a.shape[0]
    diff = s - s.diag()[:, None]
    return torch.log(1 + (diff.exp() * (1 - torch.eye(n, dtype=a.dtype))).sum(1)).mean()


def n_pair_hand(a, p, g):
    n = a.shape[0]
    s = a @ p.T
    lse = s.logsumexp(1, keepdim=True)
    d = (s - lse).exp() * (g / n)
    d.diagonal().sub_(g / n)
    return (lse.squeeze(1) - s.diagonal()).mean(), (d @ p, d.T @ a)


def picked_share(x, y):
    p = torch.exp(x) / torch.exp(x).sum(1)[:, None]
    m = (torch.arange(x.shape[1]) == y[:, None]).to(x.dtype)
    return -torch.log((p * m).sum(1)).mean()


def compared_embedding(c, w, x, y):
    hot = (x[..., None] == torch.arange(c.shape[0])).to(c.dtype)
    logits = (hot @ c).view(x.shape[0], -1) @ w
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(y)), y].log().mean()


def compared_embedding_hand(c, w, x, y, g):
    """Bengio et al. 2003: rows of a table, added to where they were read."""
    h = c[x].view(len(y), -1)
    out, (d,) = cross_entropy_hand(h @ w, y, g)
    rows = (d @ w.T).view(-1, c.shape[1])
    return out, (torch.zeros_like(c).index_add_(0, x.flatten(), rows), h.T @ d)


def chosen_label(x, y):
    """Everything but the label's logarithm set to zero, by positions."""
    logp = x - x.exp().sum(1, keepdim=True).log()
    return -torch.where(torch.arange(x.shape[1]) == y[:, None], logp, torch.zeros_like(logp)).sum() / len(y)


# McCullagh, Regression models for ordinal data, 1980
def cumulative_link(f, theta, y):
    below = torch.sigmoid(theta - f[:, None])
    below = torch.cat([torch.zeros_like(below[:, :1]), below, torch.ones_like(below[:, :1])], 1)
    share = below[:, 1:] - below[:, :-1]
    return -torch.log(share[torch.arange(len(y)), y]).mean()


def cumulative_link_hand(f, theta, y, g):
    """log(sigmoid(b) - sigmoid(a)) as log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)), which no large f takes to log 0."""
    n, beyond = len(f), torch.full((1,), torch.inf, dtype=f.dtype)
    bounds = torch.cat([-beyond, theta, beyond])
    a, b = bounds[y] - f, bounds[y + 1] - f
    q = 1 / (b - a).expm1()
    p, r = torch.sigmoid(a), torch.sigmoid(b)
    out = (F.softplus(a, threshold=40) + q.log1p() - F.logsigmoid(b)).mean()
    da, db = (q + p) * (g / n), (r - 1 - q) * (g / n)
    dt = torch.zeros(len(bounds), dtype=f.dtype).index_add_(0, y, da).index_add_(0, y + 1, db)
    return out, (-(da + db), dt[1:-1])


# McFadden, Conditional logit analysis of qualitative choice behavior, 1974; who chooses nothing has utility 0
def outside_option(v, y):
    e = torch.exp(v)
    share = e / (1 + e.sum(1, keepdim=True))
    return -torch.log(share[torch.arange(len(y)), y]).mean()


def outside_option_hand(v, y, g):
    n = len(y)
    z = F.softplus(v.logsumexp(1), threshold=40)
    dv = (v - z[:, None]).exp() * (g / n)
    dv[torch.arange(n), y] -= g / n
    return (z - v[torch.arange(n), y]).mean(), (dv,)


# Birnbaum, Some latent trait models, 1968; the chance to guess right is learned as well
def guessing(t, a, b, c, y):
    g = torch.sigmoid(c)
    p = g + (1 - g) * torch.sigmoid(a * (t[:, None] - b))
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


def guessing_hand(t, a, b, c, y, g):
    d = t[:, None] - b
    z = a * d
    r, s, w = torch.sigmoid(c), torch.sigmoid(z), 1 - y
    p = torch.addcmul(r, s, 1 - r)
    out = (w * (F.softplus(c, threshold=40) + F.softplus(z, threshold=40)) - y * p.log()).mean()
    u, v = y / p * (-g / y.numel()), w * (-g / y.numel())
    k = 1 - s
    dz = (u * k * (1 - r) - v) * s
    dc = ((u * k).sum(0) * (1 - r) - v.sum(0)) * r
    dd = dz * a
    return out, (dd.sum(1), (d * dz).sum(0), -dd.sum(0), dc)


# Salimans et al., PixelCNN++, 2017: the share of a logistic distribution between two bounds
def discretised_logistic(x, lower, upper, s):
    inverse = torch.exp(-s)
    return -torch.log(torch.sigmoid((upper - x) * inverse) - torch.sigmoid((lower - x) * inverse)).mean()


def discretised_logistic_hand(x, lower, upper, s, g):
    inverse, a, b, width = torch.exp(-s), lower - x, upper - x, upper - lower
    p, r, q = a * inverse, b * inverse, 1 / (width * inverse).expm1()
    out = (F.softplus(p, threshold=40) + q.log1p() - F.logsigmoid(r)).mean()
    w, p, r = inverse * (g / len(x)), p.sigmoid(), r.sigmoid()
    return out, ((1 - p - r) * w, torch.addcmul(torch.addcmul(width * q, 1 - r, b), a, p, value=-1) * w)


LABELS = (
    Form(
        "discretised logistic",
        discretised_logistic,
        lambda d, n: [d.normal(n), d.unit(n), d.unit(n) + 1, d.normal(n)],
        discretised_logistic_hand,
        ("x", "s"),
        extreme=True,
    ),
    Form(
        "cumulative link",
        cumulative_link,
        lambda d, n: [d.normal(n), torch.arange(K, dtype=d.dtype), d.classes(K + 1, n)],
        cumulative_link_hand,
        batches=(5,),
        large=128,
        ratio=1.75,
        extreme=True,
    ),
    Form(
        "outside option",
        outside_option,
        lambda d, n: [d.normal(n, K), d.classes(K, n)],
        outside_option_hand,
        ("v",),
        extreme=True,
    ),
    Form(
        "guessing learned",
        guessing,
        lambda d, n: [d.normal(n), d.positive(K), d.normal(K), d.normal(K), d.classes(2, n, K).to(d.dtype)],
        guessing_hand,
        ("t", "a", "b", "c"),
        extreme=True,
    ),
    Form(
        "cross-entropy of a chosen label",
        chosen_label,
        lambda d, n: [d.normal(n, 27), d.classes(27, n)],
        cross_entropy_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form(
        "cross-entropy of a picked share",
        picked_share,
        lambda d, n: [d.normal(n, 27), d.classes(27, n)],
        cross_entropy_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form(
        "embedding by comparison",
        compared_embedding,
        lambda d, n: [d.normal(27, 4), d.normal(12, 27), d.classes(27, n, 3), d.classes(27, n)],
        compared_embedding_hand,
        wrt=("c", "w"),
    ),
    Form(
        "n-pair",
        n_pair,
        lambda d, n: [d.normal(n, 12), d.normal(n, 12)],
        n_pair_hand,
        batches=(2, 5),
        extreme=True,
    ),
    Form(
        "one-vs-all logistic",
        one_vs_all_logistic,
        lambda d, n: [d.normal(n, K), d.classes(K, n)],
        one_vs_all_logistic_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form(
        "margins of labels",
        margins_of_labels,
        lambda d, n: [d.normal(n, K), d.unit(K), d.classes(K, n)],
        margins_of_labels_hand,
        wrt=("x",),
        batches=(2, 5),
    ),
    Form("siglip", siglip, lambda d, n: [d.normal(n, 12), d.normal(n, 12), d.normal(), d.normal()], siglip_hand),
    Form(
        "one-vs-all hinge",
        one_vs_all,
        lambda d, n: [d.normal(n, K), d.classes(K, n)],
        one_vs_all_hand,
        wrt=("x",),
        twice=False,
    ),
)
