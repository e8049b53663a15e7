"""What runs over a few steps: forward algorithms, recurrences, solvers."""

from __future__ import annotations

from typing import Any

import torch

from tests.closed.forms.form import Form

A = torch.ops.aten


def flat(t):
    return t.reshape(-1, t.shape[-1])


def crf(e, t):
    a = e[:, 0]
    for i in range(1, 4):
        a = torch.logsumexp(a[:, :, None] + t[None], 1) + e[:, i]
    return torch.logsumexp(a, 1).mean()


def crf_by_products(e, t):
    a = e[:, 0]
    for i in range(1, 4):
        a = torch.log(torch.exp(a) @ torch.exp(t)) + e[:, i]
    return torch.log(torch.exp(a).sum(1)).mean()


def crf_hand(e, t, g):
    n = e.shape[0]
    al = [e[:, 0]]
    for i in range(1, 4):
        al.append(torch.logsumexp(al[-1][:, :, None] + t, 1) + e[:, i])
    z = al[-1].logsumexp(1, keepdim=True)
    d = (al[-1] - z).exp() * (g / n)
    de = torch.empty_like(e)
    dt = 0
    for i in (3, 2, 1):
        de[:, i] = d
        p = (al[i - 1][:, :, None] + t - (al[i] - e[:, i])[:, None]).exp() * d[:, None]
        dt = p.sum(0) + dt
        d = p.sum(2)
    de[:, 0] = d
    return (z.mean(), (de, dt))


def crf_exp(e, t):
    a = e[:, 0].exp()
    T = t.exp()
    for i in range(1, 4):
        a = a @ T * e[:, i].exp()
    return a.sum(1).log().mean()


def crf_exp_hand(e, t, g):
    n = e.shape[0]
    E = e.exp()
    T = t.exp()
    al = [E[:, 0]]
    be = []
    for i in range(1, 4):
        be.append(al[-1] @ T)
        al.append(be[-1] * E[:, i])
    z = al[-1].sum(1, keepdim=True)
    b = (g / n / z).expand_as(al[-1])
    de = torch.empty_like(e)
    dT = 0
    for i in (3, 2, 1):
        de[:, i] = b * al[i]
        c = b * E[:, i]
        dT = al[i - 1].T @ c + dT
        b = c @ T.T
    de[:, 0] = b * al[0]
    return (z.log().mean(), (de, dT * T))


def sinkhorn_log(C):
    S = -C / 0.5
    for _ in range(3):
        S = S - torch.logsumexp(S, 1, keepdim=True)
        S = S - torch.logsumexp(S, 0, keepdim=True)
    return S.exp()


def sinkhorn_log_hand(C, g):
    S = -C / 0.5
    ps = []
    for _ in range(3):
        S = S - S.logsumexp(1, keepdim=True)
        a = S
        S = S - S.logsumexp(0, keepdim=True)
        ps.append((a, S))
    P = S.exp()
    d = g * P
    for a, b in reversed(ps):
        d = d - b.exp() * d.sum(0, keepdim=True)
        d = d - a.exp() * d.sum(1, keepdim=True)
    return (P, (d * -2,))


def ssm(x, a, b, c):
    h = torch.zeros_like(x[:, 0])
    ys = []
    for t in range(4):
        h = torch.sigmoid(a) * h + b * x[:, t]
        ys.append(c * h)
    return torch.stack(ys, 1)


def ssm_hand(x, a, b, c, g):
    s = a.sigmoid()
    hs = [b * x[:, 0]]
    for t in (1, 2, 3):
        hs.append(s * hs[-1] + b * x[:, t])
    H = torch.stack(hs, 1)
    gc = g * c
    d = gc[:, 3]
    ds = [d]
    sa = 0
    for t in (2, 1, 0):
        sa = sa + (d * hs[t]).sum(0)
        d = gc[:, t] + s * d
        ds.append(d)
    D = torch.stack(ds[::-1], 1)
    return (H * c, (D * b, A.sigmoid_backward(sa, s), (D * x).sum((0, 1)), (g * H).sum((0, 1))))


def mingru(x, wz, wh):
    h = torch.zeros(x.shape[0], wz.shape[1], dtype=x.dtype)
    z = 1 / (1 + torch.exp(-(x @ wz)))
    c = x @ wh
    for t in range(3):
        h = (1 - z[:, t]) * h + z[:, t] * c[:, t]
    return h


def mingru_hand(x, wz, wh, g):
    z = (x @ wz).sigmoid()
    c = x @ wh
    h = [z[:, 0] * c[:, 0]]
    e = [c[:, 0]]
    for t in (1, 2):
        e.append(c[:, t] - h[-1])
        h.append(torch.addcmul(h[-1], z[:, t], e[-1]))
    dz = torch.empty_like(z)
    dc = torch.empty_like(c)
    d = g
    for t in (2, 1, 0):
        dc[:, t] = d * z[:, t]
        dz[:, t] = d * e[t]
        if t:
            d = d - dc[:, t]
    da = A.sigmoid_backward(dz, z)
    return (h[-1], (da @ wz.T + dc @ wh.T, flat(x).T @ flat(da), flat(x).T @ flat(dc)))


def lstm2(x, h, c, w, u, b):
    z = x @ w + h @ u + b
    k = h.shape[1]
    i = torch.sigmoid(z[:, :k])
    f = torch.sigmoid(z[:, k : 2 * k])
    g = torch.tanh(z[:, 2 * k : 3 * k])
    o = torch.sigmoid(z[:, 3 * k :])
    c = f * c + i * g
    return o * torch.tanh(c)


def lstm2_hand(x, h, c, w, u, b, go):
    z = x @ w + h @ u + b
    k = h.shape[1]
    i, f, g, o = (z[:, :k].sigmoid(), z[:, k : 2 * k].sigmoid(), z[:, 2 * k : 3 * k].tanh(), z[:, 3 * k :].sigmoid())
    c1 = f * c + i * g
    t = c1.tanh()
    dc = A.tanh_backward(go * o, t)
    dz = torch.cat(
        [
            A.sigmoid_backward(dc * g, i),
            A.sigmoid_backward(dc * c, f),
            A.tanh_backward(dc * i, g),
            A.sigmoid_backward(go * t, o),
        ],
        1,
    )
    return (o * t, (dz @ w.T, dz @ u.T, dc * f, x.T @ dz, h.T @ dz, dz.sum(0)))


def rk4(y, w):

    def f(y):
        return torch.tanh(y @ w)

    h = 0.1
    k1 = f(y)
    k2 = f(y + h / 2 * k1)
    k3 = f(y + h / 2 * k2)
    k4 = f(y + h * k3)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def rk4_hand(y, w, g):
    h = 0.1
    k1 = (y @ w).tanh()
    y2 = y + h / 2 * k1
    k2 = (y2 @ w).tanh()
    y3 = y + h / 2 * k2
    k3 = (y3 @ w).tanh()
    y4 = y + h * k3
    k4 = (y4 @ w).tanh()
    o = y + h / 6 * (k1 + 2 * (k2 + k3) + k4)
    g6 = g * (h / 6)
    a4 = A.tanh_backward(g6, k4)
    d4 = a4 @ w.T
    a3 = A.tanh_backward(2 * g6 + h * d4, k3)
    d3 = a3 @ w.T
    a2 = A.tanh_backward(2 * g6 + h / 2 * d3, k2)
    d2 = a2 @ w.T
    a1 = A.tanh_backward(g6 + h / 2 * d2, k1)
    d1 = a1 @ w.T
    return (o, (g + d1 + d2 + d3 + d4, y.T @ a1 + y2.T @ a2 + y3.T @ a3 + y4.T @ a4))


def coupling(x, ws, wt):
    a, b = x.chunk(2, 1)
    s = torch.tanh(a @ ws)
    t = a @ wt
    y = torch.cat([a, b * torch.exp(s) + t], 1)
    return (0.5 * (y**2).sum(1) - s.sum(1)).mean()


def coupling_hand(x, ws, wt, g):
    n = x.shape[0]
    a, b = x.chunk(2, 1)
    s = (a @ ws).tanh()
    be = b * s.exp()
    y = be + a @ wt
    out = (0.5 * ((a * a).sum() + (y * y).sum()) - s.sum()) / n
    dy = y * (g / n)
    dsx = A.tanh_backward(dy * be - g / n, s)
    da = a * (g / n) + dsx @ ws.T + dy @ wt.T
    return (out, (torch.cat([da, dy * s.exp()], 1), a.T @ dsx, a.T @ dy))


def hmm_scaled(e, t, p):
    """The forward algorithm of a hidden Markov model, every row of probabilities scaled to one (Rabiner 1989)."""
    b, t, p = e.softmax(-1), t.softmax(-1), p.softmax(-1)
    total = 0.0
    a = p
    for k in range(3):
        a = (a if k == 0 else a @ t) * b[:, k]
        c = a.sum(1, keepdim=True)
        a = a / c
        total = total + c.log()
    return -total.mean()


def hmm_scaled_hand(e, t, p, g):
    n = e.shape[0]
    b, T, P = e.softmax(-1), t.softmax(-1), p.softmax(-1)
    a, u, c = [], [], []
    for k in range(3):
        u.append(a[-1] @ T if k else P)
        h = u[-1] * b[:, k]
        c.append(h.sum(1, keepdim=True))
        a.append(h / c[-1])
    out = -(c[0] * c[1] * c[2]).log().mean()
    db = torch.empty_like(e)
    dT: Any = 0.0
    dh = (-g / n) / c[2]
    for k in (2, 1):
        db[:, k] = dh * u[k]
        du = dh * b[:, k]
        dT = a[k - 1].T @ du + dT
        dh = du @ T.T / c[k - 1]
    db[:, 0] = dh * P
    dp = (dh * b[:, 0]).sum(0)
    return out, (
        A._softmax_backward_data(db, b, -1, b.dtype),
        *(A._softmax_backward_data(d, y, -1, y.dtype) for d, y in ((dT, T), (dp, P))),
    )


SEQUENCES = (
    Form(
        "hmm scaled forward",
        hmm_scaled,
        lambda d, n: [d.normal(n, 3, 5), d.normal(5, 5), d.normal(5)],
        hmm_scaled_hand,
    ),
    Form("crf forward", crf, lambda d, n: [d.normal(n, 4, 5), d.normal(5, 5)], crf_hand, large=16),
    Form(
        "crf by products",
        crf_by_products,
        lambda d, n: [d.normal(n, 4, 5), d.normal(5, 5)],
        crf_hand,
        large=16,
        extreme=True,
    ),
    Form("hmm forward exp", crf_exp, lambda d, n: [d.normal(n, 4, 5), d.normal(5, 5)], crf_exp_hand, large=16),
    Form("sinkhorn log 3", sinkhorn_log, lambda d, n: [d.positive(n, n + 1)], sinkhorn_log_hand),
    Form(
        "lstm cell slices",
        lstm2,
        lambda d, n: [d.normal(n, 5), d.normal(n, 6), d.normal(n, 6), d.normal(5, 24), d.normal(6, 24), d.normal(24)],
        lstm2_hand,
    ),
    Form("mingru", mingru, lambda d, n: [d.normal(n, 3, 8), d.normal(8, 6), d.normal(8, 6)], mingru_hand),
    Form("rk4 neural ode", rk4, lambda d, n: [d.normal(n, 6), d.normal(6, 6)], rk4_hand),
    Form(
        "diagonal ssm", ssm, lambda d, n: [d.normal(n, 4, 6), d.normal(6), d.normal(6), d.normal(6)], ssm_hand, large=16
    ),
    Form("affine coupling nll", coupling, lambda d, n: [d.normal(n, 8), d.normal(4, 4), d.normal(4, 4)], coupling_hand),
)
