"""Values that gradients pass as if they had not been rounded, picked or drawn: quantisers, codebooks, squashed samples."""

from __future__ import annotations

import math

import torch

from tests.closed.forms.form import Form


# Esser et al. 2020, learned step size quantisation: ds = Sum g (round(c) - x/s where c = x/s is within its bounds)
def learned_step(x, s):
    c = torch.clamp(x / s, -8, 7)
    return (c + (torch.round(c) - c).detach()) * s


def learned_step_hand(x, s, g):
    u = x / s
    c = u.clamp(-8, 7)
    q = c.round()
    inside = u == c
    return q * s, (g * inside, (g * (q - inside * u)).sum())


# van den Oord et al. 2017, VQ-VAE: the decoder's gradient passes to the encoder, the codes are drawn to what picked them
def codebook(z, e, x):
    d = (z**2).sum(1, keepdim=True) + (e**2).sum(1) - 2 * z @ e.T
    q = e[d.argmin(1)]
    zq = z + (q - z).detach()
    return ((zq - x) ** 2).mean() + ((q - z.detach()) ** 2).mean() + 0.25 * ((z - q.detach()) ** 2).mean()


def codebook_hand(z, e, x, g):
    k = ((e**2).sum(1) - 2 * z @ e.T).argmin(1)
    q = e[k]
    r, c = q - x, q - z
    s = 2 * g / z.numel()
    de = torch.zeros_like(e).index_add_(0, k, c * s)
    return (r * r).mean() + 1.25 * (c * c).mean(), (r * s - c * (0.25 * s), de)


# Haarnoja et al. 2018, appendix C: the density of a squashed sample, in which (u - m) / s is the noise it is made of
def squashed_sample(mean, log_std, noise):
    std = torch.exp(log_std)
    u = mean + std * noise
    a = torch.tanh(u)
    logp = (-0.5 * ((u - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)).sum(1)
    logp = logp - torch.log(1 - a**2 + 1e-6).sum(1)
    return (0.2 * logp + (a**2).sum(1)).mean()


def squashed_sample_hand(mean, log_std, noise, g):
    v = noise * log_std.exp()
    a = (mean + v).tanh()
    square = a * a
    s = 1.000001 - square
    logp = (noise * noise / -2 - log_std - 0.5 * math.log(2 * math.pi) - s.log()).sum(1)
    k = g / len(mean)
    du = torch.ops.aten.tanh_backward(a * (0.4 * k / s + 2 * k), a)
    return (0.2 * logp + square.sum(1)).mean(), (du, v * du - 0.2 * k)


STRAIGHT = (
    Form(
        "learned step",
        learned_step,
        lambda d, n: [d.normal(n, 16), d.positive(1)[0] * 0.2],
        learned_step_hand,
        straight=True,
    ),
    Form(
        "codebook",
        codebook,
        lambda d, n: [d.normal(n, 8), d.normal(10, 8), d.normal(n, 8)],
        codebook_hand,
        wrt=("z", "e"),
        straight=True,
    ),
    Form(
        "squashed sample",
        squashed_sample,
        lambda d, n: [d.normal(n, 4), d.normal(n, 4) * 0.3, d.normal(n, 4)],
        squashed_sample_hand,
        wrt=("mean", "log_std"),
    ),
)
