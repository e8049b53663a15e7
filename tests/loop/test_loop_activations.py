"""Activations are computed from what there is already, where that is cheaper than torch's kernels for them."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from codegen.loop.activations import elu_by_exp, silu_by_sigmoid, softplus_by_sigmoid, tanh_of_softplus
from codegen.loop.choices import by_selection
from codegen.loop.graph import Node, Sized, Step, call, constant, mapped
from codegen.loop.kernels import RULES as RULES_OF_LOOPS
from codegen.loop.own import evaluated
from codegen.loop.rules import Match, Rule, apply
from tests.loop.networks import Network, compared

FUNCTIONS = {
    "mish": ("F.mish({})", ["div_("], ["mish(", "aten.mish", "softplus("]),
    "mish written out": ("({0}) * torch.tanh(F.softplus({0}))", ["div_("], ["softplus("]),
    "softplus": ("F.softplus({})", ["clamp_min", "log1p_("], ["softplus("]),
    "silu": ("F.silu({})", ["torch.lerp("], ["silu("]),
    "elu": ("F.elu({})", [".exp_()", "True, h"], ["elu.default", "False"]),
    "celu": ("F.celu({}, 1.7)", [".exp_()", "True, h"], ["elu.default", "False"]),
    "leaky_relu": ("F.leaky_relu({})", ["leaky_relu(", "grad_input="], ["aten"]),
    "hardswish": ("F.hardswish({})", ["hardswish(h_add", "hardswish_backward("], ["where", "threshold", "torch.le"]),
    "hardswish written out": (
        "({0}) * F.relu6(({0}) + 3) / 6",
        ["hardswish(h_add", "hardswish_backward("],
        ["where", "hardtanh"],
    ),
    "between": (
        "({0}) * F.hardsigmoid({0})",
        ["hardswish(h_add", "hardswish_backward("],
        ["where", "bitwise", "hardtanh"],
    ),
    "pieces": (
        "torch.where(({0}) > 1, ({0}) ** 2, torch.where(({0}) <= -1, 0.5, ({0}) * 3))",
        ["threshold_backward("],
        ["where("],
    ),
    "a logarithm where there is one": (
        "torch.where(({0}) > 0, torch.log({0}), ({0}) * 0.1)",
        ["threshold_backward(", "hardtanh_backward("],
        ["where("],
    ),
    "a mask of two values": (
        "torch.where(({0}) < torch.sin({0}), ({0}) * 2, torch.cos({0}))",
        ["torch.lt(", "hardtanh_backward("],
        ["where("],
    ),
    "a gate": (
        "torch.sigmoid({0}) * torch.relu(x[:, :1] * {0}) + (1 - torch.sigmoid({0})) * torch.tanh({0})",
        ["torch.lerp("],
        ["addcmul"],
    ),
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


def test_a_mixture_is_one_call_and_the_rest_of_a_product_a_difference() -> None:
    names = ("s", "a", "b", "g")
    inputs = {k: Node("input", (), {}, (4, 300), torch.float32, torch.rand(4, 3).double(), k) for k in names}
    s, a, b, g = inputs.values()

    def made(op: str, *args: object) -> Node:
        return call(op, *args, shape=s.shape, dtype=s.dtype)

    rest, share = made("rsub", s, 1), made("mul", g, s)
    first, second, back = made("mul", a, rest), made("mul", s, b), made("mul", rest, g)
    mixed = made("add", second, first)
    order = [*inputs.values(), rest, share, first, second, back, mixed]
    step = Step(inputs, (), {"mixed": mixed, "share": share, "back": back}, order)
    told = apply(step, tuple(r for r in RULES_OF_LOOPS if r.name in ("mixture", "rest of a product")))
    assert told.used == ["mixture", "rest of a product"]
    assert [n.op for n in step.order if n.op != "input"] == ["mul", "sub", "lerp"]
    assert torch.allclose(step.results["mixed"].value, mixed.value, rtol=1e-14)
    assert torch.allclose(step.results["back"].value, back.value, rtol=1e-13)


def test_what_is_not_chosen_does_not_matter_and_no_number_is_not_hidden() -> None:
    z = torch.tensor([-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, math.inf, math.nan], dtype=torch.float64)
    point = Node("input", (), {}, (8,), torch.float64, torch.linspace(-2, 2, 8).double(), "z")
    other = Node("input", (), {}, (8,), torch.float64, torch.full((8,), math.inf), "other")
    zero = constant(torch.tensor(0.0), torch.tensor(0.0, dtype=torch.float64))
    for comparison in ("lt", "le", "gt", "ge", "eq", "ne"):
        mask = call(comparison, point, 1.0, shape=(8,), dtype=torch.bool)
        for given in ((point, zero), (zero, point), (point, other), (other, point)):
            n = call("where", mask, *given, shape=(8,), dtype=torch.float64)
            step = Step({"z": point, "other": other}, (), {"n": n}, [point, other, zero, mask, n])
            (match,) = by_selection(step)
            known = {point: z, other: torch.full((8,), math.inf, dtype=torch.float64), zero: zero.value}
            for made in match.nodes:
                args = [known.get(a, a.value) if isinstance(a, Node) else a for a in made.args]
                known[made] = evaluated(made, args, made.kwargs)
            true = torch.where(getattr(torch, comparison)(z, 1.0), known[given[0]], known[given[1]])
            finite = z.abs() < math.inf
            assert torch.equal(known[match.pairs[0][1]][finite], true[finite]), (comparison, given)
            if point is given[1]:  # where nothing holds of what is no number
                assert bool(known[match.pairs[0][1]][-1].isnan()) == bool(true[-1].isnan())


def test_numbers_that_depend_on_the_batch_are_chosen_as_they_are_in_the_loop() -> None:
    numbers = [
        constant(torch.tensor(full, dtype=torch.float32), torch.tensor(point, dtype=torch.float64))
        for full, point in ((0.0, 0.0), (-0.02, -0.2), (0.3, 0.3))
    ]
    z = Node("input", (), {}, (8,), torch.float32, torch.linspace(-2, 2, 8).double(), "z")
    for a, b in itertools.permutations(numbers, 2):
        mask = call("ge", z, 1.0, shape=(8,), dtype=torch.bool)
        n = call("where", mask, a, b, shape=(8,), dtype=torch.float32)
        step = Step({"z": z}, (), {"n": n}, [z, *numbers, mask, n])
        (match,) = by_selection(step)
        known = {z: z.value}
        for made in match.nodes:
            given, options = mapped(
                (made.args, list(made.kwargs.items())), lambda x: x.full if isinstance(x, Sized) else x
            )
            args = [known.get(x, x.constant) if isinstance(x, Node) else x for x in given]
            known[made] = made.constant if made.constant is not None else evaluated(made, args, dict(options))
        new = match.pairs[0][1]
        assert torch.allclose(new.value, n.value, rtol=1e-12)
        assert torch.allclose(
            known[new].double(), torch.where(z.value >= 1, float(a.constant), float(b.constant)), rtol=1e-6
        )
