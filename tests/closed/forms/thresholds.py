"""Thresholds, boxes and clipped objectives: what one of two is chosen for by its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 48


def soft_threshold(x):
    return x.sign() * torch.clamp(x.abs() - 0.5, min=0)


def soft_threshold_hand(x, g):
    return F.softshrink(x, 0.5), (g * (x.abs() >= 0.5),)


def learned_threshold(x, t):
    return x.sign() * torch.relu(x.abs() - t)


def learned_threshold_hand(x, t, g):
    s, over = x.sign(), x.abs() - t
    d = torch.ops.aten.threshold_backward(g * s, over, 0)
    return s * over.relu(), (d * s, -d.sum(0))


def elish(x):
    return torch.where(x >= 0, x * torch.sigmoid(x), (x.exp() - 1) * torch.sigmoid(x))


def elish_hand(x, g):
    s, e = torch.sigmoid(x), torch.expm1(x)
    positive = x >= 0
    out = torch.where(positive, x, e) * s
    slope = torch.where(positive, 1.0, e + 1) * s + out * (1 - s)
    return out, (g * slope,)


def giou(a, b):
    """One less the generalised intersection over union of boxes (Rezatofighi et al. 2019)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    sides = (high - low).clamp(min=0)
    inside = sides[:, 0] * sides[:, 1]
    one, other = ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1]) for c in (a, b))
    union = one + other - inside
    around = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    hull = around[:, 0] * around[:, 1]
    return (1 - (inside / union - (hull - union) / hull)).mean()


def giou_hand(a, b, g):
    al, ar, bl, br = a[:, :2], a[:, 2:], b[:, :2], b[:, 2:]
    low, high = torch.maximum(al, bl), torch.minimum(ar, br)
    sides = (high - low).clamp(min=0)
    inside = sides[:, 0] * sides[:, 1]
    sa, sb = ar - al, br - bl
    union = sa[:, 0] * sa[:, 1] + sb[:, 0] * sb[:, 1] - inside
    around = torch.maximum(ar, br) - torch.minimum(al, bl)
    hull = around[:, 0] * around[:, 1]
    r, q = inside / union, union / hull
    c = -g / len(a)
    dunion = (1 / hull - r / union) * c
    dinside = c / union - dunion
    dsides = dinside[:, None] * sides.flip(1) * (high >= low)
    dsa = dunion[:, None] * sa.flip(1)
    daround = (-(q / hull) * c)[:, None] * around.flip(1)
    both = (dsides + daround) / 2
    dl = -(torch.where(al > bl, dsides, torch.where(al < bl, daround, both)) + dsa)
    dr = torch.where(ar < br, dsides, torch.where(ar > br, daround, both)) + dsa
    return 2 - (r + q).mean(), (torch.cat([dl, dr], 1),)


def boxes(d, n):
    """Two rows of boxes around the unit square."""
    return [d.normal(n, 4) * 0.2 + torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=d.dtype) for _ in range(2)]


def group_policy(logp, old, r):
    """Clipped ratios times advantages within groups (Shao et al. 2024)."""
    a = (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-4)
    w = torch.exp(logp - old)
    return -torch.min(w * a, torch.clamp(w, 0.8, 1.2) * a).mean()


def group_policy_hand(logp, old, r, g):
    v, m = torch.var_mean(r, 1, keepdim=True)
    a = (r - m) / (v.sqrt() + 1e-4)
    w = (logp - old).exp()
    one, other = w * a, w.clamp(0.8, 1.2) * a
    return -torch.minimum(one, other).mean(), (torch.where(one <= other, one, 0) * (-g / w.numel()),)


def clipped_value(v, old, r):
    """The larger of two squared errors (Schulman et al. 2017, as implemented)."""
    near = old + torch.clamp(v - old, -0.2, 0.2)
    return 0.5 * torch.max((v - r) ** 2, (near - r) ** 2).mean()


def clipped_value_hand(v, old, r, g):
    d = v - old
    c = d.clamp(-0.2, 0.2)
    a, b = v - r, c + old - r
    one, other = a * a, b * b
    s = (one - other).sign()
    dv = (torch.where(d == c, (1 - s) * b, 0) + (1 + s) * a) * (0.5 * g / len(v))
    return 0.5 * torch.maximum(one, other).mean(), (dv,)


def multi_similarity(s, y):
    """Wang et al. 2019."""
    same, own = y[:, None] == y[None], torch.eye(len(y), dtype=torch.bool)
    near, far = (same & ~own).to(s.dtype), (~same).to(s.dtype)
    pull = torch.log(1 + (near * torch.exp(-2 * (s - 0.5))).sum(1)) / 2
    push = torch.log(1 + (far * torch.exp(10 * (s - 0.5))).sum(1)) / 10
    return (pull + push).mean()


def multi_similarity_hand(s, y, g):
    same = y[:, None] == y
    off = s - 0.5
    out, ds = torch.zeros((), dtype=s.dtype), torch.zeros_like(s)
    for k, mask in ((-2.0, same.clone().fill_diagonal_(False)), (10.0, ~same)):
        z = torch.where(mask, off * k, -torch.inf)
        top = z.amax(1).relu()
        e = (z - top[:, None]).exp()
        total = e.sum(1) + (-top).exp()
        out = out + ((total.log() + top) / abs(k)).mean()
        ds = ds + e * (g / len(y) * (1 if k > 0 else -1) / total)[:, None]
    return out, (ds,)


def sparsemax(z):
    ordered, _ = torch.sort(z, 1, descending=True)
    count = torch.arange(1, z.shape[1] + 1, dtype=z.dtype)
    support = 1 + count * ordered > ordered.cumsum(1)
    tau = ((ordered * support).sum(1, keepdim=True) - 1) / support.sum(1, keepdim=True)
    return torch.relu(z - tau)


def sparsemax_hand(z, g):
    ordered = z.sort(1, descending=True).values
    count = torch.arange(1, z.shape[1] + 1, dtype=z.dtype)
    support = 1 + count * ordered > ordered.cumsum(1)
    size = support.sum(1, keepdim=True)
    p = torch.relu(z - ((ordered * support).sum(1, keepdim=True) - 1) / size)
    inside = p > 0
    d = g * inside
    return p, (d - inside * (d.sum(1, keepdim=True) / size),)


THRESHOLDS = (
    Form("sparsemax", sparsemax, lambda d, n: [d.normal(n, 10)], sparsemax_hand, twice=False),
    Form("soft threshold", soft_threshold, lambda d, n: [d.normal(n, K)], soft_threshold_hand, twice=False),
    Form(
        "soft threshold learned",
        learned_threshold,
        lambda d, n: [d.normal(n, K), d.unit(K)],
        learned_threshold_hand,
        twice=False,
    ),
    Form("elish", elish, lambda d, n: [d.normal(n, K)], elish_hand, twice=False),
    Form("generalised intersection over union", giou, boxes, giou_hand, ("a",), twice=False),
    Form(
        "group relative policy",
        group_policy,
        lambda d, n: [d.normal(n, 8) * 0.1, d.normal(n, 8) * 0.1, d.normal(n, 8)],
        group_policy_hand,
        ("logp",),
        twice=False,
    ),
    Form(
        "clipped value",
        clipped_value,
        lambda d, n: [d.normal(n) for _ in range(3)],
        clipped_value_hand,
        ("v",),
        large=512,
        twice=False,
    ),
    Form(
        "multi-similarity",
        multi_similarity,
        lambda d, n: [d.normal(n, n), d.classes(4, n)],
        multi_similarity_hand,
        batches=(5,),
    ),
)
