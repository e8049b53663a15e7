"""Hessian-vector products from the derivation of the derived gradient, against torch.func."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codegen import generate
from codegen.inputs import example_inputs
from codegen.targets import load_target
from engine.errors import InputError

# torch's own, at its first derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

G = torch.Generator().manual_seed(0)


def t(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def classifier(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    h = (x @ w + b).tanh()
    return -h.log_softmax(1)[torch.arange(y.shape[0]), y].mean()


FORWARDS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "classifier": (classifier, (t(5, 3), t(3, 4), t(4), torch.tensor([0, 3, 1, 1, 2]))),
    "quadratic": (lambda x, a: (x @ a @ x) / 2, (t(4), t(4, 4))),
    "normalised": (lambda x: (x / (x * x).sum(-1, keepdim=True).sqrt()).sin().sum(), (t(3, 4),)),
    "logistic": (
        lambda x, w, y: torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y),
        (t(6, 3), t(3), t(6).sigmoid()),
    ),
    "gathered": (lambda c, i: (c[i].exp().sum(1) * c[i, 0]).sum(), (t(5, 3), torch.tensor([0, 2, 2]))),
}


F = nn.functional
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": lambda h: (h @ h.T / 2).softmax(1) @ h,
    "gelu": F.gelu,
    "gelu by tanh": lambda h: F.gelu(h, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "relu": torch.relu,
    "leaky": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "shrunk": F.softshrink,
    "a layer norm": lambda h: F.layer_norm(h, h.shape[1:]),
}
FORWARDS |= {
    name: (lambda x, w, f=f: (f(x @ w) ** 2).mean(), (t(5, 3), t(3, 4))) for name, f in KERNELS.items()
}  # whose closed forms call kernels of torch's


def wanted(forward: Callable[..., Any], inputs: tuple[Tensor, ...], vectors: list[Tensor]) -> list[Tensor]:
    """torch.func's product, forward over reverse."""
    floats = [k for k, x in enumerate(inputs) if x.is_floating_point()]

    def of_floats(*given: Tensor) -> Tensor:
        whole = list(inputs)
        for k, x in zip(floats, given, strict=True):
            whole[k] = x
        return forward(*whole)

    gradient = torch.func.grad(of_floats, argnums=tuple(range(len(floats))))
    return list(torch.func.jvp(gradient, tuple(inputs[k] for k in floats), tuple(vectors))[1])


@pytest.mark.sampled("name")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_products_equal_torch_func(name: str, mode: str) -> None:
    forward, inputs = FORWARDS[name]
    program = generate(forward, *inputs, mode=mode, order=2)
    names = [n for n, x in zip(program.graph.inputs, inputs, strict=True) if x.is_floating_point()]
    vectors = [t(*x.shape) for x in inputs if x.is_floating_point()]
    found = program.hvp(inputs, dict(zip(names, vectors, strict=True)))
    assert list(found) == names
    for mine, theirs in zip(found.values(), wanted(forward, inputs, vectors), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_the_mlp_has_second_derivatives_at_other_batch_sizes() -> None:
    target = load_target("mlp")
    program = generate(target.forward, *example_inputs(target, torch.float32).values(), mode="closed", order=2)
    inputs = {n: x[:8] if n in ("x", "y") else x for n, x in example_inputs(target, torch.float64).items()}
    vectors = {n: t(*x.shape) for n, x in inputs.items() if x.is_floating_point()}
    found = program.hvp(tuple(inputs.values()), vectors)
    torch.set_default_dtype(torch.float64)  # for the constants that the notebook's forward makes
    try:
        expected = wanted(target.forward, tuple(inputs.values()), list(vectors.values()))
    finally:
        torch.set_default_dtype(torch.float32)
    for (name, mine), theirs in zip(found.items(), expected, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(
            mine, theirs, rtol=1e-8, atol=1e-9 * scale + 1e-14, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_module_has_products_by_its_parameters_names() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x).square().mean()

    loss, x = Loss(), t(5, 3)
    program = generate(loss, x, order=2)
    v = t(4, 3)
    found = program.hvp((x,), {"model.0.weight": v})

    def of_weight(w: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"model.0.weight": w}, (x,))

    theirs = torch.func.jvp(torch.func.grad(of_weight), (model[0].weight.detach(),), (v,))[1]
    torch.testing.assert_close(found["model.0.weight"], theirs, rtol=1e-9, atol=1e-12)


def test_what_has_no_hessian_is_refused() -> None:
    with pytest.raises(InputError, match="one scalar"):
        generate(lambda x: x.tanh(), t(3), order=2)
    program = generate(lambda x: x.tanh().sum(), t(3))
    with pytest.raises(InputError, match="order=2"):
        program.hvp((t(3),), {})
    second = generate(lambda x: x.tanh().sum(), t(3), order=2)
    with pytest.raises(InputError, match="no differentiable input"):
        second.hvp((t(3),), {"z": t(3)})
    with pytest.raises(InputError, match="the vector for x"):
        second.hvp((t(3),), {"x": t(4)})
