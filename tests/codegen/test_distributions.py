"""torch's distributions in a forward: densities, divergences, entropies and what is drawn through their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import distributions as d

import codegen
from codegen.reference import same_randomness

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def wide(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x) + 0.1


def within(x: Tensor) -> Tensor:
    return 0.1 + 0.8 * x.sigmoid()


DENSITIES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "normal": lambda a, b, v: d.Normal(a, wide(b)).log_prob(v),
    "independent": lambda a, b, v: d.Independent(d.Normal(a, wide(b)), 1).log_prob(v),
    "categorical": lambda a, b, v: d.Categorical(logits=a).log_prob(v.argmax(1)),
    "shares": lambda a, b, v: d.Categorical(probs=a.softmax(-1)).log_prob(v.argmax(1)),
    "bernoulli": lambda a, b, v: d.Bernoulli(logits=a).log_prob((v > 0).to(a.dtype)),
    "beta": lambda a, b, v: d.Beta(wide(a), wide(b)).log_prob(within(v)),
    "gamma": lambda a, b, v: d.Gamma(wide(a), wide(b)).log_prob(wide(v)),
    "dirichlet": lambda a, b, v: d.Dirichlet(wide(a)).log_prob(v.softmax(-1)),
    "exponential": lambda a, b, v: d.Exponential(wide(a)).log_prob(wide(v)),
    "laplace": lambda a, b, v: d.Laplace(a, wide(b)).log_prob(v),
    "uniform": lambda a, b, v: d.Uniform(-wide(a), wide(b)).log_prob(v / 100),
    "poisson": lambda a, b, v: d.Poisson(wide(a)).log_prob(v.abs().floor()),
    "student": lambda a, b, v: d.StudentT(wide(b) + 2, a, wide(b)).log_prob(v),
    "lognormal": lambda a, b, v: d.LogNormal(a, wide(b)).log_prob(wide(v)),
    "squashed": lambda a, b, v: d.TransformedDistribution(
        d.Normal(a, wide(b)), [d.transforms.TanhTransform()]
    ).log_prob(v.tanh()),
    "mixture": lambda a, b, v: d.MixtureSameFamily(d.Categorical(logits=a[0]), d.Normal(b[1], wide(b[0]))).log_prob(
        v[:, 0]
    ),
    "several": lambda a, b, v: d.MultivariateNormal(a, scale_tril=torch.diag_embed(wide(b))).log_prob(v),
    "chi2": lambda a, b, v: d.Chi2(wide(a)).log_prob(wide(v)),
    "divergence": lambda a, b, v: d.kl_divergence(d.Normal(a, wide(b)), d.Normal(v, 1.0)),
    "to the prior": lambda a, b, v: d.kl_divergence(d.Normal(a, wide(b)), d.Normal(0.0, 1.0)),
    "between several": lambda a, b, v: d.kl_divergence(
        d.MultivariateNormal(a, scale_tril=torch.diag_embed(wide(b))), d.MultivariateNormal(v, torch.eye(3).double())
    ),
    "of classes": lambda a, b, v: d.kl_divergence(d.Categorical(logits=a), d.Categorical(logits=v)),
    "entropy": lambda a, b, v: d.Categorical(logits=a).entropy(),
    "cumulative": lambda a, b, v: d.Normal(a, wide(b)).cdf(v),
}
DRAWN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "normal": lambda a, b, v: d.Normal(a, wide(b)).rsample() * v,
    "of the prior": lambda a, b, v: d.Normal(0.0, 1.0).sample((3,)) * a + b * v,
    "laplace": lambda a, b, v: d.Laplace(a, wide(b)).rsample() * v,
    "exponential": lambda a, b, v: d.Exponential(wide(a)).rsample() * v,
    "gumbel": lambda a, b, v: d.Gumbel(a, wide(b)).rsample() * v,
    "cauchy": lambda a, b, v: d.Cauchy(a, wide(b)).rsample() * v,
    "policy": lambda a, b, v: (lambda p: p.log_prob(p.sample()) * v[:, 0])(d.Categorical(logits=a)),
    "gaussian policy": lambda a, b, v: (lambda p: p.log_prob(p.sample()) * v)(d.Normal(a, wide(b))),
    "relaxed": lambda a, b, v: d.RelaxedOneHotCategorical(torch.tensor(0.5), logits=a).rsample() * v,
    "straight through": lambda a, b, v: d.OneHotCategoricalStraightThrough(logits=a).rsample() * v,
}


def inputs(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(n, 3, dtype=torch.float64, generator=generator) for _ in range(3)]


def compare(forward: Callable[..., Any], program: codegen.Program, n: int) -> None:
    leaves = [t.requires_grad_() for t in inputs(n)]
    with same_randomness():
        wanted = forward(*leaves)
    seed = torch.linspace(0.5, 2, wanted.numel(), dtype=wanted.dtype).reshape(wanted.shape)
    gradients = torch.autograd.grad(wanted, leaves, seed, allow_unused=True)
    with same_randomness():
        out, saved = program.forward(*inputs(n))
    torch.testing.assert_close(out, wanted.detach())
    found = program.backward(saved, seed)
    for name, leaf, g in zip("abv", leaves, gradients, strict=True):
        torch.testing.assert_close(found[name], torch.zeros_like(leaf) if g is None else g)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.sampled("name")
def test_densities(name: str, mode: str) -> None:
    program = codegen.generate(DENSITIES[name], *inputs(4), mode=mode)
    for n in (4, 2, 7):
        compare(DENSITIES[name], program, n)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn(name: str, mode: str) -> None:
    program = codegen.generate(DRAWN[name], *inputs(4), mode=mode)
    for n in (4,) if name == "of the prior" else (4, 2, 7):
        compare(DRAWN[name], program, n)
    first, *others = (program.forward(*inputs(4))[0] for _ in range(12))
    assert not all(torch.equal(first, other) for other in others)
