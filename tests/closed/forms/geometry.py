"""Points in space and tensors in groups: rotations, triangles, graphs weighed by roots of degrees, heads that share keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data


# points turned by quaternions: x + 2 w (v x x) + 2 v x (v x x), of which every gradient is made of vector products
def quaternion(q, p):
    q = q / q.norm(dim=-1, keepdim=True)
    w, v = q[:, :1], q[:, 1:]
    t = 2 * torch.cross(v, p, dim=-1)
    return p + w * t + torch.cross(v, t, dim=-1)


def quaternion_hand(q, p, g):
    r = 1 / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    u = q * r
    w, v = u[:, :1], u[:, 1:]
    t = 2 * torch.linalg.cross(v, p)
    out = torch.linalg.cross(v, t).add_(p).addcmul_(w, t)
    dt = torch.linalg.cross(g, v).addcmul_(w, g)
    dv = torch.linalg.cross(t, g) + 2 * torch.linalg.cross(p, dt)
    du = torch.cat(((g * t).sum(-1, keepdim=True), dv), -1)
    return out, ((du - u * (u * du).sum(-1, keepdim=True)) * r, g + 2 * torch.linalg.cross(dt, v))


# the area of a mesh, with the vector product written out: the gradient of a corner is half its opposite side turned by the normal
def mesh_area(vertices, faces):
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    u, v = b - a, c - a
    x = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
    y = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
    z = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    return 0.5 * torch.stack([x, y, z], dim=1).norm(dim=1).sum()


def mesh_area_hand(vertices, faces, g):
    i, j, k = faces.unbind(1)
    a = vertices[i]
    u, v = vertices[j] - a, vertices[k] - a
    n = torch.linalg.cross(u, v)
    size = torch.linalg.vector_norm(n, dim=1, keepdim=True)
    m = n * (g / 2 / size)
    du, dv = torch.linalg.cross(v, m), torch.linalg.cross(m, u)
    d = torch.zeros_like(vertices).index_add_(0, j, du).index_add_(0, k, dv).index_add_(0, i, -(du + dv))
    return size.sum() / 2, (d,)


# Kipf, Welling 2017, on a graph that is learned: with r = d^(-1/2), r (A (r x)) scales rows of x and no matrix of all pairs
def learned_graph(e, x, w):
    a = F.relu(torch.tanh(e @ e.T))
    a = a + torch.eye(a.shape[0], dtype=a.dtype)
    d = a.sum(1)
    return F.relu(a / torch.sqrt(d[:, None] * d[None, :]) @ x @ w)


def learned_graph_hand(e, x, w, g):
    t = (e @ e.T).tanh()
    a = t.relu()
    a.diagonal().add_(1)
    r = a.sum(1, keepdim=True).rsqrt()
    rx = r * x
    h = r * (a @ rx)
    out = (h @ w).relu()
    dy = torch.ops.aten.threshold_backward(g, out, 0)
    dh = dy @ w.T
    rdh = r * dh
    drx = a @ rdh
    dd = ((h * dh).sum(1, keepdim=True) + (rx * drx).sum(1, keepdim=True)) * (r * r / -2)
    da = torch.ops.aten.threshold_backward(torch.addmm(dd, rdh, rx.T), t, 0)
    ds = torch.ops.aten.tanh_backward(da, t)
    return out, (torch.addmm(ds @ e, ds.T, e), r * drx, h.T @ dy)


# Bardes, Ponce, LeCun 2022, VICReg: the variances are the diagonal of the covariance, and so is what they pass back
def vicreg(x, y):
    n, d = x.shape

    def spread(z):
        return F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()

    def covariance(z):
        z = z - z.mean(dim=0)
        c = (z.T @ z) / (n - 1)
        return ((c - torch.diag(torch.diag(c))) ** 2).sum() / d

    return 25 * ((x - y) ** 2).mean() + 25 * (spread(x) + spread(y)) + covariance(x) + covariance(y)


def vicreg_hand(x, y, g):
    n, d = x.shape
    e = x - y
    de = e * (50 * g / (n * d))
    loss, grads = 25 * (e * e).mean(), []
    for z, sign in ((x, 1), (y, -1)):
        z = z - z.mean(0)
        c = z.T @ z / (n - 1)
        s = (c.diagonal() + 1e-4).sqrt()
        c.fill_diagonal_(0)
        loss = loss + 25 * (1 - s).relu().mean() + (c * c).sum() / d
        m = c * (4 / (d * (n - 1)))
        m.diagonal().copy_(torch.where(s < 1, -25 / (d * (n - 1)) / s, torch.zeros_like(s)))
        grads.append(torch.add(z @ (m * g), de, alpha=sign))
    return loss, tuple(grads)


# Ainslie et al. 2023, grouped-query attention: what is passed back to repeated keys is summed over each group
def grouped_queries(q, k, v):
    _, heads, _, d = q.shape
    groups = k.shape[1]
    k = k.repeat_interleave(heads // groups, dim=1)
    v = v.repeat_interleave(heads // groups, dim=1)
    return torch.softmax(q @ k.transpose(-1, -2) / d**0.5, -1) @ v


def grouped_queries_hand(q, k, v, g):
    b, h, t, d = q.shape
    n = k.shape[1]
    keys, values = k.repeat_interleave(h // n, 1), v.repeat_interleave(h // n, 1)
    p = (q @ keys.mT / d**0.5).softmax(-1)
    ds = SOFTMAX_BACKWARD(g @ values.mT, p, -1, p.dtype) / d**0.5
    dk, dv = ((x.view(b, n, h // n, t, d)).sum(2) for x in (ds.mT @ q, p.mT @ g))
    return p @ values, (ds @ keys, dk, dv)


def triangles(d, n):
    return torch.stack([torch.randperm(20, generator=d.generator)[:3] for _ in range(n)])


GEOMETRY = (
    Form("quaternion", quaternion, lambda d, n: [d.normal(n, 4), d.normal(n, 3)], quaternion_hand),
    Form("mesh area", mesh_area, lambda d, n: [d.normal(20, 3), triangles(d, n)], mesh_area_hand),
    Form(
        "learned graph",
        learned_graph,
        lambda d, n: [d.normal(n, 4), d.normal(n, 6), d.normal(6, 5)],
        learned_graph_hand,
        twice=False,
    ),
    Form("vicreg", vicreg, lambda d, n: [d.normal(n, 8), d.normal(n, 8)], vicreg_hand, batches=(5,), twice=False),
    Form(
        "grouped queries",
        grouped_queries,
        lambda d, n: [d.normal(n, 4, 5, 3), d.normal(n, 2, 5, 3), d.normal(n, 2, 5, 3)],
        grouped_queries_hand,
    ),
)
