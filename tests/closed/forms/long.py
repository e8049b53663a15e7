"""Elementwise forwards of any number of lines: unrolled cells, recurrences, time steps."""

from __future__ import annotations

import torch


def tanhs(count):
    def forward(h, w, x):
        for _ in range(count):
            h = ((h * w) + x).tanh()
        return h.sum()

    return forward


def nested(count):
    def forward(h):
        for k in range(count):
            h = (torch.tanh(h), torch.sin(h), torch.sigmoid(h), (h * h + 1).sqrt())[k % 4]
        return h.sum()

    return forward


def residual(count):
    def forward(h, w, x):
        for _ in range(count):
            h = h + 0.1 * (h * w + x).tanh()
        return (h * h).mean()

    return forward


def polynomial(count):
    def forward(h, x):
        for _ in range(count):
            h = h * h * x * 0.05 + h * 0.5 - 0.1 * x**2
        return h.mean()

    return forward


def lorenz(count):
    def forward(x, y, z):
        for _ in range(count):
            x, y, z = x + 0.1 * (y - x), y + 0.01 * (x * (28 - z) - y), z + 0.01 * (x * y - 2.7 * z)
        return (x * x + y * y + z * z).sum()

    return forward


def pendulum(count):
    def forward(q, p, g):
        for _ in range(count):
            p = p - 0.1 * g * torch.sin(q) - 0.05 * p
            q = q + 0.1 * p
        return (0.5 * p * p + g * (1 - torch.cos(q))).mean()

    return forward


def gates(count):
    def forward(h, x, a, b, c):
        for _ in range(count):
            z = torch.sigmoid(x * a + h * b)
            r = torch.sigmoid(x * b + h * c)
            h = (1 - z) * h + z * torch.tanh(x * c + r * h * a)
        return h.pow(2).sum()

    return forward


def lstm(count):
    def forward(h, c, x, wx, wh):
        for _ in range(count):
            i, o, u, k = (x @ wx + h @ wh).chunk(4, 1)
            c = torch.sigmoid(k) * c + torch.sigmoid(i) * torch.tanh(u)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h.sum()

    return forward


def mixed(count):
    def forward(x, y, w):
        a, b, c = x, y, w
        for k in range(count):
            match k % 10:
                case 0:
                    a = a * w + y
                case 1:
                    b = torch.tanh(a) * b
                case 2:
                    c = torch.sigmoid(b + c)
                case 3:
                    a = torch.relu(a - c)
                case 4:
                    b = b / (1 + c * c)
                case 5:
                    a = torch.where(a > b, a, 0.1 * b)
                case 6:
                    c = torch.exp(-c * c) * x
                case 7:
                    b = (b * b + a * a + 0.5).sqrt()
                case 8:
                    a = torch.sin(a) + torch.cos(b)
                case _:
                    c = (c - c.mean(-1, keepdim=True)) * w + 0.3 * a
        return (a * b + c).sum()

    return forward


LONG = (
    (tanhs, [(4, 6)] * 3),
    (nested, [(4, 6)]),
    (residual, [(4, 6)] * 3),
    (polynomial, [(4, 6)] * 2),
    (lorenz, [(6,)] * 3),
    (pendulum, [(8,)] * 3),
    (gates, [(4, 6), (4, 6), (6,), (6,), (6,)]),
    (lstm, [(4, 6), (4, 6), (4, 5), (5, 24), (6, 24)]),
    (mixed, [(5, 7)] * 3),
)
