"""More published losses and layers, none of which the simplifier was made for."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 48


def label_smooth(x, y):
    n = x.shape[0]
    lp = x - x.exp().sum(1, keepdim=True).log()
    return -(0.9 * lp[torch.arange(n), y] + 0.1 * lp.mean(1)).mean()


def label_smooth_hand(x, y, g):
    n, k = x.shape
    lp = x.log_softmax(1)
    r = torch.arange(n)
    out = -(0.9 * lp[r, y] + 0.1 * lp.mean(1)).mean()
    d = (lp.exp() - 0.1 / k) * (g / n)
    d[r, y] -= 0.9 * g / n
    return (out, (d,))


def swiglu(x, a, b, c):
    u = x @ a
    return u / (1 + (-u).exp()) * (x @ b) @ c


def swiglu_hand(x, a, b, c, g):
    u = x @ a
    v = x @ b
    s = u.sigmoid()
    t = u * s
    h = t * v
    dh = g @ c.T
    dv = dh * t
    du = dh * v * (s + t * (1 - s))
    return (h @ c, (du @ a.T + dv @ b.T, x.T @ du, x.T @ dv, h.T @ g))


def weighted_bce(x, y, w):
    p = 1 / (1 + (-x).exp())
    return -(w * y * p.log() + (1 - y) * (1 - p).log()).mean()


def weighted_bce_hand(x, y, w, g):
    sp = F.softplus(-x)
    c = 1 + (w - 1) * y
    out = ((1 - y) * x + c * sp).mean()
    return (out, ((1 - y - c * torch.sigmoid(-x)) * (g / x.numel()),))


def lin_attn(q, k, v):
    q = F.elu(q) + 1
    k = F.elu(k) + 1
    kv = k.mT @ v
    z = 1 / (q * k.sum(1, keepdim=True)).sum(2, keepdim=True)
    return q @ kv * z


def lin_attn_hand(q, k, v, g):
    eq = F.elu(q)
    ek = F.elu(k)
    a = eq + 1
    b = ek + 1
    kv = b.mT @ v
    s = b.sum(1, keepdim=True)
    z = 1 / (a * s).sum(2, keepdim=True)
    o = a @ kv * z
    gz = g * z
    t = (gz * o).sum(2, keepdim=True)
    da = gz @ kv.mT - t * s
    dkv = a.mT @ gz
    db = v @ dkv.mT - (t * a).sum(1, keepdim=True)
    dv = b @ dkv
    return (
        o,
        (torch.ops.aten.elu_backward(da, 1, 1, 1, True, eq), torch.ops.aten.elu_backward(db, 1, 1, 1, True, ek), dv),
    )


def alibi(q, k, v):
    t = q.shape[1]
    i = torch.arange(t)
    s = q @ k.mT / q.shape[2] ** 0.5 - 0.5 * (i[:, None] - i[None, :]).abs()
    p = s.exp() / s.exp().sum(-1, keepdim=True)
    return p @ v


def alibi_hand(q, k, v, g):
    t = q.shape[1]
    i = torch.arange(t)
    s = q @ k.mT / q.shape[2] ** 0.5 - 0.5 * (i[:, None] - i[None, :]).abs()
    p = s.softmax(-1)
    o = p @ v
    dp = g @ v.mT
    ds = p * (dp - (g * o).sum(-1, keepdim=True)) / q.shape[2] ** 0.5
    return (o, (ds @ k, ds.mT @ q, p.mT @ g))


def masked_ce(x, y, m):
    lp = x - x.exp().sum(-1, keepdim=True).log()
    n = -lp.gather(-1, y[..., None]).squeeze(-1)
    return (n * m).sum() / m.sum()


def masked_ce_hand(x, y, m, g):
    lp = x.log_softmax(-1)
    n = -lp.gather(-1, y[:, None]).squeeze(-1)
    s = m.sum()
    out = (n * m).sum() / s
    c = m * (g / s)
    d = lp.exp() * c[:, None]
    d[torch.arange(len(y)), y] -= c
    return (out, (d,))


def lse_pool(x):
    return (x * 2).exp().mean(1).log() / 2


def lse_pool_hand(x, g):
    n = x.shape[1]
    z = 2 * x
    lse = z.logsumexp(1)
    return ((lse - math.log(n)) / 2, ((z - lse[:, None]).exp() * g[:, None],))


def poisson(x, y):
    return (x.exp() - y * x).mean()


def poisson_hand(x, y, g):
    e = x.exp()
    c = g / x.numel()
    return ((e - y * x).mean(), ((e - y) * c,))


def gnll(m, lv, y):
    return 0.5 * (lv + (y - m) ** 2 / lv.exp()).mean()


def gnll_hand(m, lv, y, g):
    d = y - m
    iv = (-lv).exp()
    c = g / (2 * m.numel())
    t = d * iv
    q = t * d
    return (0.5 * (lv + q).mean(), (t * (-2 * c), (1 - q) * c, t * (2 * c)))


def mahal(x, m, a):
    d = x - m
    return (d * (d @ a)).sum(1)


def mahal_hand(x, m, a, g):
    d = x - m
    e = d @ a
    gc = g[:, None]
    gd = d * gc
    dx = (e + d @ a.T) * gc
    return ((d * e).sum(1), (dx, -dx.sum(0), d.T @ gd))


def distill(s, t):
    T = 2.0
    p = (t / T).exp()
    p = p / p.sum(1, keepdim=True)
    q = (s / T).exp()
    q = q / q.sum(1, keepdim=True)
    return T * T * (p * (p.log() - q.log())).sum(1).mean()


def distill_hand(s, t, g):
    T = 2.0
    n = s.shape[0]
    lp = (t / T).log_softmax(1)
    lq = (s / T).log_softmax(1)
    p = lp.exp()
    q = lq.exp()
    d = lp - lq
    kl = (p * d).sum(1, keepdim=True)
    c = g * T / n
    return (T * T * kl.mean(), ((q - p) * c, p * (d - kl) * c))


def arcface(x, w, y):
    a = x / (x * x).sum(1, keepdim=True).sqrt()
    b = w / (w * w).sum(1, keepdim=True).sqrt()
    c = a @ b.T
    n = x.shape[0]
    z = 16 * (c - 0.3 * F.one_hot(y, w.shape[0]))
    return -(z - z.exp().sum(1, keepdim=True).log())[torch.arange(n), y].mean()


def arcface_hand(x, w, y, g):
    rx = (x * x).sum(1, keepdim=True).rsqrt()
    rw = (w * w).sum(1, keepdim=True).rsqrt()
    a = x * rx
    b = w * rw
    n = x.shape[0]
    z = a @ b.T
    z[torch.arange(n), y] -= 0.3
    z = z * 16
    r = torch.arange(n)
    lp = z.log_softmax(1)
    out = -lp[r, y].mean()
    d = lp.exp() * (16 * g / n)
    d[r, y] -= 16 * g / n
    da = d @ b
    db = d.T @ a
    return (out, ((da - a * (a * da).sum(1, keepdim=True)) * rx, (db - b * (b * db).sum(1, keepdim=True)) * rw))


def layer_scale(x, h, s):
    return x + s * h


def layer_scale_hand(x, h, s, g):
    return (x + s * h, (g, g * s, (g * h).sum(0)))


def se(x, a, b):
    z = x.mean((2, 3))
    s = 1 / (1 + (-(torch.relu(z @ a) @ b)).exp())
    return x * s[:, :, None, None]


def se_hand(x, a, b, g):
    hw = x.shape[2] * x.shape[3]
    z = x.mean((2, 3))
    h = torch.relu(z @ a)
    s = torch.sigmoid(h @ b)
    S = s[:, :, None, None]
    ds = (g * x).sum((2, 3))
    du = ds * s * (1 - s)
    dh = du @ b.T * (h > 0)
    dz = dh @ a.T
    return (x * S, (g * S + (dz / hw)[:, :, None, None], z.T @ dh, h.T @ du))


def vae(x, y, mu, lv):
    r = ((x - y) ** 2).sum(1)
    k = -0.5 * (1 + lv - mu**2 - lv.exp()).sum(1)
    return (r + k).mean()


def vae_hand(x, y, mu, lv, g):
    d = x - y
    e = lv.exp()
    c = g / x.shape[0]
    out = ((d * d).sum(1) - 0.5 * (1 + lv - mu * mu - e).sum(1)).mean()
    dx = d * (2 * c)
    return (out, (dx, -dx, mu * c, (e - 1) * (c / 2)))


def dpo(a, b, c, d):
    return -(1 / (1 + (-0.1 * (a - b - (c - d))).exp())).log().mean()


def dpo_hand(a, b, c, d, g):
    z = 0.1 * (a - b - (c - d))
    k = torch.sigmoid(-z) * (-0.1 * g / a.numel())
    m = -k
    return (-F.logsigmoid(z).mean(), (k, m, m, k))


def sinkhorn(c, u):
    k = (-c / 0.5).exp()
    v = 1 / (u @ k)
    w = 1 / (k @ v)
    return w[:, None] * k * v[None, :]


def sinkhorn_hand(c, u, g):
    k = (-c / 0.5).exp()
    v = 1 / (u @ k)
    w = 1 / (k @ v)
    o = w[:, None] * k * v
    t = g * o
    dw = t.sum(1) / w
    dv = t.sum(0) / v
    dkw = -dw * w * w
    dv = dv + k.T @ dkw
    q = -dv * v * v
    dk = t + k * (torch.outer(dkw, v) + torch.outer(u, q))
    return (o, (dk / -0.5, k @ q))


def cos_emb(a, b, y):
    c = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()
    return torch.where(y > 0, 1 - c, (c - 0.2).clamp(min=0)).mean()


def cos_emb_hand(a, b, y, g):
    ra = (a * a).sum(1).rsqrt()
    rb = (b * b).sum(1).rsqrt()
    r = ra * rb
    c = (a * b).sum(1) * r
    out = torch.where(y > 0, 1 - c, (c - 0.2).clamp(min=0)).mean()
    k = torch.where(y > 0, -1.0, (c > 0.2).to(a.dtype)) * (g / len(y))
    kr = (k * r)[:, None]
    kc = k * c
    return (out, (b * kr - a * (kc * ra * ra)[:, None], a * kr - b * (kc * rb * rb)[:, None]))


def rms_gate(x, z, w):
    h = x * z / (1 + (-z).exp())
    return h / ((h * h).mean(-1, keepdim=True) + 1e-06).sqrt() * w


def rms_gate_hand(x, z, w, g):
    s = z.sigmoid()
    t = z * s
    h = x * t
    r = ((h * h).mean(-1, keepdim=True) + 1e-06).rsqrt()
    n = h * r
    gw = g * w
    dh = (gw - n * (gw * n).mean(-1, keepdim=True)) * r
    return (n * w, (dh * t, dh * x * (s + t * (1 - s)), (g * n).sum(0)))


def corr(x, y):
    a = x - x.mean()
    b = y - y.mean()
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def corr_hand(x, y, g):
    a = x - x.mean()
    b = y - y.mean()
    A = (a * a).sum()
    B = (b * b).sum()
    r = (A * B).rsqrt()
    c = (a * b).sum() * r
    k = g * r
    return (c, (b * k - a * (g * c / A), a * k - b * (g * c / B)))


def dice(p, y):
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def dice_hand(p, y, g):
    d = p.sum() + y.sum() + 1
    n = 2 * (p * y).sum() + 1
    return (1 - n / d, (y * (-2 * g / d) + g * n / d**2,))


def r2(x, y):
    return 1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def r2_hand(x, y, g):
    d = x - y
    v = y - y.mean()
    s = (v * v).sum()
    return (1 - (d * d).sum() / s, (d * (-2 * g / s),))


def logcosh(x, y):
    d = x - y
    return ((d.exp() + (-d).exp()) / 2).log().mean()


def logcosh_hand(x, y, g):
    d = x - y
    dx = d.tanh() * (g / d.numel())
    return ((d.abs() + F.softplus(-2 * d.abs()) - math.log(2)).mean(), (dx, -dx))


def margin(x, y):
    n = x.shape[0]
    c = x[torch.arange(n), y]
    return (x - c[:, None] + 1).clamp(min=0).sum(1).mean()


def margin_hand(x, y, g):
    n = x.shape[0]
    r = torch.arange(n)
    c = x[r, y]
    m = x - (c - 1)[:, None]
    k = (m > 0).to(x.dtype) * (g / n)
    s = k.sum(1)
    k[r, y] -= s
    return (m.clamp(min=0).sum(1).mean(), (k,))


def center_loss(x, c, y):
    return ((x - c[y]) ** 2).sum(1).mean()


def center_loss_hand(x, c, y, g):
    d = x - c[y]
    dx = d * (2 * g / len(y))
    dc = torch.zeros_like(c)
    dc.index_add_(0, y, -dx)
    return ((d * d).sum(1).mean(), (dx, dc))


def logits(d, n):
    return [d.normal(n, K)]


def pair(d, n):
    return [d.normal(n, K), d.normal(n, K)]


def xy(d, n):
    return [d.normal(n, K), d.classes(K, n)]


def qkv(d, n):
    return [d.normal(n, 9, 8), d.normal(n, 9, 8), d.normal(n, 9, 8)]


def several(count, *shape):
    return lambda d, n: [d.normal(n, *shape) for _ in range(count)]


PUBLISHED = (
    Form("label smoothing by parts", label_smooth, xy, label_smooth_hand),
    Form(
        "swiglu layer",
        swiglu,
        lambda d, n: [d.normal(n, 16), d.normal(16, 24), d.normal(16, 24), d.normal(24, 16)],
        swiglu_hand,
    ),
    Form(
        "weighted bce",
        weighted_bce,
        lambda d, n: [d.normal(n, K), d.unit(n, K), d.positive(n, K)],
        weighted_bce_hand,
        wrt=("x",),
    ),
    Form("linear attention with elu", lin_attn, qkv, lin_attn_hand, twice=False),
    Form("attention with alibi", alibi, qkv, alibi_hand),
    Form(
        "masked cross-entropy",
        masked_ce,
        lambda d, n: [d.normal(n, K), d.classes(K, n), d.positive(n)],
        masked_ce_hand,
        wrt=("x",),
    ),
    Form("log-mean-exp pooling", lse_pool, logits, lse_pool_hand),
    Form("poisson nll", poisson, pair, poisson_hand, wrt=("x",)),
    Form("gaussian nll of log variance", gnll, several(3, K), gnll_hand),
    Form("mahalanobis", mahal, lambda d, n: [d.normal(n, 24), d.normal(24), d.normal(24, 24)], mahal_hand),
    Form("distillation", distill, pair, distill_hand),
    Form(
        "arcface", arcface, lambda d, n: [d.normal(n, 16), d.normal(K, 16), d.classes(K, n)], arcface_hand, batches=(5,)
    ),
    Form("layer scale", layer_scale, lambda d, n: [d.normal(n, K), d.normal(n, K), d.normal(K)], layer_scale_hand),
    Form(
        "squeeze and excite",
        se,
        lambda d, n: [d.normal(n, 8, 5, 6), d.normal(8, 4), d.normal(4, 8)],
        se_hand,
        twice=False,
    ),
    Form("vae", vae, several(4, K), vae_hand),
    Form("dpo", dpo, several(4), dpo_hand, large=4096),
    Form("sinkhorn step", sinkhorn, lambda d, n: [d.unit(n, K), d.positive(n)], sinkhorn_hand),
    Form(
        "cosine embedding",
        cos_emb,
        lambda d, n: [d.normal(n, K), d.normal(n, K), d.signs(n)],
        cos_emb_hand,
        wrt=("a", "b"),
        twice=False,
    ),
    Form("gated rmsnorm", rms_gate, lambda d, n: [d.normal(n, K), d.normal(n, K), d.positive(K)], rms_gate_hand),
    Form("pearson", corr, several(2), corr_hand, large=4096, batches=(5,)),
    Form("dice", dice, lambda d, n: [d.unit(n, K), d.unit(n, K)], dice_hand, wrt=("p",)),
    Form("r squared", r2, several(2), r2_hand, wrt=("x",), large=4096, batches=(5,)),
    Form("log cosh", logcosh, pair, logcosh_hand),
    Form("multi margin", margin, xy, margin_hand, twice=False),
    Form(
        "center loss", center_loss, lambda d, n: [d.normal(n, K), d.normal(10, K), d.classes(10, n)], center_loss_hand
    ),
)
