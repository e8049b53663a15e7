"""Losses of policies, rankings, embeddings and representations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 48


def pg_entropy(x, a, adv):
    lp = x.log_softmax(-1)
    n = x.shape[0]
    ent = -(lp.exp() * lp).sum(-1)
    return -(lp[torch.arange(n), a] * adv).mean() - 0.01 * ent.mean()


def pg_entropy_hand(x, a, adv, g):
    n = x.shape[0]
    i = torch.arange(n)
    lp = x.log_softmax(-1)
    p = lp.exp()
    ne = (p * lp).sum(-1, keepdim=True)
    out = -(lp[i, a] * adv).mean() + 0.01 * ne.mean()
    c = adv * (g / n)
    d = p * ((lp - ne) * (0.01 * g / n) + c[:, None])
    d[i, a] -= c
    return (out, (d,))


def dqn(q, a, target):
    n = q.shape[0]
    r = q[torch.arange(n), a] - target
    return torch.where(r.abs() < 1, 0.5 * r**2, r.abs() - 0.5).mean()


def dqn_hand(q, a, target, g):
    n = q.shape[0]
    i = torch.arange(n)
    r = q[i, a] - target
    d = r.clamp(-1, 1)
    dq = torch.zeros_like(q)
    dq[i, a] = d * (g / n)
    return ((d * (r - 0.5 * d)).mean(), (dq,))


def cox(eta, event):
    r = eta.exp().cumsum(0).log()
    return -((eta - r) * event).sum() / event.sum()


def cox_hand(eta, event, g):
    r = eta.logcumsumexp(0)
    total = event.sum()
    out = -((eta - r) * event).sum() / total
    q = (event.log() - r).flip(0).logcumsumexp(0).flip(0)  # who writes it knows that no event is negative
    return (out, (((eta + q).exp() - event) * (g / total),))


def ranknet(s, y):
    d = s[:, None] - s[None, :]
    t = (y[:, None] > y[None, :]).to(s.dtype)
    return (t * (1 + (-d).exp()).log()).sum()


def ranknet_hand(s, y, g):
    d = s[:, None] - s[None, :]
    t = (y[:, None] > y[None, :]).to(s.dtype)
    k = t * torch.sigmoid(-d)
    return ((t * F.softplus(-d)).sum(), ((k.sum(0) - k.sum(1)) * g,))


def listnet(s, y):
    return -(y.exp() / y.exp().sum(1, keepdim=True) * (s.exp() / s.exp().sum(1, keepdim=True)).log()).sum(1).mean()


def listnet_hand(s, y, g):
    lp = s.log_softmax(1)
    q = y.softmax(1)
    return (-(q * lp).sum(1).mean(), ((lp.exp() - q) * (g / len(s)),))


def transe(h, r, t, h2, t2):
    p = ((h + r - t) ** 2).sum(1).sqrt()
    n = ((h2 + r - t2) ** 2).sum(1).sqrt()
    return (1 + p - n).clamp(min=0).mean()


def transe_hand(h, r, t, h2, t2, g):
    a = h + r - t
    b = h2 + r - t2
    p = (a * a).sum(1).sqrt()
    n = (b * b).sum(1).sqrt()
    e = 1 + p - n
    k = (e > 0).to(h.dtype) * (g / len(h))
    da = a * (k / p)[:, None]
    db = b * (-k / n)[:, None]
    return (e.clamp(min=0).mean(), (da, da + db, -da, db, -db))


def dist_mult(h, r, t):
    return torch.sigmoid((h * r * t).sum(1)).log().mean()


def dist_mult_hand(h, r, t, g):
    hr = h * r
    s = (hr * t).sum(1)
    k = (torch.sigmoid(-s) * (g / len(s)))[:, None]
    tk = t * k
    return (F.logsigmoid(s).mean(), (r * tk, h * tk, hr * k))


def sgns(u, v, neg):
    pos = (u * v).sum(1)
    ns = (neg @ u[..., None])[..., 0]
    return -(torch.sigmoid(pos).log() + torch.sigmoid(-ns).log().sum(1)).mean()


def sgns_hand(u, v, neg, g):
    pos = (u * v).sum(1)
    ns = (neg @ u[..., None])[..., 0]
    c = g / len(u)
    dp = torch.sigmoid(-pos) * -c
    dn = torch.sigmoid(ns) * c
    out = (F.softplus(-pos) + F.softplus(ns).sum(1)).mean()
    return (out, (v * dp[:, None] + (dn[:, None] @ neg)[:, 0], u * dp[:, None], dn[..., None] * u[:, None]))


def glove(w, c, bw, bc, f, lx):
    r = w @ c.T + bw[:, None] + bc - lx
    return (f * r**2).sum()


def glove_hand(w, c, bw, bc, f, lx, g):
    r = w @ c.T + bw[:, None] + bc - lx
    fr = f * r
    d = fr * (2 * g)
    return ((fr * r).sum(), (d @ c, d.T @ w, d.sum(1), d.sum(0)))


def mf(p, q, bu, bi, u, i, r):
    e = r - ((p[u] * q[i]).sum(1) + bu[u] + bi[i])
    return (e**2).mean()


def mf_hand(p, q, bu, bi, u, i, r, g):
    a = p[u]
    b = q[i]
    e = r - (a * b).sum(1) - bu[u] - bi[i]
    de = e * (-2 * g / len(e))
    z = torch.zeros_like
    return (
        (e * e).mean(),
        (
            z(p).index_add_(0, u, b * de[:, None]),
            z(q).index_add_(0, i, a * de[:, None]),
            z(bu).index_add_(0, u, de),
            z(bi).index_add_(0, i, de),
        ),
    )


def fm(x, v, w):
    lin = x @ w
    s = x @ v
    q = x**2 @ v**2
    return lin + 0.5 * (s**2 - q).sum(1)


def fm_hand(x, v, w, g):
    s = x @ v
    x2 = x * x
    v2 = v * v
    out = x @ w + 0.5 * (s * s - x2 @ v2).sum(1)
    gs = g[:, None] * s
    dx = gs @ v.T - x * (g[:, None] * v2.sum(1)) + g[:, None] * w
    dv = x.T @ gs - v * (x2.T @ g)[:, None]
    return (out, (dx, dv, x.T @ g))


def gmm_nll(x, mu, logpi):
    d = ((x[:, None] - mu) ** 2).sum(-1)
    return -(logpi - 0.5 * d).exp().sum(1).log().mean()


def gmm_nll_hand(x, mu, logpi, g):
    r = x[:, None] - mu
    z = logpi - 0.5 * (r * r).sum(-1)
    lse = z.logsumexp(1, keepdim=True)
    w = (z - lse).exp() * (-g / len(x))
    dr = r * w[..., None]
    return (-lse.mean(), (-dr.sum(1), dr.sum(0), w.sum(0)))


def js(x, y):
    p = x.softmax(1)
    q = y.softmax(1)
    m = (p + q) / 2
    return 0.5 * ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)).mean()


def js_hand(x, y, g):
    lp = x.log_softmax(1)
    lq = y.log_softmax(1)
    p = lp.exp()
    q = lq.exp()
    lm = ((p + q) / 2).log()
    a = lp - lm
    b = lq - lm
    sa = (p * a).sum(1, keepdim=True)
    sb = (q * b).sum(1, keepdim=True)
    k = 0.5 * g / len(x)
    return (0.5 * (sa + sb).mean(), (p * (a - sa) * k, q * (b - sb) * k))


def distil_lp(x, y):
    T = 4.0
    lp = (x / T).log_softmax(1)
    q = (y / T).softmax(1)
    return T * T * (q * (q.log() - lp)).sum(1).mean()


def distil_hand(x, y, g):
    T = 4.0
    lp = (x / T).log_softmax(1)
    lq = (y / T).log_softmax(1)
    q = lq.exp()
    return (T * T * (q * (lq - lp)).sum(1).mean(), ((lp.exp() - q) * (T * g / len(x)),))


def poly_focal(x, y):
    p = x.softmax(1)[torch.arange(len(y)), y]
    return (-p.log() + 1.0 * (1 - p)).mean()


def poly_hand(x, y, g):
    n = len(y)
    i = torch.arange(n)
    lp = x.log_softmax(1)
    e = lp[i, y]
    p = e.exp()
    k = (1 + p) * (g / n)
    d = lp.exp() * k[:, None]
    d[i, y] -= k
    return ((1 - p - e).mean(), (d,))


def barlow(a, b):
    n, d = a.shape
    za = (a - a.mean(0)) / a.std(0)
    zb = (b - b.mean(0)) / b.std(0)
    c = za.T @ zb / n
    diff = (c - torch.eye(d)) ** 2
    on = torch.diagonal(diff).sum()
    return on + 0.005 * (diff.sum() - on)


def barlow_hand(a, b, g):
    n = len(a)

    def norm(x):
        v, m = torch.var_mean(x, 0)
        r = v.rsqrt()
        return ((x - m) * r, r)

    za, ra = norm(a)
    zb, rb = norm(b)
    c = za.T @ zb / n
    e = c.clone()
    e.diagonal().sub_(1)
    dc = e * (0.01 * g / n)
    dd = e.diagonal()
    on = (dd * dd).sum()
    out = 0.005 * (e * e).sum() + 0.995 * on
    dc.diagonal().copy_(dd * (2 * g / n))
    ga = zb @ dc.T
    gb = za @ dc

    def back(gz, z, r):
        return r * (gz - gz.mean(0) - z * ((gz * z).sum(0) / (n - 1)))

    return (out, (back(ga, za, ra), back(gb, zb, rb)))


def supcon(z, y):
    n = len(y)
    s = z @ z.T / 0.2
    eye = torch.eye(n, dtype=torch.bool)
    e = s.masked_fill(eye, -1000000000.0)
    lp = e - e.exp().sum(1, keepdim=True).log()
    m = ((y[:, None] == y[None, :]) & ~eye).to(z.dtype)
    return -((m * lp).sum(1) / m.sum(1).clamp(min=1)).mean()


def supcon_hand(z, y, g):
    n = len(y)
    s = z @ z.T / 0.2
    eye = torch.eye(n, dtype=torch.bool)
    lp = s.masked_fill_(eye, -1000000000.0).log_softmax(1)
    m = ((y[:, None] == y[None, :]) & ~eye).to(z.dtype)
    c = m.sum(1)
    cm = c.clamp(min=1)
    out = -((m * lp).sum(1) / cm).mean()
    k = g / n / cm
    d = lp.exp() * (c * k * 5)[:, None] - m * (k * 5)[:, None]
    return (out, (d @ z + d.T @ z,))


def cosface(x, w, y):
    xn = x / (x * x).sum(1, keepdim=True).sqrt()
    wn = w / (w * w).sum(1, keepdim=True).sqrt()
    c = xn @ wn.T
    return F.cross_entropy(16 * (c - 0.35 * F.one_hot(y, w.shape[0])), y)


def cosface_hand(x, w, y, g):
    n = len(y)
    i = torch.arange(n)
    rx = (x * x).sum(1, keepdim=True).rsqrt()
    rw = (w * w).sum(1, keepdim=True).rsqrt()
    xn = x * rx
    wn = w * rw
    c = xn @ wn.T * 16
    c[i, y] -= 16 * 0.35
    lp = c.log_softmax(1)
    out = -lp[i, y].mean()
    d = lp.exp() * (16 * g / n)
    d[i, y] -= 16 * g / n
    a = d @ wn
    b = d.T @ xn
    return (out, (rx * (a - xn * (a * xn).sum(1, keepdim=True)), rw * (b - wn * (b * wn).sum(1, keepdim=True))))


def ridge(x, w, y):
    r = x @ w - y
    return (r**2).sum() / len(y) + 0.1 * (w**2).sum()


def ridge_hand(x, w, y, g):
    r = x @ w - y
    return ((r * r).sum() / len(y) + 0.1 * (w * w).sum(), (x.T @ (r * (2 * g / len(y))) + w * (0.2 * g),))


def logreg(x, w, y):
    z = x @ w
    return (1 + (-y * z).exp()).log().mean() + 0.05 * (w * w).sum()


def logreg_hand(x, w, y, g):
    m = -y * (x @ w)
    dz = m.sigmoid() * y * (-g / len(y))
    return (F.softplus(m).mean() + 0.05 * (w * w).sum(), (x.T @ dz + w * (0.1 * g),))


def pca(x, w):
    z = x @ w
    return ((z @ w.T - x) ** 2).sum(1).mean()


def pca_hand(x, w, g):
    z = x @ w
    r = z @ w.T - x
    d = r * (2 * g / len(x))
    return ((r * r).sum(1).mean(), (d.T @ z + x.T @ (d @ w),))


def style(f, t):
    n, c, h, w = f.shape
    x = f.reshape(n, c, h * w)
    gm = x @ x.mT / (c * h * w)
    return ((gm - t) ** 2).mean()


def style_hand(f, t, g):
    n, c, h, w = f.shape
    x = f.reshape(n, c, h * w)
    r = x @ x.mT / (c * h * w) - t
    d = r * (2 * g / (r.numel() * c * h * w))
    return ((r * r).mean(), ((d @ x + d.mT @ x).view_as(f),))


def tv(x):
    return ((x[:, 1:] - x[:, :-1]) ** 2).mean()


def tv_hand(x, g):
    r = x[:, 1:] - x[:, :-1]
    d = r * (2 * g / r.numel())
    dx = F.pad(d, (1, 0)) - F.pad(d, (0, 1))
    return ((r * r).mean(), (dx,))


def several(count, *shape):
    return lambda d, n: [d.normal(n, *shape) for _ in range(count)]


def pair(d, n):
    return [d.normal(n, K), d.normal(n, K)]


LEARNING = (
    Form(
        "policy gradient entropy",
        pg_entropy,
        lambda d, n: [d.normal(n, K), d.classes(K, n), d.normal(n)],
        pg_entropy_hand,
        wrt=("x",),
    ),
    Form(
        "dqn huber",
        dqn,
        lambda d, n: [d.normal(n, 6), d.classes(6, n), d.normal(n)],
        dqn_hand,
        wrt=("q",),
        large=512,
        twice=False,
    ),
    Form(
        "cox", cox, lambda d, n: [d.normal(n), d.unit(n)], cox_hand, wrt=("eta",), large=4096, batches=(5,), ratio=1.85
    ),
    Form("ranknet", ranknet, lambda d, n: [d.normal(n), d.normal(n)], ranknet_hand, wrt=("s",), batches=(5,)),
    Form("listnet", listnet, pair, listnet_hand, wrt=("s",)),
    Form("transe", transe, several(5, K), transe_hand),
    Form("distmult", dist_mult, several(3, K), dist_mult_hand),
    Form("word2vec", sgns, lambda d, n: [d.normal(n, 16), d.normal(n, 16), d.normal(n, 5, 16)], sgns_hand),
    Form(
        "glove",
        glove,
        lambda d, n: [
            d.normal(n, 8),
            d.normal(n + 2, 8),
            d.normal(n),
            d.normal(n + 2),
            d.unit(n, n + 2),
            d.normal(n, n + 2),
        ],
        glove_hand,
        wrt=("w", "c", "bw", "bc"),
    ),
    Form(
        "matrix factorisation",
        mf,
        lambda d, n: [
            d.normal(30, 8),
            d.normal(40, 8),
            d.normal(30),
            d.normal(40),
            d.classes(30, n),
            d.classes(40, n),
            d.normal(n),
        ],
        mf_hand,
        wrt=("p", "q", "bu", "bi"),
    ),
    Form("factorisation machine", fm, lambda d, n: [d.normal(n, 20), d.normal(20, 8), d.normal(20)], fm_hand),
    Form("mixture of gaussians", gmm_nll, lambda d, n: [d.normal(n, 12), d.normal(5, 12), d.normal(5)], gmm_nll_hand),
    Form("jensen shannon", js, pair, js_hand),
    Form("distillation log_softmax", distil_lp, pair, distil_hand, wrt=("x",)),
    Form("poly loss", poly_focal, lambda d, n: [d.normal(n, K), d.classes(K, n)], poly_hand, batches=(5,)),
    Form("barlow", barlow, lambda d, n: [d.normal(n, 16), d.normal(n, 16)], barlow_hand, batches=(5,)),
    Form(
        "supcon", supcon, lambda d, n: [d.normal(n, 16) * 0.3, d.classes(5, n)], supcon_hand, wrt=("z",), batches=(5,)
    ),
    Form(
        "cosface", cosface, lambda d, n: [d.normal(n, 16), d.normal(K, 16), d.classes(K, n)], cosface_hand, batches=(5,)
    ),
    Form("ridge", ridge, lambda d, n: [d.normal(n, 12), d.normal(12), d.normal(n)], ridge_hand, wrt=("w",)),
    Form("logistic l2", logreg, lambda d, n: [d.normal(n, 12), d.normal(12), d.signs(n)], logreg_hand, wrt=("w",)),
    Form("pca", pca, lambda d, n: [d.normal(n, 12), d.normal(12, 4)], pca_hand, wrt=("w",)),
    Form("style", style, lambda d, n: [d.normal(n, 8, 5, 6), d.normal(n, 8, 8)], style_hand, wrt=("f",)),
    Form("total variation", tv, several(1, K), tv_hand, batches=(5,)),
)
