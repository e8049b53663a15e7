"""BatchNorm in every spelling, LayerNorm and its relatives, normalised vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

D = 32
EPS = 1e-5


def batchnorm(x, w, b):
    m = x.mean(0, keepdim=True)
    v = ((x - m) ** 2).mean(0, keepdim=True)
    return (x - m) / (v + EPS).sqrt() * w + b


def batchnorm_unbiased(x, w, b):
    return (x - x.mean(0)) / torch.sqrt(x.var(0) + EPS) * w + b


def batchnorm_projection(x, w, b):
    n, d = x.shape
    mean_proj = torch.ones(n, n, dtype=x.dtype) / n
    var_proj = torch.eye(n, dtype=x.dtype) - mean_proj
    v = (x.T @ var_proj @ x).diag() / n
    return var_proj @ x / (v + EPS).sqrt().view(1, d) * w.view(1, d) + b.view(1, d)


def batchnorm_ones(x, w, b):
    """The mean of all rows in each of them, which is one row."""
    n = x.shape[0]
    mean = torch.ones(n, n, dtype=x.dtype) / n
    u = x - mean @ x
    return u / torch.sqrt(mean @ (u * u) + EPS) * w + b


def batchnorm_lecture(hprebn, bngain, bnbias):
    n = hprebn.shape[0]
    bnmeani = 1 / n * hprebn.sum(0, keepdim=True)
    bndiff = hprebn - bnmeani
    bndiff2 = bndiff**2
    bnvar = 1 / (n - 1) * (bndiff2).sum(0, keepdim=True)
    bnvar_inv = (bnvar + 1e-5) ** -0.5
    bnraw = bndiff * bnvar_inv
    return bngain * bnraw + bnbias


def batchnorm_eval_like(x, w, b):
    m = x.mean(0)
    v = (x * x).mean(0) - m * m
    return (x - m) * (v + EPS) ** -0.5 * w + b


def norm_backward(xhat, r, g, w, dims, n, k):
    """(n g - Sum g - k xhat Sum g xhat) r / n with g scaled by w already."""
    return (g - g.sum(dims, keepdim=True) / n - xhat * ((g * xhat).sum(dims, keepdim=True) * (k / n))) * r


def batchnorm_of(unbiased):
    def hand(x, w, b, g):
        n = x.shape[0]
        u = x - x.mean(0)
        v = (u * u).sum(0) / (n - 1 if unbiased else n)
        r = (v + EPS) ** -0.5
        xhat = u * r
        out = xhat * w + b
        db = g.sum(0)
        dw = (g * xhat).sum(0)
        dx = (g - db / n - xhat * (dw / (n - 1 if unbiased else n))) * (w * r)
        return out, (dx, dw, db)

    return hand


def bias_before_batchnorm(x, a, c, w, b):
    h = x @ a + c
    m = h.mean(0, keepdim=True)
    v = h.var(0, keepdim=True, unbiased=False)
    return (h - m) / torch.sqrt(v + EPS) * w + b


def bias_before_batchnorm_hand(x, a, c, w, b, g):
    h = x @ a
    out, (dh, dw, db) = batchnorm_of(False)(h, w, b, g)
    return out, (dh @ a.T, x.T @ dh, torch.zeros_like(c), dw, db)


def standardise(x):
    return (x - x.mean(0)) / x.std(0)


def standardise_hand(x, g):
    n = x.shape[0]
    u = x - x.mean(0)
    r = ((u * u).sum(0) / (n - 1)) ** -0.5
    xhat = u * r
    return xhat, ((g - g.mean(0) - xhat * ((g * xhat).sum(0) / (n - 1))) * r,)


def layernorm(x, w, b):
    m = x.mean(-1, keepdim=True)
    v = x.var(-1, keepdim=True, unbiased=False)
    return (x - m) / torch.sqrt(v + EPS) * w + b


def layernorm_torch(x, w, b):
    return F.layer_norm(x, (x.shape[-1],), w, b)


def layernorm_of_eight(x, w, b):
    """As `nn.LayerNorm(8)` calls it, which knows its size as a number."""
    return F.layer_norm(x, (8,), w, b)


def layernorm_hand(x, w, b, g):
    n = x.shape[-1]
    u = x - x.mean(-1, keepdim=True)
    r = ((u * u).mean(-1, keepdim=True) + EPS) ** -0.5
    xhat = u * r
    out = xhat * w + b
    lead = tuple(range(x.dim() - 1))
    h = g * xhat
    gw = g * w
    dx = (gw - gw.mean(-1, keepdim=True) - xhat * ((h @ w).unsqueeze(-1) / n)) * r
    return out, (dx, h.sum(lead), g.sum(lead))


def rmsnorm(x, w):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * w


def rmsnorm_llama(x, w):
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rmsnorm_hand(x, w, g):
    r = ((x * x).mean(-1, keepdim=True) + 1e-6) ** -0.5
    xhat = x * r
    h = g * xhat
    c = (h @ w).unsqueeze(-1) / x.shape[-1]
    return xhat * w, ((g * w - xhat * c) * r, h.sum(tuple(range(x.dim() - 1))))


def groupnorm(x, w, b):
    n, c, s = x.shape
    y = x.view(n, 4, c // 4, s)
    m = y.mean((2, 3), keepdim=True)
    v = ((y - m) ** 2).mean((2, 3), keepdim=True)
    y = (y - m) / torch.sqrt(v + EPS)
    return y.view(n, c, s) * w.view(1, c, 1) + b.view(1, c, 1)


def groupnorm_hand(x, w, b, g):
    n, c, s = x.shape
    y = x.view(n, 4, c // 4, s)
    k = c // 4 * s
    u = y - y.mean((2, 3), keepdim=True)
    r = ((u * u).mean((2, 3), keepdim=True) + EPS) ** -0.5
    xhat = u * r
    flat = xhat.view(n, c, s)
    out = flat * w.view(1, c, 1) + b.view(1, c, 1)
    h = (g * flat).sum(2)
    gs = g.sum(2)
    a = (gs * w).view(n, 4, c // 4).sum(2).view(n, 4, 1, 1) / k
    q = (h * w).view(n, 4, c // 4).sum(2).view(n, 4, 1, 1) / k
    gw = (g * w.view(1, c, 1)).view(n, 4, c // 4, s)
    dx = (gw - a - xhat * q) * r
    return out, (dx.view(n, c, s), h.sum(0), gs.sum(0))


def instancenorm(x, w, b):
    c = x.shape[1]
    m = x.mean((2, 3), keepdim=True)
    v = x.var((2, 3), keepdim=True, unbiased=False)
    return (x - m) / torch.sqrt(v + EPS) * w.view(1, c, 1, 1) + b.view(1, c, 1, 1)


def instancenorm_hand(x, w, b, g):
    c = x.shape[1]
    k = x.shape[2] * x.shape[3]
    u = x - x.mean((2, 3), keepdim=True)
    r = ((u * u).mean((2, 3), keepdim=True) + EPS) ** -0.5
    xhat = u * r
    out = xhat * w.view(1, c, 1, 1) + b.view(1, c, 1, 1)
    gs = g.sum((2, 3), keepdim=True)
    hs = (g * xhat).sum((2, 3), keepdim=True)
    dx = (g - gs / k - xhat * (hs / k)) * (r * w.view(1, c, 1, 1))
    return out, (dx, hs.sum(0).view(c), gs.sum(0).view(c))


def batchnorm2d(x, w, b):
    c = x.shape[1]
    m = x.mean((0, 2, 3), keepdim=True)
    v = x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - m) / torch.sqrt(v + EPS) * w.view(1, c, 1, 1) + b.view(1, c, 1, 1)


def batchnorm2d_hand(x, w, b, g):
    c = x.shape[1]
    k = x.numel() // c
    u = x - x.mean((0, 2, 3), keepdim=True)
    r = ((u * u).mean((0, 2, 3), keepdim=True) + EPS) ** -0.5
    xhat = u * r
    out = xhat * w.view(1, c, 1, 1) + b.view(1, c, 1, 1)
    gs = g.sum((0, 2, 3), keepdim=True)
    hs = (g * xhat).sum((0, 2, 3), keepdim=True)
    dx = (g - gs / k - xhat * (hs / k)) * (r * w.view(1, c, 1, 1))
    return out, (dx, hs.view(c), gs.view(c))


def l2_normalise(x):
    return x / (x * x).sum(1, keepdim=True).sqrt()


def l2_normalise_hand(x, g):
    r = (x * x).sum(1, keepdim=True) ** -0.5
    y = x * r
    return y, ((g - y * (g * y).sum(1, keepdim=True)) * r,)


def l2_norm_torch(x):
    return x / x.norm(dim=1, keepdim=True)


def cosine_similarity(a, b):
    return (a * b).sum(1) / ((a * a).sum(1).sqrt() * (b * b).sum(1).sqrt())


def cosine_similarity_hand(a, b, g):
    ra, rb = (a * a).sum(1) ** -0.5, (b * b).sum(1) ** -0.5
    r = ra * rb
    c = (a * b).sum(1) * r
    k, q = (g * r).unsqueeze(1), g * c
    da = b * k - a * (q * ra * ra).unsqueeze(1)
    db = a * k - b * (q * rb * rb).unsqueeze(1)
    return c, (da, db)


def cosine_of_normalised(a, b):
    u = a / (a * a).sum(1, keepdim=True).sqrt()
    v = b / (b * b).sum(1, keepdim=True).sqrt()
    return (u * v).sum(1)


def cosine_of_normalised_hand(a, b, g):
    return cosine_similarity_hand(a, b, g)


def weight_norm(v, s, x):
    w = v * (s / (v * v).sum(1).sqrt()).unsqueeze(1)
    return x @ w.T


def weight_norm_hand(v, s, x, g):
    r = (v * v).sum(1) ** -0.5
    k = (s * r).unsqueeze(1)
    w = v * k
    dw = g.T @ x
    t = (dw * v).sum(1) * r
    return x @ w.T, ((dw - v * (t * r).unsqueeze(1)) * k, t, g @ w)


def centre(x):
    return x - x.mean(0)


def centre_hand(x, g):
    return x - x.mean(0), (g - g.mean(0),)


def min_max(x):
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - low) / (high - low)


def min_max_hand(x, g):
    low, high = x.aminmax(dim=1, keepdim=True)
    width = high - low
    o = (x - low) / width
    dot = (g * o).sum(1, keepdim=True)
    at_low, at_high = x == low, x == high
    d = torch.where(at_low, (dot - g.sum(1, keepdim=True)) / at_low.sum(1, keepdim=True), 0)
    return o, (d.add_(g).sub_(torch.where(at_high, dot / at_high.sum(1, keepdim=True), 0)).div_(width),)


def by_largest_magnitude(x):
    return x / x.abs().amax(1, keepdim=True)


def by_largest_magnitude_hand(x, g):
    a = x.abs()
    m = a.amax(1, keepdim=True)
    o = x / m
    largest = a == m
    share = (g * o).sum(1, keepdim=True) / largest.sum(1, keepdim=True)
    return o, ((g - torch.where(largest, x.sign() * share, 0)) / m,)


def xwb(d, n):
    return [d.normal(n, D), d.positive(D), d.normal(D)]


def tokens(d, n):
    return [d.normal(n, 7, D), d.positive(D), d.normal(D)]


def images(d, n):
    return [d.normal(n, 8, 5, 6), d.positive(8), d.normal(8)]


NORMALISATION = (
    Form("batchnorm biased", batchnorm, xwb, batchnorm_of(False)),
    Form("batchnorm n-1", batchnorm_unbiased, xwb, batchnorm_of(True), batches=(2, 5)),
    Form("batchnorm by ones", batchnorm_ones, xwb, batchnorm_of(False)),
    Form("batchnorm projections", batchnorm_projection, xwb, batchnorm_of(False)),
    Form(
        "batchnorm lecture",
        batchnorm_lecture,
        lambda d, n: [d.normal(n, D), d.positive(1, D), d.normal(1, D)],
        None,
        batches=(2, 5),
    ),
    Form("batchnorm E[x2]-E[x]2", batchnorm_eval_like, xwb, batchnorm_of(False), batches=(5,)),
    Form(
        "bias before batchnorm",
        bias_before_batchnorm,
        lambda d, n: [d.normal(n, D), d.normal(D, 16), d.normal(16), d.positive(16), d.normal(16)],
        bias_before_batchnorm_hand,
        exact_zero=("c",),
        batches=(5,),
    ),
    Form("batchnorm images", batchnorm2d, images, batchnorm2d_hand),
    Form("standardise", standardise, lambda d, n: [d.normal(n, D)], standardise_hand, batches=(3, 5)),
    Form("layernorm", layernorm, xwb, layernorm_hand),
    Form("layernorm tokens", layernorm, tokens, layernorm_hand, large=16),
    Form("F.layer_norm", layernorm_torch, tokens, layernorm_hand, large=16),
    Form(
        "F.layer_norm of eight",
        layernorm_of_eight,
        lambda d, n: [d.normal(n, 5, 8), d.positive(8), d.normal(8)],
        layernorm_hand,
        large=16,
    ),
    Form("rmsnorm", rmsnorm, lambda d, n: tokens(d, n)[:2], rmsnorm_hand, large=16),
    Form("rmsnorm llama", rmsnorm_llama, lambda d, n: tokens(d, n)[:2], rmsnorm_hand, large=16),
    Form(
        "groupnorm",
        groupnorm,
        lambda d, n: [d.normal(n, 8, 15), d.positive(8), d.normal(8)],
        groupnorm_hand,
        large=32,
    ),
    Form("instancenorm", instancenorm, images, instancenorm_hand, large=32),
    Form("l2 normalise", l2_normalise, lambda d, n: [d.normal(n, D)], l2_normalise_hand),
    Form("l2 normalise by norm", l2_norm_torch, lambda d, n: [d.normal(n, D)], l2_normalise_hand),
    Form("cosine similarity", cosine_similarity, lambda d, n: [d.normal(n, D), d.normal(n, D)], cosine_similarity_hand),
    Form(
        "cosine of normalised",
        cosine_of_normalised,
        lambda d, n: [d.normal(n, D), d.normal(n, D)],
        cosine_of_normalised_hand,
    ),
    Form(
        "weight norm",
        weight_norm,
        lambda d, n: [d.normal(16, D), d.positive(16), d.normal(n, D)],
        weight_norm_hand,
    ),
    Form("centre", centre, lambda d, n: [d.normal(n, D)], centre_hand),
    Form("min-max scaling", min_max, lambda d, n: [d.normal(n, D)], min_max_hand, twice=False),
    Form(
        "by the largest magnitude",
        by_largest_magnitude,
        lambda d, n: [d.normal(n, D)],
        by_largest_magnitude_hand,
        twice=False,
    ),
)
