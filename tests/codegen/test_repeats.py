"""What stands more than once in a statement of steps mode is computed once, under a name."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import codegen
from codegen.lowering import tensors as tt
from codegen.lowering.repeats import Repeats


def normalised(x: Tensor, w: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), w).sin().sum()


def test_a_mean_is_taken_once() -> None:
    x, w = torch.randn(5, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    program = codegen.generate(normalised, x, w, mode="steps")
    backward = program.source[program.source.index("def backward") :]
    assert len(re.findall(r"x - x\.mean\(1, keepdim=True\)", backward)) == 1
    assert "x_var_eps = x_centred_squared.mean(1) + 1e-05" in backward
    x.requires_grad_()
    w.requires_grad_()
    true = torch.autograd.grad(normalised(x, w), (x, w))
    found = program.value_and_grad(x.detach(), w.detach())[1]
    torch.testing.assert_close([found["x"], found["w"]], [*true])


def test_names_of_the_forward_are_not_taken() -> None:
    def forward(x: Tensor) -> Tensor:
        x_centred = x * 3
        return (F.layer_norm(x, (x.shape[-1],)) * x_centred).sum()

    x = torch.randn(5, 4, dtype=torch.float64)
    program = codegen.generate(forward, x, mode="steps")
    assert "x_centred_1 = " in program.source
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(forward(leaf), leaf)
    torch.testing.assert_close(program.value_and_grad(x)[1]["x"], true)


def test_what_has_a_name_keeps_it() -> None:
    a, b = tt.name("activations"), tt.name("weights")
    product = tt.binary("*", a, b)
    repeats = Repeats(["activations", "weights"])
    parts, left = repeats.named(tt.binary("+", product, tt.method(product, "sum", 0)), "total")
    assert [(n, tt.text(p)) for n, p in parts] == [("activations_times_weights", "activations * weights")]
    assert tt.text(left) == "activations_times_weights + activations_times_weights.sum(0)"
    parts, left = repeats.named(tt.unary("neg", product), "other")
    assert (parts, tt.text(left)) == ([], "-activations_times_weights")


@pytest.mark.parametrize("text", ["a", "a.view(2, 3)", "2 * n"])
def test_views_and_short_parts_have_no_names(text: str) -> None:
    part = {
        "a": tt.name("a"),
        "a.view(2, 3)": tt.method(tt.name("a"), "view", 2, 3),
        "2 * n": tt.binary("*", tt.number(2), tt.name("n")),
    }[text]
    twice = tt.binary("+", part, tt.unary("neg", part))
    assert Repeats(()).named(twice, "b") == ([], twice)
