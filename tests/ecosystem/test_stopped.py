"""What a forward keeps from being differentiated is kept from it in second derivatives and in forward mode, too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import codegen

# torch's own, at its first derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
G = torch.Generator().manual_seed(5)


def t(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def without_gradient(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    with torch.no_grad():
        m = h.mean(1, keepdim=True)
        low, _ = h.min(0)
    return (h * m - low).square().sum()


def straight_through(x: Tensor, w: Tensor) -> Tensor:
    h = (x @ w).tanh()
    q = h + (h.sign() - h).detach()
    return (q * h * x.sum()).square().sum()


def commitment(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return (z.detach() - c).square().mean() + 0.25 * (z - c.detach()).square().mean(), z * c.detach()


def padded(i: Tensor, w: Tensor) -> Tensor:
    return (F.embedding(i, w, padding_idx=0) * w[0]).sin().sum()


FORWARDS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "itself": (lambda x: x.detach() ** 2 * x**2, (t(3, 2),)),
    "without gradient": (without_gradient, (t(3, 4), t(4, 5))),
    "straight through": (straight_through, (t(3, 4), t(4, 5))),
    "commitment": (commitment, (t(3, 2), t(3, 2))),
    "padded": (padded, (torch.tensor([0, 2, 0, 1]), t(4, 3))),
    "scaled": (lambda x: (x / x.norm().detach()).tanh(), (t(5),)),
}


def second(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients, and gradients of a function of these with respect to inputs and cotangents."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    out = function(*leaves)
    outs = out if isinstance(out, tuple) else (out,)
    seeds = [torch.linspace(0.5, 1.5, o.numel(), dtype=o.dtype).view_as(o).requires_grad_() for o in outs]
    live = [x for x in leaves if x.requires_grad]
    grads = torch.autograd.grad(outs, live, seeds, create_graph=True)
    total = sum((g * torch.linspace(1, 2, g.numel(), dtype=g.dtype).view_as(g)).sum() for g in grads)
    again = torch.autograd.grad(total, [*live, *seeds], allow_unused=True, materialize_grads=True)
    return [*grads, *again]


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_second_derivatives_are_autograds(name: str, mode: str) -> None:
    forward, inputs = FORWARDS[name]
    program = codegen.generate(forward, *inputs, mode=mode)
    torch.testing.assert_close(second(program.function, inputs), second(forward, inputs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_forward_mode_is_the_transpose_of_the_backward(name: str, mode: str) -> None:
    """torch's own forward mode goes through `no_grad` and rows of padding, its backward does not."""
    forward, inputs = FORWARDS[name]
    program = codegen.generate(forward, *inputs, mode=mode)
    at = [k for k, x in enumerate(inputs) if x.is_floating_point()]

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *some: function(*(dict(enumerate(inputs)) | dict(zip(at, some, strict=True))).values())

    moved, along = tuple(inputs[k] for k in at), tuple(t(*inputs[k].shape) for k in at)
    _, tangent = torch.func.jvp(of(program.function), moved, along)
    out, pull = torch.func.vjp(of(forward), *moved)
    outs, tangents = (out, tangent) if isinstance(out, tuple) else ((out,), (tangent,))
    seeds = tuple(t(*o.shape) for o in outs)
    theirs = sum((g * v).sum() for g, v in zip(pull(seeds if isinstance(out, tuple) else seeds[0]), along, strict=True))
    mine = sum((s * d).sum() for s, d in zip(seeds, tangents, strict=True))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["itself", "without gradient", "straight through", "padded"])
def test_products_with_the_hessian(name: str) -> None:
    """The Hessian of what is a constant there is no symmetric matrix: the product is with its transpose, as autograd's."""
    forward, inputs = FORWARDS[name]

    def total(*given: Tensor) -> Tensor:
        return forward(*given).sum()

    for mode in ("steps", "closed"):
        program = codegen.generate(total, *inputs, mode=mode, order=2)
        leaves = {n: x for n, x in zip(program.graph.inputs, inputs, strict=True) if x.is_floating_point()}
        vectors = {n: torch.linspace(1, 2, x.numel(), dtype=x.dtype).view_as(x) for n, x in leaves.items()}
        given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        live = [x for x in given if x.requires_grad]
        grads = torch.autograd.grad(total(*given), live, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(grads, vectors.values(), strict=True))
        theirs = torch.autograd.grad(along, live, allow_unused=True, materialize_grads=True)
        found = list(program.hvp(inputs, vectors).values())
        torch.testing.assert_close(found, list(theirs), rtol=1e-9, atol=1e-12)


class Noisy(nn.Module):
    """Batch statistics and a mask beside something that is held."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.norm(self.layer(x)), 0.4)
        return (h * h.detach().tanh()).sum(1)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_module_that_draws_and_counts() -> None:
    model, x = Noisy().double(), t(6, 3)
    program = codegen.generate(model, x)
    named = dict(model.named_parameters())
    found: list[list[Tensor]] = []
    for call in (program.function, model):
        torch.manual_seed(2)
        leaf = x.clone().requires_grad_()
        grads = torch.autograd.grad(call(leaf).square().sum(), [leaf, *named.values()], create_graph=True)
        total = sum((g.sin()).sum() for g in grads)
        found.append([*grads, *torch.autograd.grad(total, [leaf, *named.values()], materialize_grads=True)])
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)
    compiled = torch.compile(program.module.function, fullgraph=True, backend="aot_eager")
    given = program.tensors((x.clone().requires_grad_(),))
    torch.manual_seed(2)
    plain = torch.autograd.grad(program.module.function(*given).sum(), given[0])
    torch.manual_seed(2)
    torch.testing.assert_close(torch.autograd.grad(compiled(*given).sum(), given[0]), plain)


@pytest.mark.parametrize("name", FORWARDS)
def test_transforms_over_rows_and_over_gradients(name: str) -> None:
    forward, inputs = FORWARDS[name]
    program = codegen.generate(forward, *inputs)
    at = next(k for k, x in enumerate(inputs) if x.is_floating_point())

    def hessian(function: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        def total(x: Tensor) -> Tensor:
            out = function(*[x if k == at else v for k, v in enumerate(inputs)])
            return out.sum() if isinstance(out, Tensor) else sum(o.sin().sum() for o in out)

        return torch.func.jacrev(torch.func.grad(total))

    several = torch.stack([inputs[at], inputs[at] + 1])
    mine, theirs = (torch.func.vmap(hessian(f))(several) for f in (program.function, forward))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
