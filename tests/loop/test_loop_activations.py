"""Activations are computed from what there is already, where that is cheaper than torch's kernels for them."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from codegen.loop.activations import elu_by_exp, silu_by_sigmoid, softplus_by_sigmoid, tanh_of_softplus
from codegen.loop.graph import Node, Step, call
from codegen.loop.rules import Match, Rule, apply
from tests.loop.networks import Network, compared

FUNCTIONS = {
    "mish": ("F.mish({})", ["div_("], ["mish(", "aten.mish", "softplus("]),
    "mish written out": ("({0}) * torch.tanh(F.softplus({0}))", ["div_("], ["softplus("]),
    "softplus": ("F.softplus({})", ["clamp_min", "log1p_("], ["softplus("]),
    "silu": ("F.silu({})", ["torch.lerp("], ["silu("]),
    "elu": ("F.elu({})", [".exp_()", "True, h"], ["elu.default", "False"]),
    "celu": ("F.celu({}, 1.7)", [".exp_()", "True, h"], ["elu.default", "False"]),
    "selu": ("F.selu({})", ["elu(h_add", "True, h"], ["elu.default", "exp_()"]),
}
"""A function, and what its loop has and has not."""


def network(text: str, rows: int, dtype: torch.dtype, width: int = 128) -> Network:
    """Two layers, with a function between them."""
    g = Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=g, dtype=dtype)

    params = {"w": randn(10, width), "b": randn(width), "u": randn(width, 6) / width**0.5}
    body = f"def network(x, y, w, b, u):\n    h = {text.format('x @ w + b')}\n    return F.cross_entropy(h @ u, y)\n"
    return Network(
        body, params, (randn(max(rows, 300), 10), torch.randint(0, 6, (max(rows, 300),), generator=g)), rows, 0.0
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_of_a_large_batch_is_made_of_cheap_calls(name: str) -> None:
    text, has, has_not = FUNCTIONS[name]
    given = network(text, 512, torch.float32)
    program = codegen.generate(given.forward(), *[d[:512] for d in given.data], *given.params.values())
    trainer = program.trainer(given.params, 512)
    trainer.run(given.data, steps=1)
    steps = trainer.source[trainer.source.index("while done < steps") :]
    assert all(part in steps for part in has), steps
    assert not any(part in steps for part in has_not), steps


@pytest.mark.parametrize("name", FUNCTIONS)
def test_steps_are_those_of_the_closed_backward(name: str) -> None:
    assert compared(network(FUNCTIONS[name][0], 512, torch.float64, width=64), steps=3) == "the same"


def softplus(z: Tensor) -> Tensor:
    """Torch's own is its argument above 20."""
    return torch.logaddexp(z, torch.zeros_like(z))


RULES: tuple[tuple[Callable[[Step], Iterator[Match]], str, Callable[[Tensor], Tensor]], ...] = (
    (tanh_of_softplus, "mish", F.mish),
    (softplus_by_sigmoid, "softplus", softplus),
    (silu_by_sigmoid, "silu", F.silu),
    (elu_by_exp, "elu", F.elu),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("find", "op", "function"), RULES, ids=[op for _, op, _ in RULES])
def test_nothing_is_lost_far_from_zero_and_close_to_it(
    find: Callable[[Step], Iterator[Match]], op: str, function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """The calls that a rule puts in place of a function and of its backward, in the dtype itself, where they could overflow or cancel."""
    tiny = torch.logspace(-30, 2.5, 500, dtype=torch.float64)
    z = torch.cat([-tiny.flip(0), torch.zeros(1, dtype=torch.float64), tiny])
    near = torch.linspace(-3, 3, len(z), dtype=torch.float64)
    point = Node("input", (), {}, tuple(z.shape), dtype, near)
    g = Node("input", (), {}, tuple(z.shape), dtype, torch.ones_like(near))
    value = call(op, point, shape=point.shape, dtype=dtype)
    results = {"value": value}
    if op in ("softplus", "silu"):
        extra = (1, 20) if op == "softplus" else ()
        results["slope"] = call(f"{op}_backward", g, point, *extra, shape=point.shape, dtype=dtype)
    step = Step({"z": point, "g": g}, (), dict(results), [point, g, *results.values()])
    assert apply(step, (Rule(op, op, find, always=True),)).used
    assert not any(n.op.startswith(op) for n in step.order)
    known = {point: z.to(dtype), g: torch.ones_like(z, dtype=dtype)}
    for n in step.order:
        if n not in known:
            args = [known[a] if isinstance(a, Node) else a for a in n.args]
            known[n] = n.constant if n.constant is not None else getattr(torch.ops.aten, n.op)(*args)
    exact = known[point].double().requires_grad_()
    true = function(exact)
    (slope,) = torch.autograd.grad(true.sum(), exact)
    for key, expected in (("value", true.detach()), ("slope", slope)):
        if key in step.results:
            difference = (known[step.results[key]].double() - expected).abs()
            least = 1e-30 if op == "softplus" else 1.0  # softplus is a scale that is divided by
            off = difference / (least + expected.abs())
            assert float(off.max()) <= 4 * torch.finfo(dtype).eps, (key, exact[off.argmax()])
