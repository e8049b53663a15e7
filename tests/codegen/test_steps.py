"""Steps mode where the results themselves are read on, and where their cotangents come from."""

import pytest
import torch
from torch import Tensor

from codegen import generate
from tests.codegen.compare import assert_matches


def read_on(x: Tensor, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x * x
    rows = y[i]
    rest = y[1:]
    return y, rows.exp(), rest.sin()


def gathered(x: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    y = x * x
    rows = y[i]
    return y, rows


def twice(x: Tensor, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.exp()
    return y, y[i] * 2, y


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", [read_on, gathered])
def test_a_result_that_is_read_on(forward: object, mode: str) -> None:
    inputs = (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 2]))
    assert_matches(generate(forward, *inputs, mode=mode), forward, inputs)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_one_result_returned_twice(mode: str) -> None:
    x, i = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 2])
    program = generate(twice, x, i, mode=mode)
    out, saved = program.forward(x, i)
    given = [torch.randn_like(o) for o in out]
    own = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(twice(own, i), [own], given)
    torch.testing.assert_close(program.backward(saved, given)["x"], expected)


def test_what_the_caller_gave_is_left_as_it_was() -> None:
    inputs = (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 2]))
    program = generate(read_on, *inputs, mode="steps")
    out, saved = program.forward(*inputs)
    given = [torch.randn_like(o) for o in out]
    before = [g.clone() for g in given]
    program.backward(saved, given)
    for g, b in zip(given, before, strict=True):
        assert torch.equal(g, b)


def test_cotangents_left_out_are_zero_and_by_default_one() -> None:
    inputs = (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 2]))
    program = generate(twice, *inputs, mode="steps")
    out, saved = program.forward(*inputs)
    ones = [torch.ones_like(o) for o in out]
    assert torch.equal(program.backward(saved)["x"], program.backward(saved, ones)["x"])
    last = program.backward(saved, (None, None, ones[2]))["x"]
    torch.testing.assert_close(last, inputs[0].exp())


def leaky(x: Tensor, w: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(x @ w, 0.3)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_a_choice_between_numbers_keeps_the_precision_of_its_tensors(mode: str) -> None:
    inputs = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    program = generate(leaky, *inputs, mode=mode)
    assert_matches(program, leaky, inputs)
    assert ("0.3 *" if mode == "steps" else "leaky_relu_backward(grad_out, out, 0.3, False)") in program.source


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_relu_passes_nan_on_as_torch_does(mode: str) -> None:
    x = torch.tensor([1.0, 0.0, -1.0, torch.nan], dtype=torch.float64)
    assert_matches(generate(torch.relu, x, mode=mode), torch.relu, (x,))


def in_parts(x: Tensor, w: Tensor) -> Tensor:
    n, d = x.shape
    parts = x.view(n, 4, d // 4).transpose(0, 1).sin()
    return (parts.transpose(0, 1).reshape(n, d) @ w).square().sum()


def most_of_it(x: Tensor, w: Tensor) -> Tensor:
    k = x.shape[1] // 3
    return (x[:, : 3 * k].view(-1, 3, k).sin() * w[:k]).sum()


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize(("forward", "widths"), [(in_parts, (8, 12)), (most_of_it, (11, 7))])
def test_a_size_divided_and_multiplied_is_read_as_a_view(forward: object, widths: tuple[int, int], mode: str) -> None:
    """4 (d // 4) places of d are a slice in four rows; what closed forms pass back computes no position, where none is left."""
    sizes = [(torch.randn(3, d, dtype=torch.float64), torch.randn(d, dtype=torch.float64)) for d in widths]
    program = generate(forward, *sizes[0], mode=mode)
    assert "arange" not in program.source or forward is most_of_it or mode == "steps"
    for inputs in sizes:
        assert_matches(program, forward, inputs)
