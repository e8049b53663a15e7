"""Ops that a user adds with one row: an operator of torch.library, an autograd Function, a Python function; and bad rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

from codegen import check, generate
from codegen.report.page import report_html
from engine import ShapeError, TraceError, define, elementwise, fresh, op, overridable, sigma, trace

# -- one row each -----------------------------------------------------------------------------------------------------


@overridable
def snake(x: Tensor, a: float = 1.0) -> Tensor:
    return x + torch.sin(a * x) ** 2 / a


@elementwise(targets=(snake,))
def snake_row(x: sp.Expr, a: sp.Expr = sp.S.One) -> sp.Expr:
    return x + sp.sin(a * x) ** 2 / a


class Cube(torch.autograd.Function):
    """x^3, with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * x * grads[0]


@elementwise(targets=(Cube,))
def cube_row(x: sp.Expr) -> sp.Expr:
    return x**3


@torch.library.custom_op("symgrad_tests::distances", mutates_args=())
def distances(x: Tensor, y: Tensor) -> Tensor:
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)


@distances.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], y.shape[0])


@op(targets=(distances,))
def distances_row(x: Any, y: Any) -> Any:
    i, j, d = fresh("i"), fresh("j"), fresh("d")
    return define((x.shape[0], y.shape[0]), (i, j), sigma((x[i, d] - y[j, d]) ** 2, (d, x.shape[1])))


@torch.library.custom_op("symgrad_tests::bowl", mutates_args=())
def bowl(x: Tensor) -> Tensor:
    """An operator that no autograd can look into, and that has no derivative registered."""
    return torch.from_numpy(np.sqrt(1 + x.detach().numpy() ** 2) - 1)


@bowl.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@elementwise(targets=(torch.ops.symgrad_tests.bowl,))
def bowl_row(x: sp.Expr) -> sp.Expr:
    return sp.sqrt(1 + x**2) - 1


@overridable
def energy(x: Tensor) -> Tensor:
    """A reduction: what every row keeps of its squares, weighted by the place."""
    return (x.square() * torch.arange(1, x.shape[1] + 1)).sum(1)


@op(targets=(energy,))
def energy_row(x: Any) -> Any:
    i, j = fresh("i"), fresh("j")
    return define((x.shape[0],), (i,), sigma((j + 1) * x[i, j] ** 2, (j, x.shape[1])))


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


FORWARDS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], Callable[..., Tensor]]] = {
    "a python function": (
        lambda x: snake(x * 2, 1.5).sum(),
        (numbers(4),),
        lambda x: (2 * x + torch.sin(3 * x) ** 2 / 1.5).sum(),
    ),
    "an autograd function": (lambda x: Cube.apply(x.tanh()).mean(), (numbers(4, 3),), lambda x: (x.tanh() ** 3).mean()),
    "an operator": (
        lambda x, y: (-distances(x, y)).softmax(1)[:, 0].sum(),
        (numbers(4, 2), numbers(3, 2)),
        lambda x, y: (-((x[:, None] - y[None]) ** 2).sum(-1)).softmax(1)[:, 0].sum(),
    ),
    "an operator without a derivative": (
        lambda x: bowl(x * 3).sum(),
        (numbers(5),),
        lambda x: ((1 + (3 * x) ** 2).sqrt() - 1).sum(),
    ),
    "a reduction": (
        lambda x: energy(x.exp()).log().sum(),
        (numbers(3, 4),),
        lambda x: (x.exp().square() * torch.arange(1, 5)).sum(1).log().sum(),
    ),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_gradients(name: str, mode: str) -> None:
    """Against autograd of the same mathematics in torch's own calls; the emitted file says nothing of the function."""
    forward, inputs, plain = FORWARDS[name]
    program = generate(forward, *inputs, mode=mode)
    leaves = [t.clone().requires_grad_() for t in inputs]
    expected = torch.autograd.grad(plain(*leaves), leaves)
    out, grads = program.value_and_grad(*inputs)
    torch.testing.assert_close(out, plain(*inputs))
    for key, g in zip(program.input_keys, expected, strict=True):
        torch.testing.assert_close(grads[key], g)
    assert program.source.count("import") == program.source.count("import torch") + ("NamedTuple" in program.source) + (
        "from torch import Tensor" in program.source
    )


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_check_and_report(name: str, mode: str) -> None:
    forward, inputs, _ = FORWARDS[name]
    program = generate(forward, *inputs, mode=mode)
    report = check(program, *inputs)
    assert report.ok, report.failures
    assert set(program.input_keys) <= {r.name for r in report.rows}
    page = report_html(program, name, report)
    assert "<math" in page
    assert all(n.name in page for n in program.graph.nodes)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_the_emitted_function_is_differentiable(mode: str) -> None:
    program = generate(lambda x: snake(x).sum(), numbers(4), mode=mode)
    assert torch.autograd.gradcheck(program.function, (numbers(4).requires_grad_(),))


# -- bad rows ---------------------------------------------------------------------------------------------------------


@overridable
def wave(x: Tensor) -> Tensor:
    return torch.sin(x)


@elementwise(targets=(wave,))
def wrong_wave_row(x: sp.Expr) -> sp.Expr:
    return sp.cos(x)


@overridable
def gram(x: Tensor) -> Tensor:
    return x @ x.T


@op(targets=(gram,))
def wrong_gram_row(x: Any) -> Any:
    i, j, k = fresh("i"), fresh("j"), fresh("k")
    return define((x.shape[0], x.shape[0]), (i, j), sigma(x[i, k] * x[i, k], (k, x.shape[1])))


@overridable
def per_row(x: Tensor) -> Tensor:
    return x.sum(1)


@op(targets=(per_row,))
def wrong_shape_row(x: Any) -> Any:
    i, j = fresh("i"), fresh("j")
    return define((x.shape[1],), (j,), sigma(x[i, j], (i, x.shape[0])))


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize(("function", "shape"), [(wave, (4,)), (gram, (4, 2))])
def test_a_wrong_definition_fails_the_check(function: Callable[..., Tensor], shape: tuple[int, ...], mode: str) -> None:
    program = generate(lambda x: function(x).exp().sum(), numbers(*shape), mode=mode)
    report = check(program, numbers(*shape))
    assert not report.ok
    assert any(
        function.__name__ in f and "test_own_ops.py" in f and "the function computes" in f for f in report.failures
    )


def test_a_wrong_shape_is_refused_when_it_is_traced() -> None:
    with pytest.raises(ShapeError, match=r"per_row at .*: the op table says shape \(2,\), torch \(4,\)"):
        trace(per_row, numbers(4, 2))


class Straight(torch.autograd.Function):
    """Rounds, and lets the gradient through: no definition has that derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def test_an_autograd_function_without_a_row_is_refused() -> None:
    with pytest.raises(TraceError, match="'Straight' has a backward of its own, at .*test_own_ops.py"):
        trace(lambda x: Straight.apply(x).sum(), numbers(3))


def test_a_python_function_that_a_trace_does_not_see_is_refused() -> None:
    def hidden(x: Tensor) -> Tensor:
        return x

    with pytest.raises(TraceError, match="engine.overridable"):
        elementwise(targets=(hidden,))(lambda x: x)


def test_functions_are_called_as_ever_outside_of_a_trace() -> None:
    x = numbers(3).requires_grad_()
    (g,) = torch.autograd.grad(Straight.apply(x).sum() + snake(x).sum(), x)
    torch.testing.assert_close(g, 2 + 2 * torch.sin(x) * torch.cos(x))
