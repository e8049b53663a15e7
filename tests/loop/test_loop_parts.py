"""A gradient that is put together from parts goes into those parts of its parameter, without being a tensor."""

import pytest
import torch
from torch import Generator, Tensor

import codegen
from codegen.loop.compiled import changed
from codegen.loop.folds import written
from codegen.loop.graph import Node, constant
from codegen.loop.quick import quick_source
from codegen.program import load
from tests.loop.networks import Network, compared
from tests.loop.test_loop_layernorm import loop_of

SIZES = {"w": (3, 10, 12), "e": (12, 6), "u": (12, 6), "p": (8, 10)}


def network(*lines: str, momentum: float = 0.0) -> Network:
    """A network of these lines, of `x` (rows, 10) and `y`."""
    generator = Generator().manual_seed(0)
    params = {k: torch.randn(s, generator=generator, dtype=torch.float64) / 4 for k, s in SIZES.items()}
    text = "\n    ".join([f"def network(x, y, {', '.join(params)}):", *lines, "return F.cross_entropy(h, y)\n"])
    x = torch.randn(300, 10, generator=generator, dtype=torch.float64)
    return Network(text, params, (x, torch.randint(0, 6, (300,), generator=generator)), 16, momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "lines",
    [
        ("a, b, c = w.unbind()", "h = ((x @ a) * torch.tanh(x @ b) + torch.sin(x @ c)) @ u"),
        ("h = ((x @ w[0]) * torch.tanh(x @ w[1])) @ u",),
        ("h = torch.tanh(x @ w[0]) @ u[:, :5] @ torch.ones(5, 6)",),
        ("h = torch.tanh((x @ p.T) @ p @ w[0]) @ (u + e) + (x @ p[:6].T)",),
        ("h = torch.tanh(x @ w.permute(1, 0, 2)[:, 1]) @ u",),
    ],
)
def test_products_go_into_the_parts(lines: tuple[str, ...], momentum: float) -> None:
    given = network(*lines, momentum=momentum)
    source = loop_of(given).source
    assert "clone()" not in source
    assert not any(n.write for n in loop_of(given).layout.body if isinstance(n, Node))
    assert compared(given) == "the same"


OVERLAPPING = "h = torch.tanh(x @ w[0]) @ u + x[:, :8] @ p[:8, :6] + x[:, :6] @ p[2:, 2:8]"
STRIDED = "h = torch.tanh(x @ w[2, :, :6]) @ u[:6] + torch.sin(x @ w[1, :, 4:]) @ u[4:]"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("line", [OVERLAPPING, STRIDED])
def test_parts_that_overlap_or_are_scattered_are_added_up(line: str, momentum: float) -> None:
    assert compared(network(line, momentum=momentum)) == "the same"


def test_a_gradient_that_is_asked_for_is_put_together_in_one_tensor() -> None:
    """Every part once, in the memory of what was there before."""
    given = network("a, b, c = w.unbind()", "h = ((x @ a) * torch.tanh(x @ b) + torch.sin(x @ c)) @ u")
    inputs = [*[d[: given.batch] for d in given.data], *given.params.values()]
    program = codegen.generate(given.forward(), *inputs)
    names = list(program.graph.inputs)
    source = quick_source(program.module, names, inputs, {n: n for n in names}, list(given.params))
    assert source.count("copy_(") == 3
    assert source.count(".clone()\n") == 1  # of zeros
    run = load(source, "parts").value_and_grad()
    _, saved = program.forward(*inputs)
    expected = program.backward(saved)
    for _ in range(2):
        _, gradients = run(*inputs)
        assert all(torch.allclose(g, expected[name]) for name, g in gradients.items())


def put(base: Node, op: str, value: Tensor, *where: tuple[str, tuple[int, ...]]) -> Node:
    """A tensor after a value was put into a part of it."""
    node = Node("input", (), {}, tuple(value.shape), value.dtype, value)
    return Node(op, (base, node), {}, base.shape, base.dtype, base.value, write=True, path=where)


def test_what_is_put_over_something_is_not_added_to_it() -> None:
    zeros = constant(torch.zeros(6, 2))
    head, middle = ("slice", (0, 0, 4)), ("slice", (0, 3, 6))
    first = put(zeros, "copy", torch.ones(4, 2), head)
    assert [(by, path) for _, by, path in written(first) or ()] == [(1.0, (head,))]
    assert written(put(first, "copy", torch.ones(3, 2), middle)) is None
    assert len(written(put(first, "add", torch.ones(3, 2), middle)) or ()) == 2
    assert written(put(first, "add", torch.ones(2), middle)) is None  # which is added to every row
    assert written(put(first, "mul", torch.ones(3, 2), middle)) is None
    unknown = Node("input", (), {}, (6, 2), zeros.dtype, torch.ones(6, 2))
    assert written(put(unknown, "copy", torch.ones(4, 2), head)) is None
    assert len(written(put(unknown, "add", torch.ones(4, 2), head)) or ()) == 2


def test_a_part_of_a_constant_is_written_while_steps_are_traced_for_a_compiler() -> None:
    zeros = constant(torch.zeros(4, 3, 2))
    value = torch.arange(4.0).view(2, 2)
    node = put(zeros, "copy", value, ("select", (0, 1)), ("slice", (0, 1, 3)))
    expected = torch.zeros(4, 3, 2)
    expected[1, 1:3] = value

    def traced(v: Tensor) -> Tensor:
        return changed(node, [zeros.constant, v], {})

    assert torch.equal(torch.func.functionalize(traced)(value), expected)
