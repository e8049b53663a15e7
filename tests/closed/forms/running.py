"""Running sums in products, differences of neighbours, and rows put in front of others."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form


def three(d, n):
    return [d.normal(n, 16, 8) for _ in range(3)]


def causal(q, k, v):
    """Linear attention, each place to those before it (Katharopoulos et al. 2020), without its divisor."""
    states = (k[..., :, None] * v[..., None, :]).cumsum(-3)
    return (q[..., None, :] @ states).squeeze(-2)


def causal_entries(q, k, v):
    states = torch.einsum("nti,ntj->ntij", k, v).cumsum(1)
    return (q[..., None] * states).sum(-2)


def causal_hand(q, k, v, g):
    a = (q @ k.mT).tril()
    da = (g @ v.mT).tril()
    return a @ v, (da @ k, da.mT @ q, a.mT @ g)


def prefix(x, w, a):
    return torch.einsum("td,td->t", (x[:, None] * w).cumsum(0), a)


def prefix_hand(x, w, a, g):
    s, y = x.cumsum(0), a @ w
    t = s * g
    return s * y, ((y * g).flip(0).cumsum(0).flip(0), t @ a, t[:, None] * w)


def differences(x):
    return (torch.cat([x[:1], x[1:] - x[:-1]]) ** 2).sum()


def differences_hand(x, g):
    d = torch.cat([x[:1], x[1:] - x[:-1]])
    c = d * (2 * g)
    dx = c.clone()
    dx[:-1] -= c[1:]
    return (d * d).sum(), (dx,)


def class_token(x, c, w):
    z = torch.cat([c.expand(len(x), 1, -1), x], 1) @ w
    return (z**2).sum()


def class_token_hand(x, c, w, g):
    y = torch.cat([c.expand(len(x), 1, -1), x], 1)
    z = y @ w
    dz = z * (2 * g)
    dy = dz @ w.T
    return (z * z).sum(), (dy[:, 1:], dy[:, :1].sum(0, keepdim=True), y.flatten(0, 1).T @ dz.flatten(0, 1))


def lovasz_hinge(x, y):
    """Berman et al. 2018."""
    e = 1 - x * (2 * y - 1)
    ordered, at = torch.sort(e, descending=True)
    t = y[at]
    inside = t.sum() - t.cumsum(0)
    jaccard = 1 - inside / (t.sum() + (1 - t).cumsum(0))
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return (torch.relu(ordered) * steps).sum()


def lovasz_hinge_hand(x, y, g):
    signs = 2 * y - 1
    ordered, at = torch.sort(1 - x * signs, descending=True)
    t = y[at]
    inside = t.sum() - t.cumsum(0)
    jaccard = 1 - inside / (inside + torch.arange(1, len(y) + 1))
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    h = F.relu(ordered)
    dx = torch.zeros_like(x)
    dx[at] = steps * (h > 0) * -g
    return (h * steps).sum(), (dx * signs,)


RUNNING = (
    Form("causal linear attention", causal, three, causal_hand, batches=(1, 2), large=8),
    Form("causal linear attention by entries", causal_entries, three, causal_hand, batches=(1, 2), large=8),
    Form("running sums of a row", prefix, lambda d, n: [d.normal(n), d.normal(8), d.normal(n, 8)], prefix_hand),
    Form("differences with the first", differences, lambda d, n: [d.normal(n)], differences_hand, (), (5,), 512),
    Form(
        "class token",
        class_token,
        lambda d, n: [d.normal(n, 6, 8), d.normal(1, 1, 8), d.normal(8, 8)],
        class_token_hand,
        batches=(5,),
        large=16,
    ),
    Form(
        "lovasz hinge",
        lovasz_hinge,
        lambda d, n: [d.normal(n), d.classes(2, n).to(d.dtype)],
        lovasz_hinge_hand,
        ("x",),
        (5,),
        512,
        twice=False,
    ),
)
