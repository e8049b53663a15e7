"""What is there already and need not be computed again: sums that are lines of the forward, shares, the other of two sigmoids."""

from __future__ import annotations

import torch

from tests.closed.forms.form import Form

K = 20


# Arevalo et al., Gated multimodal units for information fusion, 2017, with a softmax over three of them
def fusion(a, b, c, x, y, z):
    total = a.exp() + b.exp() + c.exp()
    return ((a.exp() / total) * x + (b.exp() / total) * y + (c.exp() / total) * z).tanh()


def fusion_hand(a, b, c, x, y, z, g):
    m = torch.maximum(torch.maximum(a, b), c)
    e = [(t - m).exp() for t in (a, b, c)]
    s = e[0] + e[1] + e[2]
    p = [t / s for t in e]
    o = p[0] * x + p[1] * y + p[2] * z
    h = o.tanh()
    do = torch.ops.aten.tanh_backward(g, h)
    moved = [q * do for q in p]
    return h, (*[(t - o) * d for t, d in zip((x, y, z), moved, strict=True)], *moved)


# McFadden, Conditional logit analysis of qualitative choice behavior, 1974, two goods or none, one bought of each two times
def two_goods(a, b):
    z = 1 + a.exp() + b.exp()
    return -(torch.log(a.exp() / z) + torch.log(b.exp() / z) + torch.log(1 / z)).mean()


def two_goods_hand(a, b, g):
    m = torch.maximum(a, b).relu()
    ea, eb = (a - m).exp(), (b - m).exp()
    s = ea + eb + (-m).exp()
    c = g / len(a)
    return (3 * (m + s.log()) - a - b).mean(), ((3 * ea / s - 1) * c, (3 * eb / s - 1) * c)


# Khosla et al., Supervised contrastive learning, 2020
def supervised_contrast(f, y):
    s = f @ f.T / 0.1
    other = 1 - torch.eye(len(f), dtype=f.dtype)
    alike = (y[:, None] == y[None, :]).to(f.dtype) * other
    log_p = s - (s.exp() * other).sum(1, keepdim=True).log()
    return -((alike * log_p).sum(1) / alike.sum(1)).mean()


def supervised_contrast_hand(f, y, g):
    n = len(f)
    s = f @ f.T * 10
    s.fill_diagonal_(-float("inf"))
    alike = (y[:, None] == y).to(f.dtype)
    alike.fill_diagonal_(0)
    log_p = s.log_softmax(1)
    log_p.fill_diagonal_(0)
    shares = alike / alike.sum(1, keepdim=True)
    ds = (s.softmax(1) - shares) * (10 * g / n)
    return -(shares * log_p).sum() / n, (torch.addmm(ds @ f, ds.T, f),)


# Frosst et al., Analyzing and improving representations with the soft nearest neighbor loss, 2019, without a temperature
def soft_neighbour(s, mask):
    e = s.exp()
    return -torch.log((e * mask).sum(1) / e.sum(1)).mean()


def soft_neighbour_hand(s, mask, g):
    e = (s - s.amax(1, keepdim=True)).exp()
    t = e * mask
    up, down = t.sum(1, keepdim=True), e.sum(1, keepdim=True)
    return (down.log() - up.log()).mean(), ((e / down - t / up) * (g / len(s)),)


# Kingma and Welling, Auto-encoding variational Bayes, 2014, the divergence by the sample itself
def sampled_divergence(mu, log_var, eps):
    z = mu + torch.exp(0.5 * log_var) * eps
    log_q = -0.5 * ((z - mu) ** 2 / log_var.exp() + log_var)
    return (log_q + 0.5 * z**2).sum(1).mean()


def sampled_divergence_hand(mu, log_var, eps, g):
    shift = torch.exp(log_var / 2) * eps
    z = mu + shift
    c = g / len(mu)
    dz = z * c
    return ((z * z - eps * eps - log_var) / 2).sum(1).mean(), (dz, (shift * dz - c) / 2)


# Ethayarajh et al., KTO: Model alignment as prospect theoretic optimization, 2024
def prospects(policy, reference, wanted, kl):
    r = 0.1 * (policy - reference)
    return torch.where(wanted, 1 - torch.sigmoid(r - kl), 1 - torch.sigmoid(kl - r)).mean()


def prospects_hand(policy, reference, wanted, kl, g):
    s = torch.sigmoid(0.1 * (policy - reference) - kl)
    c = g * 0.1 / len(s)
    return torch.where(wanted, 1 - s, s).mean(), (torch.ops.aten.sigmoid_backward(torch.where(wanted, -c, c), s),)


# Galton's correlations of columns, as a matrix against a wanted one
def correlations(x, t):
    c = x - x.mean(0)
    s = c.T @ c
    v = (c * c).sum(0)
    return ((s / torch.outer(v, v).sqrt() - t) ** 2).sum()


def correlations_hand(x, t, g):
    c = x - x.mean(0)
    r = (c * c).sum(0).rsqrt()
    h = c * r
    p = h.T @ h
    d = p - t
    dp = d * (2 * g)
    dh = h @ (dp + dp.T)
    dc = (dh - h * (h * dh).sum(0)) * r
    return (d * d).sum(), (dc - dc.mean(0),)


# Vaswani et al., Attention is all you need, 2017, divided last, and squared
def attention_energy(q, k, v):
    e = (q @ k.T / 4).exp()
    return ((e @ v / e.sum(1, keepdim=True)) ** 2).mean()


def attention_energy_hand(q, k, v, g):
    p = (q @ k.T / 4).softmax(1)
    o = p @ v
    do = o * (2 * g / o.numel())
    ds = torch._softmax_backward_data(do @ v.T, p, 1, p.dtype) / 4
    return (o * o).mean(), (ds @ k, ds.T @ q, p.T @ do)


# Zhao et al., Temporal action detection with structured segment networks, 2017: intervals by their overlap
def intervals(a, b):
    inter = (torch.minimum(a[:, 1], b[:, 1]) - torch.maximum(a[:, 0], b[:, 0])).clamp(min=0)
    union = torch.maximum(a[:, 1], b[:, 1]) - torch.minimum(a[:, 0], b[:, 0])
    return (1 - inter / union).mean()


def intervals_hand(a, b, g):
    (a0, a1), (b0, b1) = a.unbind(1), b.unbind(1)
    inter, union = torch.minimum(a1, b1) - torch.maximum(a0, b0), torch.maximum(a1, b1) - torch.minimum(a0, b0)
    q = inter.relu() / union
    d = (g / len(a)) / union
    dunion, dinter = q * d, torch.where(inter >= 0, -d, 0)
    both, apart = (dunion + dinter) / 2, (dunion - dinter) / 2  # of equals, each gets a half
    da = torch.empty_like(a)
    da[:, 0] = torch.addcmul(-both, (a0 - b0).sign(), apart)
    da[:, 1] = torch.addcmul(both, (a1 - b1).sign(), apart)
    return (1 - q).mean(), (da,)


def six(d, n):
    return [d.normal(n, K) for _ in range(6)]


THERE_ALREADY = (
    Form("gated fusion", fusion, six, fusion_hand, extreme=True),
    Form("two goods", two_goods, lambda d, n: [d.normal(n), d.normal(n)], two_goods_hand, extreme=True),
    Form(
        "supervised contrast by sums",
        supervised_contrast,
        lambda d, n: [d.normal(2 * n, 8), torch.arange(2 * n) % n],
        supervised_contrast_hand,
        ("f",),
        batches=(2, 5),
        large=40,
    ),
    Form(
        "soft nearest neighbour by quotients",
        soft_neighbour,
        lambda d, n: [d.normal(n, K), d.positive(n, K)],
        soft_neighbour_hand,
        ("s",),
    ),
    Form(
        "sampled divergence",
        sampled_divergence,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.normal(n, K)],
        sampled_divergence_hand,
        ("mu", "log_var"),
    ),
    Form(
        "prospects",
        prospects,
        lambda d, n: [d.normal(n), d.normal(n), d.classes(2, n) == 1, d.normal()],
        prospects_hand,
        ("policy",),
        extreme=True,
    ),
    Form(
        "correlations by an outer product",
        correlations,
        lambda d, n: [d.normal(n + 4, 10), d.normal(10, 10)],
        correlations_hand,
        ("x",),
    ),
    Form(
        "attention divided last and squared",
        attention_energy,
        lambda d, n: [d.normal(n + 1, 16), d.normal(n + 1, 16), d.normal(n + 1, 16)],
        attention_energy_hand,
        extreme=True,
    ),
    Form(
        "overlap of intervals",
        intervals,
        lambda d, n: [d.unit(n, 2).cumsum(1), d.unit(n, 2).cumsum(1)],
        intervals_hand,
        ("a",),
        twice=False,
    ),
)
