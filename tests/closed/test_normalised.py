"""What torch's own normalisations are closed to: the normalised tensor and the reciprocal deviation, as papers have them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import codegen
from codegen.closed.definitions.normalised import RULE
from codegen.program import Program
from tests.closed.forms import Draw
from tests.closed.forms.counter import count


def layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w, b)


def without_a_factor(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], None, b) * w.sum()


def rms_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], w, 1e-5) + b


def batch_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, w, b, training=True)


def evaluated(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x, b.detach(), w.detach().square(), w, b)


def closed(forward: object) -> tuple[Program, list[Tensor]]:
    draw = Draw(0)
    inputs = [draw.normal(64, 32), draw.normal(32), draw.normal(32)]
    return codegen.generate(forward, *inputs), inputs  # pyright: ignore[reportArgumentType]


def moved(program: Program, inputs: list[Tensor]) -> float:
    """Elements that forward and backward move, in sizes of x."""
    grad_out = torch.ones_like(inputs[0])

    def run() -> None:
        _, saved = program.module.forward(*inputs)
        program.module.backward(saved, grad_out)

    return count(run).elements / inputs[0].numel()


def by_hand(x: Tensor, w: Tensor, b: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """LayerNorm as llm.c writes it down."""
    centred = x - x.mean(1, keepdim=True)
    rstd = ((centred**2).mean(1, keepdim=True) + 1e-5).rsqrt()
    xhat = centred * rstd
    torch.addcmul(b, xhat, w)
    dxhat = dy * w
    dx = (dxhat - dxhat.mean(1, keepdim=True) - xhat * (dxhat * xhat).mean(1, keepdim=True)) * rstd
    return dx, (dy * xhat).sum(0), dy.sum(0)


@pytest.mark.parametrize("forward", [layer_norm, without_a_factor, rms_norm])
def test_the_normalised_tensor_and_the_reciprocal_deviation_are_kept(forward: object) -> None:
    program, _ = closed(forward)
    kept = program.source.split("return out, (")[1].split(")\n")[0].split(", ")
    assert "x_hat" in kept
    assert {"x_rstd", "x_rsqrt"} & {*kept}
    assert not {"x", "x_centred"} & {*kept}
    assert "sqrt()" not in program.source.split("def backward")[1]
    assert any(RULE in step.rule for step in program.derivation.trail)


def test_it_moves_no_more_than_the_version_by_hand() -> None:
    program, inputs = closed(layer_norm)
    hand = count(lambda: by_hand(*inputs, torch.ones_like(inputs[0])))
    assert moved(program, inputs) <= hand.elements / inputs[0].numel()


def test_where_factors_are_one_number_a_column_no_tensor_is_made_for_it() -> None:
    program, _ = closed(batch_norm)
    assert "x_hat" not in program.source
    assert "x_rstd" in program.source


def test_a_root_of_anything_else_stays() -> None:
    program, _ = closed(evaluated)
    assert "_hat" not in program.source
    assert "_rstd" not in program.source


@pytest.mark.parametrize("forward", [layer_norm, without_a_factor, rms_norm, batch_norm, evaluated])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_gradients_are_those_of_autograd(forward: object, offset: float) -> None:
    program, inputs = closed(forward)
    for n in (2, 5, 64):
        leaves = [
            (t[:n] + offset * (k == 0) if t.dim() > 1 else t).clone().requires_grad_() for k, t in enumerate(inputs)
        ]
        out = forward(*leaves)  # pyright: ignore[reportCallIssue]
        dy = Draw(1).normal(n, 32)
        result, saved = program.forward(*(t.detach() for t in leaves))
        torch.testing.assert_close(result, out.detach(), rtol=1e-9, atol=1e-9)
        true = torch.autograd.grad(out, leaves, dy)
        for mine, theirs in zip(program.backward(saved, dy).values(), true, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
