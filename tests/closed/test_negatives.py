"""Gradients that are minus one another: neither is made of the other where a product can have the sign."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import codegen
from codegen.closed.plan.negatives import TURNED
from tests.closed.forms import Draw
from tests.closed.forms.counter import count


def triplet(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return F.triplet_margin_loss(a, p, n)


def three_distances(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return (a - p).norm(dim=1).square().tanh().sum() + (a - n).square().sum(1).sigmoid().sum()


def by_hand(a: Tensor, p: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    """The loss and its gradients."""
    ap, an = a - p + 1e-6, a - n + 1e-6
    dp, dn = ap.norm(dim=1), an.norm(dim=1)
    violation = dp + 1 - dn
    g = torch.where(violation > 0, 1 / len(a), 0.0).to(a.dtype)
    gp, gn = ap * (-g / dp).unsqueeze(-1), an * (g / dn).unsqueeze(-1)
    return violation.relu().mean(), -(gp + gn), gp, gn


def drawn(n: int = 32) -> list[Tensor]:
    draw = Draw(0)
    return [draw.normal(n, 16) for _ in range(3)]


def test_the_gradients_are_products_themselves() -> None:
    inputs = drawn()
    program = codegen.generate(triplet, *inputs)
    backward = program.source.split("def backward")[1]
    assert "da = dout_sub - dn" in backward
    assert "dout_sub_1" not in backward
    assert any(TURNED in step.rule for step in program.derivation.trail)

    def run() -> None:
        _, saved = program.module.forward(*inputs)
        program.module.backward(saved, torch.ones((), dtype=torch.float64))

    assert count(run).elements <= 1.05 * count(lambda: by_hand(*inputs)).elements
    for mine, hand in zip(program.value_and_grad(*inputs)[1].values(), by_hand(*inputs)[1:], strict=True):
        torch.testing.assert_close(mine, hand)


@pytest.mark.parametrize("forward", [triplet, three_distances])
@pytest.mark.parametrize("n", [1, 5, 64])
def test_gradients_are_those_of_autograd(forward: object, n: int) -> None:
    program = codegen.generate(forward, *drawn())  # pyright: ignore[reportArgumentType]
    leaves = [t.requires_grad_() for t in drawn(n)]
    true = torch.autograd.grad(forward(*leaves), leaves)  # pyright: ignore[reportCallIssue]
    for mine, theirs in zip(program.value_and_grad(*(t.detach() for t in leaves))[1].values(), true, strict=True):
        torch.testing.assert_close(mine, theirs)
