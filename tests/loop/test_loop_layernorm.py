"""LayerNorm is found by what it computes, in any spelling; what looks like it is not."""

import pytest
import torch
from torch import Generator, Tensor

import codegen
from codegen.loop.graph import Node
from codegen.loop.make import Loop, inputs_of, make_loop, rows_of
from codegen.loop.plan import Plan
from tests.loop.networks import DEVIATION, VARIANCE, Network, compared

WIDTH = 24
NORM = "F.layer_norm(h, h.shape[-1:], g, b)"


def network(*lines: str, rows: int = 32, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> Network:
    """A layer, what the lines make of its `h` (rows, width), and a layer on top."""
    generator = Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype)

    params = {
        "w": randn(10, width) / 3, "v": randn(width, width) / width**0.5, "u": randn(width, 6) / width**0.5,
        "g": 1 + randn(width) / 3, "b": randn(width) / 3, "g2": 1 + randn(width) / 3, "b2": randn(width) / 3,
    }  # fmt: skip
    body = ["h = x @ w", *lines, "return F.cross_entropy(h @ u, y)\n"]
    text = "\n    ".join([f"def network(x, y, {', '.join(params)}):", *body])
    count = max(300, rows)
    data = (randn(count, 10), torch.randint(0, 6, (count,), generator=generator))
    return Network(text, params, data, rows, 0.0)


def loop_of(given: Network, plan: Plan | None = None) -> Loop:
    """Its loop."""
    program = codegen.generate(given.forward(), *[d[: given.batch] for d in given.data], *given.params.values())
    names = [n for n in inputs_of(program.module) if n not in given.params]
    batch = dict(zip(names, rows_of(given.data), strict=True))
    return make_loop(program.module, batch, given.params, given.batch, plan or Plan(), "network", "network")


def calls(given: Network) -> list[Node]:
    """The calls of its loop."""
    loop = loop_of(given)
    order = loop.layout.blocks.order if loop.layout.blocks is not None else loop.layout.step.order
    return [n for n in order if isinstance(n, Node)]


def kernels(given: Network) -> tuple[int, int]:
    """How many of both kernels."""
    ops = [n.op for n in calls(given)]
    return ops.count("native_layer_norm"), ops.count("native_layer_norm_backward")


@pytest.mark.sampled("text")
@pytest.mark.parametrize(
    "text",
    [
        NORM,
        "F.layer_norm(h, h.shape[-1:])",
        "F.layer_norm(h, h.shape[-1:], g)",
        "F.layer_norm(h, h.shape[-1:], None, b)",
        "F.layer_norm(h, h.shape[-1:], g, b, 0.5)",
        f"{DEVIATION} / ({VARIANCE} + 1e-5).sqrt() * g + b",
        f"g * ({DEVIATION} * ({VARIANCE} + 1e-5).rsqrt()) + b",
        f"{DEVIATION} / (h.var(-1, keepdim=True, unbiased=False) + 1e-5) ** 0.5 * g + b",
        f"{DEVIATION} / ((h * h).mean(-1, keepdim=True) - h.mean(-1, keepdim=True) ** 2 + 1e-5).sqrt()",
        "(h - h.sum(1)[:, None] / 24) / (((h - h.sum(1)[:, None] / 24) ** 2).sum(1)[:, None] / 24 + 1e-5).sqrt()",
        "F.layer_norm(h, h.shape[-1:]) * (1 + g) + b",
        f"F.layer_norm({DEVIATION}, h.shape[-1:], g, b)",
    ],
)
def test_it_is_found_in_any_spelling(text: str) -> None:
    given = network(f"h = torch.tanh({text})")
    assert kernels(given) == (1, 1)
    assert compared(given) == "the same"


@pytest.mark.sampled("text")
@pytest.mark.parametrize(
    "text",
    [
        f"{DEVIATION} / ({VARIANCE}.sqrt() + 1e-5) * g + b",
        f"{DEVIATION} / (h.var(-1, keepdim=True) + 1e-5).sqrt() * g + b",
        "(h - h.mean(0)) / (((h - h.mean(0)) ** 2).mean(0) + 1e-5).sqrt() * g + b",
        "h / ((h * h).mean(-1, keepdim=True) + 1e-5).sqrt() * g + b",
        f"{DEVIATION} / -({VARIANCE} + 1e-5).sqrt() * g + b",
        f"{DEVIATION} / ({VARIANCE} + 1e-5 * (1 + h[:, :1] ** 2)).sqrt() * g + b",
        f"{DEVIATION} / ({VARIANCE} + 1e-5) * g + b",
        f"{DEVIATION} / (h.abs().mean(-1, keepdim=True) ** 2 + 1e-5).sqrt() * g + b",
        f"(h - 0.9 * h.mean(-1, keepdim=True)) / ({VARIANCE} + 1e-5).sqrt() * g + b",
    ],
)
def test_what_looks_like_it_is_not(text: str) -> None:
    given = network(f"h = torch.tanh({text})")
    assert kernels(given) == (0, 0)
    assert compared(given) == "the same"


@pytest.mark.parametrize("eps", [0.0, 1e-12, 3.7e-6])
def test_eps_is_the_one_that_was_given(eps: float) -> None:
    """Beside a variance of about one it could not be told from zero."""
    given = network(f"h = torch.tanh(F.layer_norm(h, h.shape[-1:], g, b, {eps!r}))")
    (found,) = [n for n in calls(given) if n.op == "native_layer_norm"]
    assert found.args[4] == eps


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([f"h = h + torch.tanh({NORM} @ v)"], 1),
        ([f"h = torch.tanh({NORM} + h)"], 1),
        (["h = h + torch.tanh(h @ v)", f"h = torch.tanh({NORM})"], 1),
        ([f"n = {NORM}", "h = h + torch.tanh(n @ v) + torch.sin(n)"], 1),
        ([f"h = h + torch.tanh({NORM} @ v)", f"h = h + torch.tanh({NORM.replace('g, b', 'g2, b2')} @ v.T)", f"h = {NORM}"], 3),
        (["h = F.layer_norm(h + torch.tanh(h @ v), h.shape[-1:], g2, b2)", f"h = torch.tanh({NORM}) + h"], 2),
        ([f"h = {NORM} + torch.tanh(F.layer_norm(h, h.shape[-1:]))"], 1),  # of one row the two are one tensor, scaled and not
    ],
)  # fmt: skip
def test_what_is_added_around_it_stays(lines: list[str], count: int) -> None:
    given = network(*lines)
    assert kernels(given) == (count, count)
    assert compared(given) == "the same"


def test_its_gradients_are_those_of_the_kernel() -> None:
    """Otherwise the deviation of every row would be computed as well."""
    given = network(f"h = torch.tanh({NORM})")
    (backward,) = [n for n in calls(given) if n.op == "native_layer_norm_backward"]
    assert backward.args[-1] == [True, True, True]
    assert not any(n.op in ("mean", "sum", "sqrt", "rsqrt") and n.shape and n.shape[0] == 32 for n in calls(given))


def test_the_data_has_no_gradient() -> None:
    given = network(f"h = torch.tanh({NORM})")
    given.text = given.text.replace("h = x @ w", "h = F.layer_norm(x, (10,), g[:10], b[:10]) @ w")
    masks = [n.args[-1] for n in calls(given) if n.op == "native_layer_norm_backward"]
    assert [False, True, True] in masks
    assert compared(given) == "the same"


@pytest.mark.parametrize("text", ["n * n * n", "n.detach() + h"])
def test_the_forward_alone_is_used_where_the_derivative_is_not_found(text: str) -> None:
    given = network("n = F.layer_norm(h, h.shape[-1:])", f"h = {text}")
    assert kernels(given) == (1, 0)
    assert compared(given) == "the same"


@pytest.mark.parametrize("factor", ["torch.sigmoid(h @ v)", "F.layer_norm(h @ v, h.shape[-1:], g2)", "(1 + g2)"])
def test_a_product_passes_its_other_factor_times_what_comes_back(factor: str) -> None:
    """Such a cotangent is nowhere computed by itself."""
    given = network(f"h = {NORM} * {factor}")
    assert kernels(given) == (1 + factor.count("layer_norm"),) * 2
    assert compared(given) == "the same"


@pytest.mark.parametrize(
    "body",
    [
        "h = F.layer_norm(h.view(-1, 2, 3, 4), (3, 4)).flatten(1)",
        "h = F.layer_norm(h.view(-1, 6, 4), (4,), g[:4], b[:4]).flatten(1)",
        "h = torch.tanh(F.group_norm(h.view(-1, 4, 6), 2)).flatten(1)",
        "h = torch.tanh(F.instance_norm(h.view(-1, 4, 6))).flatten(1)",
    ],
)
def test_rows_are_those_of_the_last_dimensions(body: str) -> None:
    given = network(body)
    assert kernels(given)[0] == 1
    assert compared(given) == "the same"


def test_it_is_used_where_it_is_faster() -> None:
    """A row costs the kernel of the derivative in float64 as much as many entries."""
    assert kernels(network(f"h = torch.relu({NORM})", rows=32)) == (1, 1)
    assert kernels(network(f"h = torch.relu({NORM})", rows=1000, width=8)) == (0, 0)


def test_large_batches_are_taken_in_blocks() -> None:
    given = network(f"h = F.gelu({NORM})", f"h = F.gelu({NORM.replace('g, b', 'g2, b2')} @ v)", rows=4096, width=200)
    assert loop_of(given).layout.blocks is not None
    assert loop_of(given, Plan(compiled=True)).layout.blocks is None  # what is computed there a compiler cannot take
    assert kernels(given) == (2, 2)
    assert compared(given, steps=2) == "the same"
