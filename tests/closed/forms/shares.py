"""Softmaxes that are read by more than one thing: by each other, by a square, by a z-loss, by two targets, along two axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data


def hellinger(x, y):
    p = x.exp() / x.exp().sum(-1, keepdim=True)
    q = y.exp() / y.exp().sum(-1, keepdim=True)
    return (1 - (p * q).sqrt().sum(-1)).mean()


def hellinger_hand(x, y, g):
    """The derivative of the Bhattacharyya coefficient by its logits: half of sqrt(p q) less p times the coefficient."""
    lp, lq = x.log_softmax(-1), y.log_softmax(-1)
    s = ((lp + lq) * 0.5).exp()
    b = s.sum(-1, keepdim=True)
    c = 0.5 * g / len(x)
    return (1 - b).mean(), ((lp.exp() * b - s) * c, (lq.exp() * b - s) * c)


def r_drop(x, y, t):
    p, q = torch.softmax(x, -1), torch.softmax(y, -1)
    kl = 0.5 * ((p * (p.log() - q.log())).sum(-1) + (q * (q.log() - p.log())).sum(-1))
    return (F.cross_entropy(x, t, reduction="none") + F.cross_entropy(y, t, reduction="none") + kl).mean()


def r_drop_hand(x, y, t, g):
    """Liang et al. 2021, "R-Drop", equation 4."""
    lp, lq, at = x.log_softmax(-1), y.log_softmax(-1), t[:, None]
    p, q, r = lp.exp(), lq.exp(), lp - lq
    a, b = (p * r).sum(-1, keepdim=True), (q * r).sum(-1, keepdim=True)
    out = (0.5 * (a - b) - lp.gather(1, at) - lq.gather(1, at)).mean()
    c = g / len(x)
    e = (p - q) * (0.5 * c)
    dx = p * ((r - a) * (0.5 * c) + c) + e
    dy = q * ((b - r) * (0.5 * c) + c) - e
    m = torch.full_like(a, -1) * c
    return out, (dx.scatter_add_(1, at, m), dy.scatter_add_(1, at, m))


def mean_teacher(x, t):
    return ((torch.softmax(x, 1) - torch.softmax(t, 1)) ** 2).sum(1).mean()


def mean_teacher_hand(x, t, g):
    """Tarvainen and Valpola 2017, the mean squared error of two softmaxes."""
    p = x.softmax(1)
    e = p - t.softmax(1)
    return (e * e).sum() / len(x), (SOFTMAX_BACKWARD(e * (2 * g / len(x)), p, 1, p.dtype),)


def mixup(x, a, b, lam):
    lp = F.log_softmax(x, 1)
    r = torch.arange(x.size(0))
    return (-(lam * lp[r, a]) - (1 - lam) * lp[r, b]).mean()


def mixup_hand(x, a, b, lam, g):
    """Zhang et al. 2018, "mixup": the softmax less both targets, each by its share."""
    n = len(x)
    lp = x.log_softmax(1)
    r = torch.arange(n)
    c = g / n
    lc = lam * c
    d = lp.exp() * c
    d.scatter_add_(1, a[:, None], -lc[:, None])
    d.scatter_add_(1, b[:, None], (lc - c)[:, None])
    return (-(lam * lp[r, a]) - (1 - lam) * lp[r, b]).mean(), (d,)


def router(x, w):
    p = torch.softmax(x @ w, -1)
    f = F.one_hot(p.argmax(-1), w.shape[1]).to(x.dtype).mean(0)
    return w.shape[1] * (f * p.mean(0)).sum() + 1e-3 * torch.logsumexp(x @ w, -1).pow(2).mean()


def router_hand(x, w, g):
    """Fedus et al. 2021, the load balancing loss (equation 4), and the z-loss of Zoph et al. 2022 (equation 5)."""
    z, e, n = x @ w, w.shape[1], len(x)
    lse = z.logsumexp(-1, keepdim=True)
    p = (z - lse).exp()
    f = torch.bincount(z.argmax(-1), minlength=e).to(x.dtype) / n
    pf = p @ f
    d = p * ((f - pf[:, None]) * (e * g / n) + lse * (2e-3 * g / n))
    return e * pf.mean() + 1e-3 * (lse * lse).mean(), (d @ w.T, x.T @ d)


def dual_softmax(a, b):
    s = a @ b.T / 0.1
    return -torch.log((torch.softmax(s, 0) * torch.softmax(s, 1)).diagonal()).mean()


def dual_softmax_hand(a, b, g):
    """Sun et al. 2021, "LoFTR": matches by the product of the softmaxes along both axes."""
    n = len(a)
    s = a @ b.T * 10
    rows, columns = s.log_softmax(1), s.log_softmax(0)
    out = -(rows.diagonal() + columns.diagonal()).mean()
    d = (rows.exp() + columns.exp()) * (10 * g / n)
    d.diagonal().sub_(20 * g / n)
    return out, (d @ b, d.T @ a)


def efficient_attention(q, k, v):
    return torch.softmax(q, -1) @ (torch.softmax(k, 1).transpose(1, 2) @ v)


def efficient_attention_hand(q, k, v, g):
    """Shen et al. 2021, "Efficient Attention", equation 4."""
    a, b = q.softmax(-1), k.softmax(1)
    s = b.mT @ v
    ds = a.mT @ g
    dq, dk = SOFTMAX_BACKWARD(g @ s.mT, a, -1, a.dtype), SOFTMAX_BACKWARD(v @ ds.mT, b, 1, b.dtype)
    return a @ s, (dq, dk, b @ ds)


def external_attention(q, mk, mv):
    a = torch.softmax(q @ mk, dim=1)
    return (a / (1e-9 + a.sum(dim=2, keepdim=True))) @ mv


def external_attention_hand(q, mk, mv, g):
    """Guo et al. 2021, "Beyond Self-attention": a softmax along the tokens, then shares along the memory."""
    a = (q @ mk).softmax(1)
    i = 1 / (1e-9 + a.sum(2, keepdim=True))
    h = a * i
    dh = g @ mv.T
    da = (dh - (dh * h).sum(2, keepdim=True)) * i
    ds = SOFTMAX_BACKWARD(da, a, 1, a.dtype)
    d, s = q.shape[-1], mk.shape[1]
    return h @ mv, (ds @ mk.T, q.reshape(-1, d).T @ ds.reshape(-1, s), h.reshape(-1, s).T @ g.reshape(-1, mv.shape[1]))


def relative_bias(q, k, v, table):
    i = torch.arange(q.shape[1])
    rel = (i[None, :] - i[:, None]).clamp(-4, 4) + 4
    p = (torch.einsum("bid,bjd->bij", q, k) + table[rel]).softmax(-1)
    return torch.einsum("bij,bjd->bid", p, v)


def relative_bias_hand(q, k, v, table, g):
    """Raffel et al. 2020, "T5": a learned number for every distance, the far ones in one."""
    i = torch.arange(q.shape[1])
    rel = (i[None, :] - i[:, None]).clamp(-4, 4) + 4
    p = (q @ k.mT + table[rel]).softmax(-1)
    ds = SOFTMAX_BACKWARD(g @ v.mT, p, -1, p.dtype)
    dtable = torch.zeros_like(table).index_put_((rel,), ds.sum(0), accumulate=True)
    return p @ v, (ds @ k, ds.mT @ q, p.mT @ g, dtable)


def adaptive_adjacency(x, e, f, w):
    a = torch.softmax(torch.relu(e @ f.T), dim=1)
    return torch.einsum("vw,bwc->bvc", a, x) @ w + x


def adaptive_adjacency_hand(x, e, f, w, g):
    """Wu et al. 2019, "Graph WaveNet", equation 5."""
    s = torch.relu(e @ f.T)
    a = s.softmax(1)
    ax, dax = a @ x, g @ w.T
    da = (dax @ x.mT).sum(0)
    ds = torch.ops.aten.threshold_backward(SOFTMAX_BACKWARD(da, a, 1, a.dtype), s, 0)
    c = x.shape[-1]
    out = torch.baddbmm(x, ax, w.expand(len(x), c, c))
    return out, (g + a.T @ dax, ds @ f, ds.T @ e, ax.reshape(-1, c).T @ g.reshape(-1, c))


SHARES = (
    Form("hellinger", hellinger, lambda d, n: [d.normal(n, 12), d.normal(n, 12)], hellinger_hand, extreme=True),
    Form("r-drop", r_drop, lambda d, n: [d.normal(n, 9), d.normal(n, 9), d.classes(9, n)], r_drop_hand, extreme=True),
    Form("mean teacher", mean_teacher, lambda d, n: [d.normal(n, 9), d.normal(n, 9)], mean_teacher_hand, wrt=("x",)),
    Form(
        "mixup",
        mixup,
        lambda d, n: [d.normal(n, 9), d.classes(9, n), d.classes(9, n), d.unit(n)],
        mixup_hand,
        wrt=("x",),
        extreme=True,
    ),
    Form("router", router, lambda d, n: [d.normal(n, 6), d.normal(6, 5)], router_hand, extreme=True),
    Form(
        "dual softmax",
        dual_softmax,
        lambda d, n: [d.normal(n, 6), d.normal(n, 6)],
        dual_softmax_hand,
        batches=(5,),
        extreme=True,
    ),
    Form(
        "efficient attention",
        efficient_attention,
        lambda d, n: [d.normal(n, 7, 6), d.normal(n, 7, 6), d.normal(n, 7, 5)],
        efficient_attention_hand,
        large=16,
    ),
    Form(
        "external attention",
        external_attention,
        lambda d, n: [d.normal(n, 7, 6), d.normal(6, 5), d.normal(5, 6)],
        external_attention_hand,
        large=16,
    ),
    Form(
        "relative bias",
        relative_bias,
        lambda d, n: [d.normal(3, n, 8), d.normal(3, n, 8), d.normal(3, n, 7), d.normal(9)],
        relative_bias_hand,
        large=32,
    ),
    Form(
        "adaptive adjacency",
        adaptive_adjacency,
        lambda d, n: [d.normal(n, 7, 5), d.normal(7, 4), d.normal(7, 4), d.normal(5, 5)],
        adaptive_adjacency_hand,
        twice=False,
    ),
)
