"""Steps mode rounds as autograd does: gradients that are equal bit for bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from codegen import check, generate
from codegen.inputs import example_inputs
from codegen.targets import load_target

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [2, 8, 32])
def test_every_intermediate_of_the_mlp_is_autograds_bit_for_bit(dtype: torch.dtype, batch: int) -> None:
    target = load_target("mlp")
    inputs = example_inputs(target, dtype)
    inputs = {n: t[:batch] if n in ("x", "y") else t for n, t in inputs.items()}
    program = generate(target.forward, *example_inputs(target, torch.float32).values(), mode="steps")
    report = check(program, *inputs.values(), truth=False)
    assert report.ok
    assert [r.name for r in report.rows if not r.exact] == []
    assert len(report.rows) == 28


FORWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a quotient, its denominator broadcast": lambda x, w: (x / (w * w + 1.3)).sum(),
    "a quotient of a quotient": lambda x, w: (x / x.exp() / (w.exp() + x.square())).sum(),
    "a cube": lambda x, w: (x**3 * w).sum(),
    "tanh": lambda x, w: ((x * w).tanh() * x).sum(),
    "a gate": lambda x, w: (torch.sigmoid(x * w) * x).sum(),
    "roots and logarithms": lambda x, w: ((x * x + 0.7).sqrt() * (w * w + 0.1).log()).sum(),
    "a scale that is broadcast": lambda x, w: ((x - x.mean(0, keepdim=True)) * w).exp().mean(),
    "a product of three": lambda x, w: (x * w * x.tanh()).sum(),
}


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise_steps_are_bit_exact(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in [(37, 19), (19,)])
    program = generate(FORWARDS[name], x, w, mode="steps")
    report = check(program, x, w, truth=False)
    assert report.ok
    assert [r.name for r in report.rows if not r.exact] == []
