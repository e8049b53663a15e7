"""The evaluator of index notation: equal to torch's forward in every precision, and its complex steps to autograd."""

import math

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import trace
from engine.errors import InputError
from engine.evaluate import directional, evaluate, truth_gradient

FLOAT64 = torch.float64


def mlp(x: Tensor, y: Tensor, C: Tensor, w1: Tensor, w2: Tensor, b2: Tensor, bnw: Tensor, bnb: Tensor) -> Tensor:
    bs = x.shape[0]
    mean_proj = torch.ones(1, bs, dtype=C.dtype) / bs
    var_proj = torch.eye(bs, dtype=C.dtype) - mean_proj
    emb = C[x].view(x.shape[0], -1)
    hpreact = emb @ w1
    bnmeani = mean_proj @ hpreact
    bnstdi = (var_proj @ hpreact).square().mean(dim=0, keepdim=True).sqrt()
    h = ((hpreact - bnmeani) / bnstdi * bnw + bnb).tanh()
    logits = h @ w2 + b2
    exp_l = logits.exp()
    probs = exp_l / exp_l.sum(dim=-1, keepdim=True)
    return (-probs.log())[torch.arange(y.shape[0]), y].mean()


def mlp_inputs(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(0, 7, (n, 3), generator=generator)
    y = torch.randint(0, 7, (n,), generator=generator)
    return {
        "x": x, "y": y, "C": randn(7, 2), "w1": randn(6, 9), "w2": randn(9, 7), "b2": randn(7),
        "bnw": randn(9), "bnb": randn(9) / 2,
    }  # fmt: skip


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    kept = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return scores.masked_fill(~kept, -math.inf).softmax(-1) @ v


def convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.max_pool2d(F.gelu(F.conv2d(x, w, b, stride=2, padding=1)), 2).flatten(1).cumsum(1)


def kinks(x: Tensor, y: Tensor) -> Tensor:
    ties = x.round()
    return torch.stack([ties.amax(1), ties.relu().sum(1), ties.abs().mean(1), torch.maximum(ties, y.round()).sum(1)])


def special(x: Tensor) -> Tensor:
    return torch.erf(x) * torch.lgamma(x.square() + 1) + torch.atan2(x, x.exp()) + F.softplus(x) ** 1.5


def gathered(x: Tensor, at: Tensor) -> Tensor:
    values, places = x.sort(1, descending=True)
    return values[:, :3] * x[:, [0, -1, 1]] + x.gather(1, at) + places[:, :3] * x.mean()


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=FLOAT64, generator=torch.Generator().manual_seed(sum(shape)))


FORWARDS = {
    "mlp": (mlp, mlp_inputs(8)),
    "mlp, batch of 1": (lambda x, w: ((x @ w) - (x @ w).mean(0)).tanh(), {"x": randn(1, 3), "w": randn(3, 4)}),
    "attention": (attention, {"q": randn(2, 4, 3), "k": randn(2, 5, 3), "v": randn(2, 5, 2)}),
    "convolution": (convolution, {"x": randn(2, 3, 7, 6), "w": randn(4, 3, 3, 3), "b": randn(4)}),
    "kinks": (kinks, {"x": randn(3, 4) * 2, "y": randn(3, 4) * 2}),
    "special": (special, {"x": randn(5)}),
    "gathered": (gathered, {"x": randn(3, 4), "at": torch.tensor([[0, 1, 3], [2, 2, 0], [1, 0, 1]])}),
}


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("number", ["float64", "longdouble", "complex", 30])
def test_it_equals_torch(name: str, number: str | int) -> None:
    forward, inputs = FORWARDS[name]
    graph = trace(forward, *inputs.values())
    values = evaluate(graph, dict(zip(graph.inputs, inputs.values(), strict=True)), number)
    found = values[graph.outputs[0]]
    assert found.shape == forward(*inputs.values()).shape
    real = found.astype(np.complex128).real
    torch.testing.assert_close(torch.from_numpy(real), forward(*inputs.values()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("number", ["complex", 30])
def test_its_complex_steps_equal_autograd(name: str, number: str | int) -> None:
    forward, inputs = FORWARDS[name]
    graph = trace(forward, *inputs.values())
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs.values()]
    out = forward(*leaves)
    grad_out = torch.randn(out.shape, dtype=FLOAT64, generator=torch.Generator().manual_seed(0))
    out.backward(grad_out)
    given = dict(zip(graph.inputs, inputs.values(), strict=True))
    for input_name, leaf in zip(graph.inputs, leaves, strict=True):
        if leaf.grad is None:
            continue
        entries = list(np.ndindex(*leaf.shape))[:: max(1, leaf.numel() // 3)]
        truth = truth_gradient(graph, given, input_name, entries, grad_out.numpy(), number)
        wanted = np.array([leaf.grad[e].item() for e in entries])
        np.testing.assert_allclose(truth.astype(float), wanted, rtol=1e-9, atol=1e-11)


def test_more_digits_agree_with_each_other() -> None:
    graph = trace(special, randn(5))
    few = truth_gradient(graph, {"x": randn(5)}, "x", number=30)
    many = truth_gradient(graph, {"x": randn(5)}, "x", number=60)
    assert all(abs(a - b) < mpmath.mpf(10) ** -27 * abs(b) for a, b in zip(few, many, strict=True))


def test_a_direction_is_a_sum_of_entries() -> None:
    x, direction = randn(5), randn(5).square()
    graph = trace(special, x)
    along = directional(graph, {"x": x}, "x", direction)
    entries = truth_gradient(graph, {"x": x}, "x")
    np.testing.assert_allclose(float(along), float((entries * direction.numpy()).sum()), rtol=1e-14)


def test_any_node_can_be_overridden_and_moved() -> None:
    inputs = mlp_inputs(4)
    graph = trace(mlp, *inputs.values())
    values = evaluate(graph, inputs)
    again = evaluate(graph, inputs, overrides={"h": values["h"] * 0})
    probs = torch.softmax(inputs["b2"], 0).numpy()
    np.testing.assert_allclose(again["probs"], np.broadcast_to(probs, (4, 7)), rtol=1e-12)
    leaf = torch.from_numpy(values["h"]).requires_grad_()
    F.cross_entropy(leaf @ inputs["w2"] + inputs["b2"], inputs["y"]).backward()
    assert leaf.grad is not None
    truth = truth_gradient(graph, inputs, "h", [(0, 0), (3, 5)])
    np.testing.assert_allclose(truth.astype(float), [leaf.grad[0, 0].item(), leaf.grad[3, 5].item()], rtol=1e-10)


def test_a_mask_is_given_and_kept() -> None:
    def forward(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5) * x

    x = randn(4, 3)
    graph = trace(forward, x)
    mask = next(n.name for n in graph.nodes if n.op == "mask")
    given = torch.tensor([2.0, 0.0, 2.0], dtype=FLOAT64).expand(4, 3)
    values = evaluate(graph, {"x": x}, overrides={mask: given})
    np.testing.assert_allclose(values["out"], (x * given * x).numpy())
    truth = truth_gradient(graph, {"x": x}, "x", overrides={mask: given})
    np.testing.assert_allclose(truth.astype(float), (2 * given * x).numpy())


def test_what_is_detached_does_not_move() -> None:
    def forward(x: Tensor) -> Tensor:
        return x * x.detach()

    graph = trace(forward, randn(3))
    truth = truth_gradient(graph, {"x": randn(3)}, "x")
    np.testing.assert_allclose(truth.astype(float), randn(3).numpy())


def test_digits_do_not_overflow_where_floats_do() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.exp().sum().log()

    x = torch.tensor([1e4, 1e4 - 1], dtype=FLOAT64)
    graph = trace(forward, x)
    assert np.isinf(evaluate(graph, {"x": x})["out"])
    found = evaluate(graph, {"x": x}, 40)["out"][()]
    with mpmath.workdps(40):
        assert abs(found - (10000 + mpmath.log(1 + mpmath.exp(-1)))) < mpmath.mpf(10) ** -34


def test_modules_are_evaluated_by_parameter_name() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()).double()
    x = randn(6, 4)
    graph = trace(module, x)
    given = {**dict(module.named_parameters()), **{k: v.clone() for k, v in module.named_buffers()}, graph.inputs[0]: x}
    values = evaluate(graph, given)
    np.testing.assert_allclose(values[graph.outputs[0]], module(x).detach().numpy(), rtol=1e-12)
    for buffer, updated in graph.buffers.items():
        np.testing.assert_allclose(values[updated], dict(module.named_buffers())[graph.key(buffer)].numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "'y'"),
        ({"w1": randn(3, 3)}, "shape"),
        ({"x": torch.full((4, 3), 7)}, "reads position 7 of a dimension of size 7"),
    ],
)
def test_bad_inputs_are_named(change: dict[str, Tensor | None], message: str) -> None:
    inputs = mlp_inputs(4)
    graph = trace(mlp, *inputs.values())
    given = {k: v for k, v in {**inputs, **change}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        evaluate(graph, given)


def test_unknown_numbers_are_refused() -> None:
    graph = trace(special, randn(5))
    with pytest.raises(InputError, match="float16"):
        evaluate(graph, {"x": randn(5)}, "float16")
    with pytest.raises(InputError, match="complex step"):
        truth_gradient(graph, {"x": randn(5)}, "x", number="float64")
