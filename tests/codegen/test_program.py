"""`generate` and its Program: names that emitted files use themselves, and inputs that do not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor

import engine
from codegen import generate
from engine.errors import InputError, TraceError
from tests.codegen.compare import assert_matches


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def own_functions(saved, grad_out, forward, backward):
    len = saved @ grad_out
    range = len.tanh() * forward
    n0 = range + backward
    return n0.sum()


def own_step(lr, out, grads):
    step = lr * out
    return ((step - grads) ** 2).mean()


def own_classes(Function, Module, Tensor, Saved, NamedTuple):
    return (Function * Module + Tensor * Saved - NamedTuple).exp().sum()


def own_letters(i, j, k):
    l = i * j + k
    p = l.sum(0)
    return (p * l).mean()


def builtins(x, sum, exp, print):
    return (x * sum).exp().sum() + (exp * print).sum()


def other_alphabets(größe, λ):
    ñ = größe * λ
    return (ñ**2).mean()


def underscores(_x, __y, lambda_, None_):
    return (lambda_ * None_ + __y).sin().sum() * _x.sum()


NAMES = [own_functions, own_step, own_classes, own_letters, builtins, other_alphabets, underscores]


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", NAMES, ids=lambda f: f.__name__)
def test_names_that_emitted_files_use_themselves(forward, mode: str) -> None:
    inputs = tuple(randn(3, 3) for _ in range(forward.__code__.co_argcount))
    program = generate(forward, *inputs, mode=mode)
    assert_matches(program, forward, inputs)
    torch.testing.assert_close(program.function(*inputs), forward(*inputs))


@pytest.mark.parametrize("forward", NAMES, ids=lambda f: f.__name__)
def test_a_step_is_a_step(forward) -> None:
    inputs = [randn(3, 3) for _ in range(forward.__code__.co_argcount)]
    leaves = [t.clone().requires_grad_() for t in inputs]
    loss = forward(*leaves)
    loss.backward()
    assert generate(forward, *inputs).module.step(*inputs, 0.1) == loss
    for t, leaf in zip(inputs, leaves, strict=True):
        torch.testing.assert_close(t, (leaf - 0.1 * leaf.grad).detach())


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_inputs_whose_sizes_disagree(mode: str) -> None:
    def squared(x, w, y):
        return ((x @ w - y) ** 2).mean()

    program = generate(squared, randn(8, 3), randn(3, 2), randn(8, 2), mode=mode)
    with pytest.raises(InputError, match="dimension 0 of y is 4 and dimension 0 of x is 5; .* equal"):
        program.forward(randn(5, 3), randn(3, 2), randn(4, 2))
    with pytest.raises(InputError, match="dimension 0 of w is 4 and dimension 1 of x is 3; .* equal"):
        program.forward(randn(5, 3), randn(4, 2), randn(5, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: generate("mlp", x), "'mlp' is a str; a forward is a function"),
        (lambda x, w: generate(torch.nn.Linear, x), "Linear is a class; give an instance"),
        (lambda x, w: generate(torch.sin, x.numpy()), "input 0 is a ndarray of numpy; give a tensor"),
        (lambda x, w: generate(torch.sin, [1.0, 2.0]), "none of the inputs (list) is a tensor"),
        (
            lambda x, w: generate(torch.matmul, x, w).forward(x.float(), w),
            "x0 is float32 and x1 is float64; in the trace they had one dtype",
        ),
        (
            lambda x, w: (p := generate(torch.matmul, x, w)).backward(p.forward(x, w)[1], torch.ones(3, 3, 3)),
            "grad_out has shape (3, 3, 3), the result has (n0, n2)",
        ),
    ],
)
def test_what_is_no_forward_or_does_not_fit_it(call: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        call(randn(4, 3), randn(3, 2))
    assert message in str(error.value)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_a_cotangent_that_would_broadcast_is_refused(mode: str) -> None:
    """As autograd refuses it: a gradient of it would be that of something else."""
    x = randn(4, 3)
    program = generate(lambda x: x.exp().sum(), x, mode=mode)
    with pytest.raises(InputError, match=r"grad_out has shape \(4, 3\), the result has \(\)"):
        program.backward(program.forward(x)[1], torch.ones_like(x))
    program = generate(lambda x: (x.exp(), x.sum(0)), x, mode=mode)
    with pytest.raises(InputError, match=r"grad_out\[1\] has shape \(4, 3\), result 1 has \(n1\)"):
        program.backward(program.forward(x)[1], (torch.ones_like(x), torch.ones_like(x)))


def test_the_name_of_one_input_is_enough() -> None:
    x, w = randn(4, 3), randn(3, 2)
    assert set(generate(lambda first, second: (first @ second).sum(), x, w, wrt="second").value_and_grad(x, w)[1]) == {
        "second"
    }


def test_what_is_no_input_is_said() -> None:
    """Masks in the place of places, arrays, names of nothing: in an error of the project's, with what to do."""
    x, i = torch.randn(4, 3), torch.tensor([0, 2, 1])
    program = generate(lambda x, i: x[i].square().sum(), x, i)
    with pytest.raises(InputError, match=r"i is torch.bool, the trace had torch.int64"):
        program.forward(x, torch.tensor([True, False, True, True]))
    with pytest.raises(InputError, match=r"was given 1 beside ndarray of numpy: give torch.as_tensor"):
        program.forward(x.numpy(), i)
    with pytest.raises(InputError, match="'nothing' has no cotangent; those that have one are .*x"):
        program.derivation.text("nothing")
    for wrt in ([], 3):
        with pytest.raises(InputError, match="names no input; give names"):
            generate(lambda x: x.sum(), x, wrt=wrt)
    with pytest.raises(TraceError, match="3 is a int; a forward is a function or an nn.Module"):
        engine.trace(3, x)
