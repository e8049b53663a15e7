"""What stands in front of a function is a tensor that is made once: its kernel is met behind a bias or a scale as it is without."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F

import codegen
from tests.closed.forms import FORMS
from tests.closed.forms.counter import count
from tests.closed.forms.form import Draw


def logistic(x, w, b, y):
    return F.binary_cross_entropy_with_logits(x @ w + b, y)


def one_sided(x, w, b, y):
    return -F.logsigmoid(x @ w + b).mul(y).mean()


def swish(x, w, b, y):
    z = x @ w + b
    return (z / (1 + torch.exp(-z)) * y).sum()


def scaled_sigmoid(x, w, b, y):
    z = (x @ w) * b
    return (torch.exp(z) / (1 + torch.exp(z)) * y).sum()


def scaled_gelu(x, w, b, y):
    z = (x @ w) * b
    return (0.5 * z * (1 + torch.erf(z / math.sqrt(2))) * y).sum()


def squared_silu(x, w, b, y):
    z = (x @ w + b) ** 2
    return (z / (1 + torch.exp(-z)) * y).sum()


def squared_gelu(x, w, b, y):
    return (F.gelu((x @ w + b) ** 2) * y).sum()


def cooled_gelu(x, w, b, y):
    z = (x @ w + b) / 0.07
    return (0.5 * z * (1 + torch.erf(z / math.sqrt(2))) * y).sum()


def cubic_gelu(x, w, b, y):
    return (F.gelu((x @ w + b) / 0.07, approximate="tanh") * y).sum()


def cubed_gelu(x, w, b, y):
    z = (x @ w) * b
    t = torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))
    return (z * (0.5 + 0.5 * t) * y).sum()


CASES = (
    (cubic_gelu, ('approximate="tanh")', "gelu_backward(")),
    (cubed_gelu, ('gelu(z, approximate="tanh")', "gelu_backward(")),
    (squared_silu, ("silu(", "silu_backward(")),
    (squared_gelu, ("gelu(", "gelu_backward(")),
    (cooled_gelu, ("gelu(z)", "gelu_backward(")),
    (logistic, ("softplus(", "(out_sigmoid - y) * (grad_out / n0)", ".sum()")),
    (one_sided, ("logsigmoid(",)),
    (swish, ("silu(z)", "silu_backward(")),
    (scaled_sigmoid, ("z.sigmoid()", "sigmoid_backward(")),
    (scaled_gelu, ("gelu(z)", "gelu_backward(")),
)


@pytest.mark.parametrize(("forward", "parts"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_kernel_is_met_behind_what_is_in_front_of_it(forward, parts) -> None:
    g = torch.Generator().manual_seed(0)
    x, w, y = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((7, 4), (4,), (7,)))
    inputs = [x, w, torch.tensor(0.3, dtype=torch.float64), y.sigmoid()]
    program = codegen.generate(forward, *inputs)
    text = program.source.split("def step")[0]
    assert [p for p in parts if p not in text] == []
    assert len(re.findall(r"= .*\bb\b.*", text.split("def backward")[0])) == 1, "what is in front is made once"
    leaves = [t.clone().requires_grad_() for t in inputs]
    true = torch.autograd.grad(forward(*leaves), leaves)
    found = program.value_and_grad(*inputs)[1]
    for name, t in zip(found, true, strict=True):
        torch.testing.assert_close(found[name], t)


def normalised(x, g, b):
    z = x + b
    m = z.mean(0)
    return g * (z - m) / torch.sqrt(((z - m) ** 2).mean(0) + 1e-5)


def test_one_number_in_front_of_a_normalisation_has_no_gradient() -> None:
    """Its gradient is the sum over all of what sums to zero over the rows alone."""
    inputs = [torch.randn(6, 4), torch.rand(4), torch.tensor(0.2)]
    program = codegen.generate(normalised, *inputs)
    assert "db = torch.zeros_like(b)" in program.source


def discrepancy(x, y, b):
    """Of two samples, one of them moved."""
    z = x + b
    kxx, kyy, kxy = (torch.exp(-(u[:, None] - v[None]).square().sum(-1) / 2) for u, v in ((z, z), (y, y), (z, y)))
    return kxx.mean() + kyy.mean() - 2 * kxy.mean()


@pytest.mark.parametrize("shape", [(), (24,)])
def test_a_sum_over_a_gradient_leaves_out_what_cancels_in_it(shape) -> None:
    """Rows of one sample pull each other to no side; summed all the same, what rounding leaves of them has the whole plan refused."""
    g = torch.Generator().manual_seed(0)
    x, y = (0.7 * torch.randn(n, 24, generator=g) for n in (16, 13))
    inputs = [x, y, 0.2 * torch.randn(shape, generator=g)]
    program = codegen.generate(discrepancy, *inputs)
    assert ".unsqueeze(1) - " not in program.source.split("def forward")[1], "no differences of all pairs are made"
    exact = [t.double().requires_grad_() for t in inputs]
    true = torch.autograd.grad(discrepancy(*exact), exact)
    found = program.value_and_grad(*inputs)[1]
    for name, t in zip(found, true, strict=True):
        assert (found[name] - t).norm() <= 1e-4 * t.norm()


BEHIND = {form.name: form for form in FORMS}
NAMES = (
    "bce of probabilities", "tversky", "confidence penalty", "symmetric cross-entropy", "mean cosine of differences",
    "bonds of atoms", "proxy nca", "prototypes",
)  # fmt: skip
PASSES = 3.2
"""Over the first tensor: to add the bias, which reads and writes it, and to sum the gradient."""


@pytest.mark.sampled("name")
@pytest.mark.parametrize("row", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_form_behind_a_bias_is_the_form_and_the_bias(name, row) -> None:
    form = BEHIND[name]
    inputs = form.inputs(Draw(0), form.large)
    first, *others = inspect.signature(form.forward).parameters

    def biased(x, *rest):
        return form.forward(x + rest[-1], *rest[:-1])

    parameters = [inspect.Parameter(p, inspect.Parameter.POSITIONAL_ONLY) for p in (first, *others, "bias")]
    biased.__signature__ = inspect.Signature(parameters)
    bias = torch.zeros(inputs[0].shape[-1:] if row else (), dtype=inputs[0].dtype)
    wrt = (form.wrt or None) and [*form.wrt, "bias"]
    alone = moved(codegen.generate(form.forward, *inputs, wrt=form.wrt or None), inputs)
    behind = moved(codegen.generate(biased, *inputs, bias, wrt=wrt), [*inputs, bias])
    assert behind - alone <= PASSES * inputs[0].numel()


def moved(program, inputs) -> int:
    """The elements that a forward and its backward read and write."""
    given = torch.ones_like(program.forward(*inputs)[0])

    def both() -> None:
        _, saved = program.module.forward(*inputs)
        program.module.backward(saved, given)

    return count(both).elements
