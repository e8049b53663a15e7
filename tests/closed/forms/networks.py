"""Regressions, small networks and recurrent cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form
from tests.closed.forms.losses import cross_entropy_hand

D, H, K = 12, 16, 10


def linear_regression(x, y, w, b):
    return ((x @ w + b - y) ** 2).mean()


def linear_regression_hand(x, y, w, b, g):
    r = x @ w + b - y
    d = r * (2 * g / r.numel())
    return (r * r).mean(), (x.T @ d, d.sum(0))


def logistic_regression(x, y, w, b):
    p = 1 / (1 + (-(x @ w + b)).exp())
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def logistic_regression_hand(x, y, w, b, g):
    z = x @ w + b
    d = (z.sigmoid() - y) * (g / y.numel())
    return (F.softplus(z) - z * y).mean(), (x.T @ d, d.sum())


def softmax_regression(x, y, w, b):
    z = x @ w + b
    e = z.exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


def softmax_regression_hand(x, y, w, b, g):
    loss, (d,) = cross_entropy_hand(x @ w + b, y, g)
    return loss, (x.T @ d, d.sum(0))


def mlp(x, y, w1, b1, w2, b2):
    h = torch.tanh(x @ w1 + b1)
    z = h @ w2 + b2
    e = z.exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


def mlp_hand(x, y, w1, b1, w2, b2, g):
    h = torch.tanh(x @ w1 + b1)
    loss, (dz,) = cross_entropy_hand(h @ w2 + b2, y, g)
    dh = (dz @ w2.T) * (1 - h * h)
    return loss, (x.T @ dh, dh.sum(0), h.T @ dz, dz.sum(0))


def mlp_relu(x, y, w1, b1, w2, b2):
    return ((F.relu(x @ w1 + b1) @ w2 + b2 - y) ** 2).sum(1).mean()


def mlp_relu_hand(x, y, w1, b1, w2, b2, g):
    h = torch.relu(x @ w1 + b1)
    r = h @ w2 + b2 - y
    d = r * (2 * g / x.shape[0])
    dh = (d @ w2.T) * (h > 0)
    return (r * r).sum() / x.shape[0], (x.T @ dh, dh.sum(0), h.T @ d, d.sum(0))


def lecture(Xb, Yb, C, W1, b1, W2, b2, bngain, bnbias):
    n = Xb.shape[0]
    emb = C[Xb]
    embcat = emb.view(emb.shape[0], -1)
    hprebn = embcat @ W1 + b1
    bnmeani = 1 / n * hprebn.sum(0, keepdim=True)
    bndiff = hprebn - bnmeani
    bndiff2 = bndiff**2
    bnvar = 1 / (n - 1) * (bndiff2).sum(0, keepdim=True)
    bnvar_inv = (bnvar + 1e-5) ** -0.5
    bnraw = bndiff * bnvar_inv
    hpreact = bngain * bnraw + bnbias
    h = torch.tanh(hpreact)
    logits = h @ W2 + b2
    logit_maxes = logits.max(1, keepdim=True).values
    norm_logits = logits - logit_maxes
    counts = norm_logits.exp()
    counts_sum = counts.sum(1, keepdims=True)
    counts_sum_inv = counts_sum**-1
    probs = counts * counts_sum_inv
    logprobs = probs.log()
    return -logprobs[range(n), Yb].mean()


def lecture_hand(Xb, Yb, C, W1, b1, W2, b2, bngain, bnbias, g):
    n = Xb.shape[0]
    e = C[Xb].view(n, -1)
    h_, k = e @ W1, bngain.shape[1]
    u = h_ - h_.mean(0)
    r = ((u * u).sum(0) / (n - 1) + 1e-5) ** -0.5
    xhat = u * r
    h = torch.tanh(xhat * bngain + bnbias)
    loss, (dz,) = cross_entropy_hand(h @ W2 + b2, Yb, g)
    dp = (dz @ W2.T) * (1 - h * h)
    db, dw = dp.sum(0), (dp * xhat).sum(0)
    dh = (dp - db / n - xhat * (dw / (n - 1))) * (bngain * r)
    de = (dh @ W1.T).view(n, Xb.shape[1], -1)
    dC = torch.zeros_like(C).index_put_((Xb,), de, accumulate=True)
    return loss, (dC, e.T @ dh, torch.zeros_like(b1), h.T @ dz, dz.sum(0), dw.view(1, k), db.view(1, k))


def residual(x, w1, w2):
    return x + torch.relu(x @ w1) @ w2


def residual_hand(x, w1, w2, g):
    h = torch.relu(x @ w1)
    dh = (g @ w2.T) * (h > 0)
    return x + h @ w2, (g + dh @ w1.T, x.T @ dh, h.T @ g)


def prenorm_residual(x, w, b, w1, w2):
    m = x.mean(-1, keepdim=True)
    v = x.var(-1, keepdim=True, unbiased=False)
    u = (x - m) / torch.sqrt(v + 1e-5) * w + b
    return x + torch.relu(u @ w1) @ w2


def linear_batchnorm_relu(x, a, w, b):
    h = x @ a
    return torch.relu((h - h.mean(0)) / torch.sqrt(h.var(0, unbiased=False) + 1e-5) * w + b)


def linear_batchnorm_relu_hand(x, a, w, b, g):
    h = x @ a
    m = h.shape[0]
    u = h - h.mean(0)
    r = ((u * u).mean(0) + 1e-5) ** -0.5
    xhat = u * r
    out = torch.relu(xhat * w + b)
    g = g * (out > 0)
    db, dw = g.sum(0), (g * xhat).sum(0)
    dh = (g - db / m - xhat * (dw / m)) * (w * r)
    return out, (dh @ a.T, x.T @ dh, dw, db)


def tied_embedding(x, y, E):
    h = E[x].mean(1)
    z = h @ E.T
    e = z.exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


def tied_embedding_hand(x, y, E, g):
    n, t = x.shape
    h = E[x].mean(1)
    loss, (dz,) = cross_entropy_hand(h @ E.T, y, g)
    dh = (dz @ E) / t
    dE = dz.T @ h
    dE.index_put_((x,), dh.unsqueeze(1).expand(n, t, E.shape[1]), accumulate=True)
    return loss, (dE,)


def rnn_cell(x, h, w, u, b):
    return torch.tanh(x @ w + h @ u + b)


def rnn_cell_hand(x, h, w, u, b, g):
    out = torch.tanh(x @ w + h @ u + b)
    d = g * (1 - out * out)
    return out, (d @ w.T, d @ u.T, x.T @ d, h.T @ d, d.sum(0))


def rnn(x, h, w, u, b):
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ w + h @ u + b)
    return h


def lstm_cell(x, h, c, w, u, b):
    z = x @ w + h @ u + b
    i, f, o, k = z.chunk(4, 1)
    c1 = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(k)
    return torch.sigmoid(o) * torch.tanh(c1)


def lstm_cell_hand(x, h, c, w, u, b, g):
    z = x @ w + h @ u + b
    i, f, o, k = z.chunk(4, 1)
    i, f, o, k = i.sigmoid(), f.sigmoid(), o.sigmoid(), k.tanh()
    t = torch.tanh(f * c + i * k)
    out = o * t
    dc = g * o * (1 - t * t)
    dz = torch.cat([dc * k * i * (1 - i), dc * c * f * (1 - f), g * out * (1 - o), dc * i * (1 - k * k)], 1)
    return out, (dz @ w.T, dz @ u.T, dc * f, x.T @ dz, h.T @ dz, dz.sum(0))


def gru_cell(x, h, wr, wz, wn, ur, uz, un):
    r = torch.sigmoid(x @ wr + h @ ur)
    z = torch.sigmoid(x @ wz + h @ uz)
    n = torch.tanh(x @ wn + r * (h @ un))
    return (1 - z) * n + z * h


def gru_cell_hand(x, h, wr, wz, wn, ur, uz, un, g):
    r = torch.sigmoid(x @ wr + h @ ur)
    z = torch.sigmoid(x @ wz + h @ uz)
    a = h @ un
    n = torch.tanh(x @ wn + r * a)
    v = h - n
    out = n + z * v
    gz = g * z
    dn = (g - gz) * (1 - n * n)
    dz = gz * v * (1 - z)
    da = dn * r
    dr = da * a * (1 - r)
    dx = dr @ wr.T + dz @ wz.T + dn @ wn.T
    dh = gz + dr @ ur.T + dz @ uz.T + da @ un.T
    return out, (dx, dh, x.T @ dr, x.T @ dz, x.T @ dn, h.T @ dr, h.T @ dz, h.T @ da)


def bigram(x, y, W):
    n = x.numel()
    xenc = F.one_hot(x, num_classes=W.shape[0]).to(W.dtype)
    logits = xenc @ W
    counts = logits.exp()
    probs = counts / counts.sum(1, keepdims=True)
    return -probs[torch.arange(n), y].log().mean() + 0.01 * (W**2).mean()


def geglu(x, w, v):
    return F.gelu(x @ w) * (x @ v)


def geglu_hand(x, w, v, g):
    a, b = x @ w, x @ v
    h = F.gelu(a)
    da, db = torch.ops.aten.gelu_backward(g * b, a), g * h
    return h * b, (da @ w.T + db @ v.T, x.T @ da, x.T @ db)


def lora(x, w, a, b):
    return x @ w + (x @ a @ b) * 2.0


def lora_hand(x, w, a, b, g):
    t = x @ a
    dg = g * 2.0
    dt = dg @ b.T
    return x @ w + t @ b * 2.0, (g @ w.T + dt @ a.T, x.T @ dt, t.T @ dg)


def transformer_block(x, w1, b1, wq, wk, wv, wo, w2, b2, f1, f2):
    t, d = x.shape
    m = x.mean(-1, keepdim=True)
    u = (x - m) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * w1 + b1
    q, k, v = u @ wq, u @ wk, u @ wv
    s = q @ k.T / d**0.5
    s = s.masked_fill(torch.tril(torch.ones(t, t)) == 0, float("-inf"))
    x = x + s.softmax(-1) @ v @ wo
    m = x.mean(-1, keepdim=True)
    u = (x - m) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * w2 + b2
    z = u @ f1
    return x + 0.5 * z * (1 + torch.erf(z / 2**0.5)) @ f2


def block_inputs(d, n):
    s = 8
    return [
        d.normal(n, s),
        d.positive(s),
        d.normal(s),
        *[d.normal(s, s) for _ in range(4)],
        d.positive(s),
        d.normal(s),
        d.normal(s, 2 * s),
        d.normal(2 * s, s),
    ]


NETWORKS = (
    Form(
        "linear regression",
        linear_regression,
        lambda d, n: [d.normal(n, D), d.normal(n, K), d.normal(D, K), d.normal(K)],
        linear_regression_hand,
        wrt=("w", "b"),
    ),
    Form(
        "logistic regression",
        logistic_regression,
        lambda d, n: [d.normal(n, D), d.unit(n), d.normal(D), d.normal()],
        logistic_regression_hand,
        wrt=("w", "b"),
        extreme=True,
    ),
    Form(
        "softmax regression",
        softmax_regression,
        lambda d, n: [d.normal(n, D), d.classes(K, n), d.normal(D, K), d.normal(K)],
        softmax_regression_hand,
        wrt=("w", "b"),
        extreme=True,
    ),
    Form(
        "mlp tanh",
        mlp,
        lambda d, n: [d.normal(n, D), d.classes(K, n), d.normal(D, H), d.normal(H), d.normal(H, K), d.normal(K)],
        mlp_hand,
        wrt=("w1", "b1", "w2", "b2"),
    ),
    Form(
        "mlp relu",
        mlp_relu,
        lambda d, n: [d.normal(n, D), d.normal(n, K), d.normal(D, H), d.normal(H), d.normal(H, K), d.normal(K)],
        mlp_relu_hand,
        wrt=("w1", "b1", "w2", "b2"),
        twice=False,
    ),
    Form(
        "makemore lecture",
        lecture,
        lambda d, n: [
            d.classes(27, n, 3),
            d.classes(27, n),
            d.normal(27, 4),
            d.normal(12, H),
            d.normal(H),
            d.normal(H, 27),
            d.normal(27),
            d.positive(1, H),
            d.normal(1, H),
        ],
        lecture_hand,
        batches=(2, 5),
        exact_zero=("b1",),
    ),
    Form(
        "residual block",
        residual,
        lambda d, n: [d.normal(n, D), d.normal(D, H), d.normal(H, D)],
        residual_hand,
        twice=False,
    ),
    Form(
        "pre-norm residual",
        prenorm_residual,
        lambda d, n: [d.normal(n, D), d.positive(D), d.normal(D), d.normal(D, H), d.normal(H, D)],
        None,
        twice=False,
    ),
    Form(
        "linear-batchnorm-relu",
        linear_batchnorm_relu,
        lambda d, n: [d.normal(n, D), d.normal(D, H), d.positive(H), d.normal(H)],
        linear_batchnorm_relu_hand,
        batches=(5,),
        twice=False,
    ),
    Form(
        "tied embedding",
        tied_embedding,
        lambda d, n: [d.classes(K, n, 3), d.classes(K, n), d.normal(K, D)],
        tied_embedding_hand,
    ),
    Form("bigram one-hot", bigram, lambda d, n: [d.classes(K, n), d.classes(K, n), d.normal(K, K)], None),
    Form(
        "rnn cell",
        rnn_cell,
        lambda d, n: [d.normal(n, D), d.normal(n, H), d.normal(D, H), d.normal(H, H), d.normal(H)],
        rnn_cell_hand,
    ),
    Form(
        "rnn over 3 steps",
        rnn,
        lambda d, n: [d.normal(n, 3, D), d.normal(n, H), d.normal(D, H), d.normal(H, H) / 4, d.normal(H)],
        None,
    ),
    Form(
        "lstm cell",
        lstm_cell,
        lambda d, n: [
            d.normal(n, D),
            d.normal(n, H),
            d.normal(n, H),
            d.normal(D, 4 * H),
            d.normal(H, 4 * H),
            d.normal(4 * H),
        ],
        lstm_cell_hand,
    ),
    Form(
        "gru cell",
        gru_cell,
        lambda d, n: [
            d.normal(n, D),
            d.normal(n, H),
            *[d.normal(D, H) for _ in range(3)],
            *[d.normal(H, H) for _ in range(3)],
        ],
        gru_cell_hand,
    ),
    Form("geglu", geglu, lambda d, n: [d.normal(n, D), d.normal(D, H), d.normal(D, H)], geglu_hand),
    Form(
        "lora",
        lora,
        lambda d, n: [d.normal(n, D), d.normal(D, H), d.normal(D, 3), d.normal(3, H)],
        lora_hand,
        wrt=("x", "a", "b"),
    ),
    Form("transformer block", transformer_block, block_inputs, None, batches=(3,), large=16),
)
