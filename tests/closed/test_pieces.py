"""Functions of one number by choices: as the pieces that they are, with the kernels that torch has for them."""

from __future__ import annotations

import pytest
import torch

import codegen

KERNELS = {
    "softshrink": lambda x: torch.sign(x) * torch.relu(x.abs() - 0.5),
    "softshrink by cases": lambda x: torch.where(x > 0.5, x - 0.5, torch.where(x < -0.5, x + 0.5, 0.0)),
    "hardshrink": lambda x: torch.where(x.abs() > 0.5, x, torch.zeros_like(x)),
    "hardtanh": lambda x: torch.nn.functional.hardtanh(x, -0.5, 3.0),
    "hardtanh as relu6": lambda x: torch.nn.functional.relu6(x, inplace=False),
    "hardtanh by cases": lambda x: torch.where(x <= -1, -1.0, torch.where(x >= 3, 3.0, x)),
    "hardtanh by two": lambda x: torch.nn.functional.hardtanh(torch.relu(x), -4.0, 4.0),
    "elu by cases": lambda x: 1.5 * torch.where(x > 0, x, 2 * (torch.exp(x / 2) - 1)),
}


def at_once(name: str, x: torch.Tensor) -> str:
    """The emitted file of one of them, after it gave what autograd gives."""
    forward = KERNELS[name]
    leaf = x.clone().requires_grad_()
    grad = torch.linspace(-1, 2, len(x), dtype=x.dtype)
    (true,) = torch.autograd.grad(forward(leaf), leaf, grad)
    program = codegen.generate(forward, x)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, forward(x), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(program.backward(saved, grad)["x"], true, rtol=1e-14, atol=1e-15)
    return program.source


@pytest.mark.parametrize("name", KERNELS)
def test_pieces_are_kernels(name: str) -> None:
    """At the places between two pieces too, as autograd does."""
    x = torch.tensor([-40.0, -3.0, -1.0, -0.5, -0.2, 0.0, 0.3, 0.5, 2.0, 3.0, 4.0, 700.0], dtype=torch.float64)
    source = at_once(name, x)
    kernel = name.split(maxsplit=1)[0]
    assert kernel in source[: source.index("def backward(")]
    assert f"{'softshrink' if kernel == 'hardshrink' else kernel}_backward" in source
    assert "torch.where" not in source


def test_a_kernel_with_another_slope_at_its_kinks_is_for_the_forward_only() -> None:
    x = torch.tensor([-4.0, -3.0, 0.5, 3.0, 4.0], dtype=torch.float64)
    forward = lambda x: x * torch.clamp(x + 3, 0, 6) / 6  # noqa: E731
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(forward(leaf).sum(), leaf)
    program = codegen.generate(forward, x)
    assert "functional.hardswish(x)" in program.source
    torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], true)


def celu(x):
    return torch.clamp(x, min=0) + torch.clamp(2 * (torch.exp(x / 2) - 1), max=0)


def test_where_two_clamps_pass_at_once_they_pass_as_autograd_says() -> None:
    """Both do at 0, so that autograd has twice the slope there."""
    x = torch.tensor([-3.0, -1e-9, 0.0, 1e-9, 800.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(celu(leaf).sum(), leaf)
    program = codegen.generate(celu, x)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, torch.nn.functional.celu(x, 2.0))
    finite = true.isfinite()
    torch.testing.assert_close(program.backward(saved)["x"][finite], true[finite])


def test_a_kink_of_neither_side_stays() -> None:
    """Half of both slopes, and none of them: no piece has that."""
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    for forward in (lambda x: torch.maximum(x, -2 * x), lambda x: torch.relu(x) - 0.25 * torch.relu(-x)):
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf).sum(), leaf)
        program = codegen.generate(forward, x)
        assert torch.equal(program.backward(program.forward(x)[1])["x"], true)


def test_choices_beside_a_largest_entry_are_no_functions_of_one_number() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    program = codegen.generate(lambda x: torch.where(x > 0.5, x - x.amax(1, keepdim=True), x.abs()).sum(), x)
    assert codegen.check(program, x).ok
    program = codegen.generate(lambda x: (x.amax(1) * torch.where(x.amax(1) > 0.5, 1.0, 2.0)).sum(), x)
    assert codegen.check(program, x).ok


def test_what_is_compared_as_it_was_rounded_is_not_written_out() -> None:
    """`x / 0.1` is not `10 x`: the sign of 0.3 / 0.1 - 3 is that of what the forward computes."""
    x = torch.tensor([0.1, 0.3, 0.7, 1.1], dtype=torch.float64)
    forward = lambda x: torch.relu(x / 0.1 - 3) * torch.sign(x / 0.1 - 3)  # noqa: E731
    program = codegen.generate(forward, x)
    assert torch.equal(program.forward(x)[0], forward(x))


def test_within_bounds_is_where_the_clamp_is_the_number() -> None:
    x = torch.tensor([-2.0, -1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    program = codegen.generate(lambda x: x.clamp(-1, 1) * 3, x)
    assert torch.equal(program.backward(program.forward(x)[1])["x"], torch.tensor([0.0, 3, 3, 3, 0]).double())
    assert "x == " in program.source


def test_what_is_constant_beyond_bounds_is_made_of_a_clamp() -> None:
    """Its slope is 0 at the bounds, so that it needs no choice; not so that of e^2, or of what is another number beyond."""
    e = torch.randn(50, dtype=torch.float64) * 3
    for beyond, power, choices in ((16.0, 4, 0), (4.0, 2, 1), (15.0, 4, 2)):
        inner = (lambda e: e**2 * (8 - e**2)) if power == 4 else (lambda e: e**2)
        program = codegen.generate(lambda e, b=beyond, f=inner: torch.where(e.abs() <= 2, f(e), b).sum(), e)
        assert program.source[: program.source.index("def step(")].count("torch.where") == choices
        assert codegen.check(program, e).ok


def odds(c):
    return ((1 - c.exp()).log() - c).sum()


def test_a_forward_that_is_finite_for_negative_numbers_alone_is_closed() -> None:
    """`e/u + 1` is `1/u` for u = 1 - e; the gates draw other numbers until the forward is finite."""
    c = -torch.rand(9, dtype=torch.float64) - 0.1
    program = codegen.generate(odds, c)
    assert program.writer is not None
    assert [r.code.refused for r in program.writer.regions.values()] == [()]
    assert "_rsub" in program.source.split("def backward(")[1]
    assert "_exp" not in program.source.split("def backward(")[1]
    assert codegen.check(program, c).ok


def test_hardsigmoid_is_a_kernel_of_the_forward_alone() -> None:
    """Its slope is 1/6 to the last digit, which that of torch's own kernel is not."""
    x = torch.tensor([-4.0, -3.0, -1.0, 0.0, 0.7, 3.0, 5.0], dtype=torch.float64)
    program = codegen.generate(torch.nn.Hardsigmoid(), x)
    out, saved = program.forward(x)
    assert "functional.hardsigmoid(" in program.source
    torch.testing.assert_close(out, ((x + 3) / 6).clamp(0, 1), rtol=1e-15, atol=1e-16)
    sixth = torch.tensor([0.0, 0, 1, 1, 1, 0, 0]).double() / 6
    assert torch.equal(program.backward(saved)["input"], sixth)


CLAMPS = {
    "one after the other": lambda x: x.clamp(max=1).clamp(min=-1),
    "of relu, scaled": lambda x: torch.clamp(torch.relu(x + 1), max=2) / 2,
    "three of them": lambda x: 3 * x.clamp(max=2).clamp(min=-1).clamp(max=1),
    "scaled by cases": lambda x: torch.where(x < -1, -2.0, torch.where(x > 1, 4.0, 3 * x + 1)),
    "the larger of a number and the smaller of two": lambda x: x.minimum(torch.ones_like(x)).maximum(
        -torch.ones_like(x)
    ),
    "the smaller of a number and the larger of two": lambda x: 2 * x.relu().maximum(x * 0 + 0.5).minimum(x * 0 + 2.0),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_of_clamps_are_one(name: str) -> None:
    """With the slopes that they have together at their bounds."""
    forward = CLAMPS[name]
    x = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(forward(leaf).sum(), leaf)
    program = codegen.generate(forward, x)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, forward(x), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(program.backward(saved)["x"], true, rtol=1e-15, atol=1e-15)
    source = program.source[: program.source.index("# What follows")]
    assert source.count(".clamp(") + source.count(".relu(") + source.count("hardtanh(") == 1
    assert source.count("torch.where(") <= 1


def test_a_choice_between_multiples_is_a_product_with_its_slope() -> None:
    """One comparison gives the pinball loss and what it passes back."""
    x, y = (torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    y[0] = x[0]
    forward = lambda x, y: torch.where(x - y < 0, (x - y) / -10, 0.9 * (x - y)).mean()  # noqa: E731
    program = codegen.generate(forward, x, y)
    assert program.source.count("torch.where(") == 1
    assert codegen.check(program, x, y).ok


def smooth_hinge(x, y):
    z = x * y
    return torch.where(z >= 1, 0.0, torch.where(z <= 0, 0.5 - z, 0.5 * (1 - z) ** 2)).mean()


def smelu(x):
    return torch.where(x >= 1.5, x, torch.where(x <= -1.5, 0.0, (x + 1.5) ** 2 / 6)).sum()


def lifted(x):
    return torch.where(x >= 2, 3 * x - 1.5, torch.where(x <= 0, x + 0.5, (x + 1) ** 2 / 2)).sum()


@pytest.mark.parametrize("forward", [smooth_hinge, smelu, lifted], ids=lambda f: f.__name__)
def test_a_function_whose_slope_is_a_clamp_is_made_of_it(forward) -> None:
    """At the places between its pieces, far beyond them, and for infinities, of which 0 is no multiple."""
    inf = float("inf")
    x = torch.tensor([-inf, -1e9, -3.0, -1.5, -1e-9, 0.0, 0.5, 1.0, 1.5, 2.0, 1e9, inf], dtype=torch.float64)
    inputs = (x, torch.ones_like(x)) if forward is smooth_hinge else (x,)
    program = codegen.generate(forward, *inputs)
    source = program.source[: program.source.index("def step(")]
    assert "torch.where" not in source
    for k in range(len(x)):
        alone = [t[k : k + 1].clone().requires_grad_() for t in inputs]
        out = forward(*alone)
        (true, *_) = torch.autograd.grad(out, alone)
        own, saved = program.forward(*[t.detach() for t in alone])
        torch.testing.assert_close(own, out.detach(), rtol=1e-14, atol=1e-16)
        found = program.backward(saved)["x"]
        assert found.isfinite().all()
        if true.isfinite().all():  # autograd multiplies the square beyond its bounds, which is infinite, by 0
            torch.testing.assert_close(found, true, rtol=1e-14, atol=1e-16)
