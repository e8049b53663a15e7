"""Running products: what they pass back where factors are zero, and in closed form where a factor's logarithm has a bounded slope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import codegen
from tests.closed.forms import Draw

if TYPE_CHECKING:
    from codegen.program import Program


def plain(x: Tensor, w: Tensor) -> Tensor:
    return (x.cumprod(1) * w).sum()


def of_products(x: Tensor, w: Tensor) -> Tensor:
    return ((x * w).cumprod(0) * w).sum()


def opacities(x: Tensor, w: Tensor) -> Tensor:
    seen = torch.cumprod(1 - x, -1)
    return (x * torch.cat([torch.ones_like(seen[:, :1]), seen[:, :-1]], 1) * w).sum()


def with_zeros() -> list[Tensor]:
    """Rows with no zero, one and two zeros; for opacities the ones are what lets nothing through."""
    x = Draw(0).unit(4, 5)
    x[1, 2] = x[2, 1] = x[2, 3] = 0
    x[3, 0] = 1
    return [x, Draw(1).normal(4, 5)]


def compared(program: Program, forward: Any, inputs: list[Tensor]) -> None:
    leaves = [t.clone().requires_grad_() for t in inputs]
    true = forward(*leaves)
    out, saved = program.forward(*inputs)
    torch.testing.assert_close(out, true)
    grads = program.backward(saved, None)
    for name, theirs in zip(program.graph.inputs, torch.autograd.grad(true, leaves), strict=True):
        torch.testing.assert_close(grads[name], theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", [plain, of_products, opacities])
def test_factors_that_may_be_zero(forward: Any, mode: Any) -> None:
    """Nothing is divided by them: torch's kernel sees to that. The program is for any size."""
    program = codegen.generate(forward, Draw(0).normal(3, 7), Draw(1).normal(3, 7), mode=mode)
    assert "cumprod_backward" in program.source
    inputs = with_zeros()
    if mode == "steps":
        report = codegen.check(program, *inputs)
        assert report.ok
        assert all(row.exact for row in report.rows)
    else:
        compared(program, forward, inputs)


def before(f: Tensor) -> Tensor:
    return torch.cat([f.new_ones(len(f), 1), f.cumprod(1)[:, :-1]], 1)


def before_by_ones(f: Tensor) -> Tensor:
    return torch.cat([torch.ones(len(f), 1, dtype=f.dtype), f], 1).cumprod(1)[:, :-1]


def before_by_a_slice(f: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(f[:, :1]), f[:, :-1]], 1).cumprod(1)


def before_by_padding(f: Tensor) -> Tensor:
    return torch.nn.functional.pad(f.cumprod(1), (1, 0), value=1.0)[:, :-1]


@pytest.mark.parametrize("shifted", [before, before_by_ones, before_by_a_slice, before_by_padding])
def test_products_of_all_before_are_one_form(shifted: Any) -> None:
    """Whatever they are put together of: one running product there, one running sum back, and nothing is put at places."""

    def forward(z: Tensor, v: Tensor) -> Tensor:
        b = z.sigmoid()
        return (b * shifted(1 - b) * v).sum(1).square().sum()

    program = codegen.generate(forward, Draw(0).normal(3, 6), Draw(1).normal(3, 6))
    text = program.source[: program.source.index("class ")]
    assert text.count(".cumprod(") == text.count(".cumsum(") == 1
    assert "new_zeros" not in text
    assert " / " not in text[text.index("def backward") :]
    for scale in (1.0, 40.0, 1e4):
        compared(program, forward, [scale * Draw(2).normal(4, 9), Draw(3).normal(4, 9)])
    compared(program, forward, [Draw(2).normal(2, 1), Draw(3).normal(2, 1)])


FACTORS: dict[str, Any] = {
    "exp": lambda x: (-x.square()).exp(),
    "sigmoid": torch.sigmoid,
    "floor": lambda x: 1 - (1 - (-x.square()).exp()) + 1e-10,
    "clamp": lambda x: 1 - x.sigmoid().clamp(max=0.99),
    "clamp below": lambda x: x.clamp(min=0.1),
}


@pytest.mark.parametrize(
    ("factor", "after"), [(f, () if k else (3,)) for k, f in enumerate(FACTORS.values())], ids=FACTORS
)
def test_factors_with_bounded_slopes(factor: Any, after: tuple[int, ...]) -> None:
    """One running sum of what is passed back, along any dimension; right where the factors are next to nothing."""

    def forward(x: Tensor, w: Tensor) -> Tensor:
        return (factor(x).cumprod(1) * w).sum()

    program = codegen.generate(forward, Draw(0).normal(2, 5, *after), Draw(1).normal(2, 5, *after))
    assert "cumprod_backward" not in program.source
    assert program.source.count(".cumsum(1)") == 1
    for scale in (1.0, 30.0):
        compared(program, forward, [scale * Draw(2).normal(3, 4, *after), Draw(3).normal(3, 4, *after)])


def test_a_product_that_is_read_up_to_its_last_place_is_kept() -> None:
    def forward(z: Tensor, c: Tensor) -> Tensor:
        a = z.sigmoid()
        seen = (1 - a).cumprod(1)
        w = a * torch.cat([torch.ones_like(a[:, :1]), seen[:, :-1]], 1)
        return ((w * c).sum(1) + seen[:, -1]).square().sum()

    program = codegen.generate(forward, Draw(0).normal(3, 5), Draw(1).normal(3, 5))
    compared(program, forward, [Draw(2).normal(4, 7), Draw(3).normal(4, 7)])


def test_of_integers_and_of_other_precisions() -> None:
    def forward(x: Tensor, k: Tensor) -> Tensor:
        return (k.cumprod(0) * x.cumprod(0, dtype=torch.float64).float()).sum()

    x, k = torch.rand(5), torch.tensor([1, 2, 3, 1, 2])
    program = codegen.generate(forward, x, k)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(program.value_and_grad(x, k)[1]["x"], torch.autograd.grad(forward(leaf, k), leaf)[0])
