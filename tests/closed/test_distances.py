"""Squared distances by torch's kernel: the values and gradients that the written-out sum has, and everything it can be put to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from codegen.helpers import squared_distances
from tests.closed.forms import Draw
from tests.closed.forms.distances import DISTANCES, distance_matrix, prototypes
from tests.closed.forms.rows import ROWS, mmd
from tests.closed.test_forms import autograd, program_of, wanted

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("form", DISTANCES, ids=lambda f: f.name)
def test_without_a_graph(form: Any) -> None:
    program = program_of(form, 5)
    assert "squared_distances(" in program.source or form.name == "residuals of clusters"
    for scale, offset in ((1, 0), (1e-3, 1), (1, 3)):
        first, *rest = form.inputs(Draw(3), 5)
        inputs = [first * scale + offset, *rest]
        with torch.no_grad():
            out, saved = program.forward(*inputs)
        torch.testing.assert_close(out, form.forward(*inputs), rtol=1e-9, atol=1e-10)
        grads = program.backward(saved, torch.ones_like(out))
        for name, true in zip(
            wanted(form, program), autograd(form, program, inputs, torch.ones_like(out)), strict=True
        ):
            torch.testing.assert_close(grads[name], true, rtol=1e-7, atol=1e-9 * max(1, float(true.abs().max())))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_float32_distances_are_as_good_as_differences(offset: float) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, 6, generator=g) + offset for _ in range(2))
    y[:5] = x[:5] + 1e-3
    true = ((x.double()[:, None] - y.double()) ** 2).sum(-1)
    with torch.no_grad():
        found = squared_distances(x, y)
    assert float(((found - true) / true).abs().max()) < 1e-6
    torch.testing.assert_close(squared_distances(x.bfloat16(), y.bfloat16()).float(), found, rtol=0.1, atol=300.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_transforms() -> None:
    """A Hessian's product with a vector, per-sample gradients, and the compiler."""
    x, c = (Draw(0).normal(5, 3) for _ in range(2))
    y = torch.arange(5)
    program = codegen.generate(prototypes, x, c + 1, y)

    def ours(a: torch.Tensor) -> torch.Tensor:
        return program.function(a, c + 1, y)

    def theirs(a: torch.Tensor) -> torch.Tensor:
        return prototypes(a, c + 1, y)

    vector = Draw(1).normal(5, 3)
    for f in (torch.func.grad, lambda h: lambda a: torch.func.jvp(torch.func.grad(h), (a,), (vector,))[1]):
        torch.testing.assert_close(f(ours)(x), f(theirs)(x), rtol=1e-9, atol=1e-11)
    plain = program.module.forward
    tangents = [torch.func.jvp(f, (x,), (vector,))[1] for f in (lambda a: plain(a, c + 1, y)[0], theirs)]
    torch.testing.assert_close(*tangents)
    torch.testing.assert_close(torch.vmap(lambda a: plain(a, c + 1, y)[0])(torch.stack([x, x])), theirs(x).expand(2))
    several = torch.stack([x, x + 1])
    torch.testing.assert_close(torch.vmap(torch.func.grad(ours))(several), torch.vmap(torch.func.grad(theirs))(several))


def test_a_loop_over_distances_is_autograds() -> None:
    g = torch.Generator().manual_seed(2)
    x, c, y = torch.randn(30, 4, generator=g), torch.randn(3, 4, generator=g), torch.randint(0, 3, (30,), generator=g)
    trainer = codegen.generate(prototypes, x[:8], c, y[:8]).trainer({"c": c}, batch_size=8, lr=0.1)
    trainer.run((x, y), steps=5, generator=torch.Generator().manual_seed(5))
    leaf, drawn = c.clone().requires_grad_(), torch.Generator().manual_seed(5)
    for _ in range(5):
        at = torch.randint(0, 30, (8,), generator=drawn)
        (grad,) = torch.autograd.grad(prototypes(x[at], leaf, y[at]), leaf)
        leaf = (leaf - 0.1 * grad).detach().requires_grad_()
    torch.testing.assert_close(trainer.params["c"], leaf.detach(), rtol=1e-4, atol=1e-5)


def test_batches_of_matrices() -> None:
    x, y = Draw(0).normal(2, 5, 3), Draw(1).normal(2, 4, 3)
    program = codegen.generate(lambda x, y: ((x[:, :, None] - y[:, None]) ** 2).sum(-1).exp().sum(), x, y)
    assert "squared_distances(" in program.source
    assert codegen.check(program, x, y).ok
    small = codegen.generate(distance_matrix, x[0], y[0])
    with torch.no_grad():
        torch.testing.assert_close(small.forward(x[0], y[0])[0], distance_matrix(x[0], y[0]))


def repulsion(x):
    """What keeps embedded points apart (van der Maaten and Hinton 2008), of all pairs."""
    return (1 / (1 + ((x[:, None] - x[None]) ** 2).sum(2))).sum()


def energy(x):
    """The kernel of a sample with itself, as in the maximum mean discrepancy (Gretton et al. 2012)."""
    return torch.exp(-((x[:, None] - x[None]) ** 2).sum(2) / 2).mean()


@pytest.mark.parametrize("forward", [repulsion, energy])
def test_what_pairs_say_of_one_another_is_summed_once(forward: Callable[..., Any]) -> None:
    """The weights are symmetric and the differences antisymmetric: the sums over either of a pair are one."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    program = codegen.generate(forward, x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(
        program.backward(program.forward(x)[1])["x"], torch.autograd.grad(forward(leaf), leaf)[0]
    )
    source = program.source
    backward = source[source.index("def backward") : source.index("return {")]
    assert backward.count("einsum") + backward.count(" @ ") + backward.count("addmm") == backward.count(".sum(") == 1


def test_weights_of_either_of_a_pair_are_summed_each() -> None:
    """Nothing is said of weights that are given."""
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((7, 3), (7, 7)))

    def weighted(x, w):
        return (w * ((x[:, None] - x[None]) ** 2).sum(2)).sum()

    program = codegen.generate(weighted, x, w)
    leaf = x.clone().requires_grad_()
    found = program.backward(program.forward(x, w)[1])["x"]
    torch.testing.assert_close(found, torch.autograd.grad(weighted(leaf, w), leaf)[0])


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("form", ROWS, ids=lambda f: f.name)
def test_what_weighs_a_row_against_itself_leaves_no_error(form: Any, offset: float) -> None:
    """A weight is largest there, as in a kernel of large distances, and multiplies a difference that is zero."""
    program = program_of(form, 20)
    first, *rest = form.inputs(Draw(5), 20)
    inputs = [(t.float() if t.is_floating_point() else t) for t in (first + offset, *rest)]
    if form.name in ("mmd", "energy distance"):
        inputs[1] = inputs[1] + offset
    exact = [t.double() if t.is_floating_point() else t for t in inputs]
    grad_out = Draw(6, torch.float32).normal(*form.forward(*inputs).shape)
    grads = program.backward(program.forward(*inputs)[1], grad_out)
    found = autograd(form, program, inputs, grad_out)
    for name, true, other in zip(
        wanted(form, program), autograd(form, program, exact, grad_out.double()), found, strict=True
    ):
        scale = true.square().mean().sqrt()
        mine, theirs = ((t.double() - true).square().mean().sqrt() / scale for t in (grads[name], other))
        assert mine <= max(3 * theirs, 2e-5 if offset else 3e-6), (name, float(mine), float(theirs))


def test_a_diagonal_is_left_out_once_for_all_sums() -> None:
    x, y = Draw(0).normal(6, 32), Draw(1).normal(5, 32)
    program = codegen.generate(mmd, x, y)
    assert program.source.count("fill_diagonal_(0)") == 2
    assert any("diagonal" in s.rule for s in program.derivation.trail)


def test_a_function_is_brought_along_wherever_it_is_called() -> None:
    x = Draw(0).normal(4, 3)
    program = codegen.generate(lambda x: -(x[:, None] - x).pow(2).sum(2), x)
    assert "-squared_distances(" in program.source
    torch.testing.assert_close(program.forward(x)[0], -(x[:, None] - x).pow(2).sum(2))
