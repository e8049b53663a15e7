"""Activations from exp, tanh and erf, and gated units."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.closed.forms.form import Form

K = 40
C0 = math.sqrt(2 / math.pi)


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def sigmoid_hand(x, g):
    s = x.sigmoid()
    return s, (g * s * (1 - s),)


def sigmoid_other(x):
    return x.exp() / (1 + x.exp())


def tanh(x):
    a, b = x.exp(), (-x).exp()
    return (a - b) / (a + b)


def tanh_hand(x, g):
    t = x.tanh()
    return t, (g * (1 - t * t),)


def tanh_lecture(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def softplus(x):
    return (1 + x.exp()).log()


def softplus_hand(x, g):
    return F.softplus(x), (g * x.sigmoid(),)


def logsigmoid(x):
    return (1 / (1 + (-x).exp())).log()


def logsigmoid_hand(x, g):
    return F.logsigmoid(x), (g * torch.sigmoid(-x),)


def silu(x):
    return x / (1 + (-x).exp())


def silu_hand(x, g):
    s = x.sigmoid()
    out = x * s
    return out, (g * (s + out * (1 - s)),)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_hand(x, g):
    c = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x * c, (g * (c + x * (x * x * -0.5).exp() / math.sqrt(2 * math.pi)),)


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(C0 * (x + 0.044715 * x**3)))


def gelu_tanh_hand(x, g):
    return F.gelu(x, approximate="tanh"), (torch.ops.aten.gelu_backward(g, x, approximate="tanh"),)


def mish(x):
    return x * torch.tanh((1 + x.exp()).log())


def mish_hand(x, g):
    t = torch.tanh(F.softplus(x))
    return x * t, (g * (t + x * (1 - t * t) * x.sigmoid()),)


def elu(x):
    return torch.where(x > 0, x, x.exp() - 1)


def elu_hand(x, g):
    e = torch.where(x > 0, x, x.expm1())
    return e, (g * torch.where(x > 0, 1.0, e + 1),)


def leaky_relu(x):
    return torch.where(x > 0, x, 0.01 * x)


def leaky_relu_hand(x, g):
    m = torch.where(x > 0, 1.0, torch.tensor(0.01, dtype=x.dtype))
    return x * m, (g * m,)


def glu(x):
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def glu_hand(x, g):
    a, b = x.chunk(2, 1)
    s = b.sigmoid()
    out = a * s
    return out, (torch.cat([g * s, g * out * (1 - s)], 1),)


def swiglu(x, w, v):
    a, b = x @ w, x @ v
    return a / (1 + (-a).exp()) * b


def swiglu_hand(x, w, v, g):
    a, b = x @ w, x @ v
    s = a.sigmoid()
    h = a * s
    da = g * b * (s + h * (1 - s))
    db = g * h
    return h * b, (da @ w.T + db @ v.T, x.T @ da, x.T @ db)


def softsign(x):
    return x / (1 + x.abs())


def hard_swish(x):
    return x * (x + 3).clamp(0, 6) / 6


def one(d, n):
    return [d.normal(n, K)]


ACTIVATIONS = (
    Form("sigmoid", sigmoid, one, sigmoid_hand, extreme=True),
    Form("sigmoid as exp/(1+exp)", sigmoid_other, one, sigmoid_hand, extreme=True),
    Form("tanh from exponentials", tanh, one, tanh_hand),
    Form("tanh as (e-1)/(e+1)", tanh_lecture, one, tanh_hand),
    Form("softplus", softplus, one, softplus_hand, extreme=True),
    Form("log of sigmoid", logsigmoid, one, logsigmoid_hand, extreme=True),
    Form("silu", silu, one, silu_hand, extreme=True),
    Form("gelu erf", gelu, one, gelu_hand),
    Form("gelu tanh", gelu_tanh, one, gelu_tanh_hand),
    Form("mish", mish, one, mish_hand, extreme=True),
    Form("elu", elu, one, elu_hand, twice=False),
    Form("leaky relu", leaky_relu, one, leaky_relu_hand, twice=False),
    Form("glu", glu, one, glu_hand),
    Form("swiglu", swiglu, lambda d, n: [d.normal(n, 12), d.normal(12, K), d.normal(12, K)], swiglu_hand),
    Form("softsign", softsign, one, None, twice=False),
    Form("hard swish", hard_swish, one, None, twice=False),
)
