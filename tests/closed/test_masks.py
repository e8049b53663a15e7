"""Masks of ones and zeros: what they choose is chosen, with nothing multiplied by them, and one choice passes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen

if TYPE_CHECKING:
    from codegen.program import Program


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def rows() -> torch.Tensor:
    """Numbers with zeros, kinks, and what exponentials of are large."""
    x = drawn(6, 7) * 2
    x[0, :5] = torch.tensor([0.0, 1.0, -1.0, 300.0, -300.0])
    return x


def checked(forward: Any, *inputs: torch.Tensor) -> Program:
    """The program, after every gradient of it was what autograd's is, wherever that is finite."""
    program = codegen.generate(forward, *inputs)
    assert program.writer is not None
    assert [r.code.refused for r in program.writer.regions.values() if r.code.refused] == []
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    out = forward(*leaves)
    grad = torch.rand(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    own, saved = program.forward(*inputs)
    torch.testing.assert_close(own[out.isfinite()], out[out.isfinite()].detach(), rtol=1e-12, atol=1e-13)
    grads = program.backward(saved, grad)
    asked = [(n, t) for n, t in zip(program.graph.inputs, leaves, strict=True) if t.requires_grad]
    trues = torch.autograd.grad(out, [t for _, t in asked], grad, allow_unused=True)
    for (name, _), true in zip(asked, trues, strict=True):
        true = torch.zeros_like(grads[name]) if true is None else true
        finite = true.isfinite()
        torch.testing.assert_close(grads[name][finite], true[finite], rtol=1e-12, atol=1e-13)
    return program


def lines(program: Program) -> str:
    """The forward and the backward, without their frames."""
    return program.source[: program.source.index("# What follows")].partition("def step(")[0]


def compared(x, y):
    m = (y == 0).to(x.dtype)
    return (m * x.exp() + (1 - m) * (x * y)).mean()


def of_truths(x, given):
    m = given.to(x.dtype)
    return (m * x.exp() + (1 - m) * x**2).mean()


def by_rows(x, y):
    m = (y > 0).to(x.dtype)[:, None]
    return (m * x.exp() + (1 - m) * x**2).sum()


def three(x):
    low, middle, high = (x < -1).to(x.dtype), (x.abs() <= 1).to(x.dtype), (x > 1).to(x.dtype)
    return low * (-x - 0.5) + middle * x**2 / 2 + high * (x - 0.5)


def what_is_left(x):
    low, high = (x <= -1.5).to(x.dtype), (x >= 1.5).to(x.dtype)
    return (1 - low - high) * (x + 1.5) ** 2 / 6 + high * x


def two_by_two(x, z):
    m, n = (x > 0).to(x.dtype), (z > 0).to(x.dtype)
    return m * n * torch.sin(x) + m * (1 - n) * torch.cos(z) + (1 - m) * torch.cos(x)


def negated(x):
    return x * (x > 0) + (torch.exp(x) - 1) * (~(x > 0))


INPUTS = {
    compared: (rows(), torch.randint(0, 3, (6, 7), generator=torch.Generator().manual_seed(0))),
    of_truths: (rows(), drawn(6, 7) > 0),
    by_rows: (drawn(6, 7), drawn(6)),
    three: (rows(),),
    what_is_left: (rows(),),
    two_by_two: (rows(), drawn(6, 7)),
    negated: (rows(),),
}


@pytest.mark.parametrize("forward", INPUTS, ids=lambda f: f.__name__)
def test_masks_choose(forward: Any) -> None:
    """No mask is made a number, in the forward nor in the backward, and every gradient is made by as few choices as its result."""
    source = lines(checked(forward, *INPUTS[forward]))
    assert ".to(" not in source
    forward_lines, backward_lines = source.split("def backward(")
    kernels = ("torch.where(", "elu", "hardtanh", "clamp(")
    chosen = [sum(part.count(k) for k in kernels) for part in (forward_lines, backward_lines)]
    assert chosen[0] > 0
    assert chosen[1] <= len(INPUTS[forward]) * chosen[0]


def test_the_branch_that_is_not_taken_spoils_nothing() -> None:
    """The logarithm of a negative number times 0 is nan; where the mask is 0 nothing of it is left."""
    x = rows()
    program = checked(lambda x: (x > 0).to(x.dtype) * torch.log(x) + (1 - (x > 0).to(x.dtype)) * torch.exp(x), x)
    out, saved = program.forward(x)
    assert out.isfinite().all()
    assert program.backward(saved)["x"].isfinite().all()


def test_weights_that_are_no_truths_stay() -> None:
    x, w = drawn(6, 7), torch.rand(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert "where" not in lines(checked(lambda x, w: (w * x.exp() + (1 - w) * x**2).sum(), x, w))


def test_a_product_with_a_mask_that_is_read_elsewhere_stays() -> None:
    def forward(x, y):
        m = (x > y).to(x.dtype)
        k = m * x
        return (k + (1 - m) * y).sum() + (k * k).sum()

    assert "where" not in lines(checked(forward, rows(), drawn(6, 7)))


def test_choices_by_one_condition_are_one() -> None:
    """Also where one side is a slope of what another tensor is chosen for, as in Huber's loss with a square beside its mask."""

    def forward(x, y):
        r = x - y
        m = (r.abs() <= 1).to(x.dtype)
        return (m * 0.5 * r**2 + (1 - m) * (r.abs() - 0.5)).mean()

    source = lines(checked(forward, rows(), drawn(6, 7)))
    assert "where" not in source
    assert source.count("clamp") == source.count("r_clamp") + 1


def test_what_a_mask_left_is_not_masked_again() -> None:
    """Bardes et al. (2022): the square of a covariance without its diagonal passes back what has none either."""

    def covariance(x):
        u = x - x.mean(0)
        off = (u.T @ u) * (1 - torch.eye(x.shape[1], dtype=x.dtype))
        return (off**2).sum()

    program = checked(covariance, drawn(6, 7))
    assert program.source.count("fill_diagonal_(0)") == 1


def test_two_values_of_one_tensor_are_two_masks() -> None:
    """What both passes choose by is compared once and kept: each comparison under a name of its own."""

    def forward(x, y):
        y = y % 3
        p = x * torch.where(y == 1, x.cos(), 0)
        return (p * torch.where(y == 2, x.sin(), 0) + torch.where(y == 2, x.sin(), p)).sum()

    source = checked(forward, drawn(6), torch.arange(6)).source
    assert source.count(" == 1\n") == source.count(" == 2\n") == 1


def test_what_is_chosen_or_zero_names_what_its_mask_leaves_of_a_product() -> None:
    """Of exp(x) under a mask the slope is itself, and so it is in a product with what needs no mask of its own."""

    def forward(x, y, w):
        return (torch.where(y < 0, torch.exp(x * w), 0).sum(1) ** 2).sum()

    source = checked(forward, drawn(6, 7), rows(), torch.tensor(0.3, dtype=torch.float64)).source
    text = source[source.index("def forward") : source.index("def step")]
    assert text.count("where(") == text.count("exp()") == 1


def test_a_mask_stays_beside_what_may_be_no_number() -> None:
    """Of log(y) nothing is left where the mask is zero, whatever it is there."""

    def forward(x, y, w):
        return (torch.where(y > 0, torch.exp(x * w), 0) * torch.log(y)).sum()

    x, y, w = drawn(6, 7), rows(), torch.tensor(0.3, dtype=torch.float64)
    program = codegen.generate(forward, x, y, w)
    assert program.writer is not None
    assert all(r.code.simplified for r in program.writer.regions.values() if r.code.backward)
    grads = program.backward(program.forward(x, y, w)[1])
    leaves = [t.clone().requires_grad_() for t in (x, w)]
    true = torch.autograd.grad(forward(leaves[0], y, leaves[1]), leaves)
    torch.testing.assert_close([grads["x"], grads["w"]], [*true])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_large_under_a_mask_takes_no_digits_of_what_is_not(dtype: torch.dtype) -> None:
    """`s - 1e10 (1 - m)` is s where the mask holds, to the last bit, and not s + 1e10 - 1e10."""

    def forward(x, v):
        m = torch.tril(torch.ones(x.shape[0], x.shape[0], dtype=x.dtype))
        return torch.softmax(x * m - 1e10 * (1 - m), -1) @ v

    x, v = drawn(6, 6).to(dtype), drawn(6, 3).to(dtype)
    program = codegen.generate(forward, x, v)
    leaves = [t.clone().requires_grad_() for t in (x, v)]
    out = forward(*leaves)
    torch.testing.assert_close(program.forward(x, v)[0], out.detach())
    own = program.backward(program.forward(x, v)[1], torch.ones_like(out) * v)
    torch.testing.assert_close([own["x"], own["v"]], [*torch.autograd.grad(out, leaves, torch.ones_like(out) * v)])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_logarithm_of_a_choice_does_not_overflow(scale: float) -> None:
    """Whichever of several shares is chosen: log(p if m else q) is log(p) if m else log(q)."""

    def forward(x, y):
        p, q = torch.softmax(x, 1), torch.softmax(y, 1)
        return torch.log(torch.where(x[:, :1] > y[:, :1], p, q)).mean()

    x, y = scale * drawn(5, 4), scale * drawn(6, 4)[1:]
    out, grads = codegen.generate(forward, x, y).value_and_grad(x, y)
    leaves = [t.clone().requires_grad_() for t in (x, y)]
    true = torch.where(leaves[0][:, :1] > leaves[1][:, :1], leaves[0].log_softmax(1), leaves[1].log_softmax(1)).mean()
    torch.testing.assert_close(out, true.detach())
    torch.testing.assert_close([grads["x"], grads["y"]], [*torch.autograd.grad(true, leaves)])


def test_constants_of_another_precision_that_hold_theirs_are_ones_and_numbers() -> None:
    """`torch.eye(n)` is of the default dtype, whatever the logits are; so is a choice between numbers, unless it rounds them."""

    def forward(x, y, a, b):
        p = torch.softmax(x, 1)
        weight = torch.where(y == 1, a, b)
        return -(weight[:, None] * torch.eye(3)[y] * torch.log(p)).sum()

    x, y = drawn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    for a, b, tolerance in ((0.25, 0.75, 1e-12), (0.1, 0.9, 1e-6)):
        program = codegen.generate(lambda x, y, a=a, b=b: forward(x, y, a, b), x, y)
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf, y, a, b), leaf)
        torch.testing.assert_close(program.value_and_grad(x, y)[1]["x"], true, rtol=tolerance, atol=1e-13)
        assert a != 0.25 or all(t.isfinite().all() for t in program.value_and_grad(1e3 * x, y)[1].values())


def test_a_mask_of_another_precision_that_is_a_tensor_is_converted() -> None:
    """Its numbers are what they are in any, but a product of matrices takes one precision."""
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 0])

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        m = torch.where(y[:, None] == y, 1 - torch.eye(len(y)), 0.0)
        k = torch.where(y[:, None] == y, 0.5, 0.25)
        products = ((m[:, :, None] * x[None]).sum(1) ** 2).mean() + ((k[:, :, None] * x[None]).sum(1) ** 2).mean()
        return products + ((x @ x.T) * m.to(x.dtype)).sum() + ((x @ x.T) * k).sum()

    assert codegen.check(codegen.generate(forward, x, y), x, y).ok
