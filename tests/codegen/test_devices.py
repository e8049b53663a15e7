"""Emitted code runs where its inputs are: on torch's meta device, whose kernels take no tensor of another one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import codegen
from codegen.devices import on_device


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    places = torch.arange(q.shape[-2], device=q.device)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(places[:, None] < places, float("-inf")).softmax(-1) @ v


def triangle(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2)
    ahead = torch.triu(torch.ones(scores.shape[-2:], dtype=torch.bool), 1)
    return scores.masked_fill(ahead, -1e9).softmax(-1) @ v


def one_hot(x: Tensor, y: Tensor) -> Tensor:
    wanted = torch.zeros(len(x), 3, device=y.device, dtype=x.dtype)
    wanted[torch.arange(len(x), device=x.device), y] = 1.0
    weights = torch.tensor([0.1, 0.2, 0.7], device=x.device, dtype=x.dtype)
    return ((x.to(device=y.device) - wanted.to(x.device, x.dtype)) ** 2 * weights.to(x)).sum(-1).mean()


def likes(x: Tensor, y: Tensor) -> Tensor:
    base = (
        x.new_zeros(3, device=y.device) + torch.zeros_like(x, device=x.device) + torch.full((3,), 2.0, device=x.device)
    )
    return (x.to(y.device) * base).sum() + F.cross_entropy(x.to("cpu", non_blocking=True), y)


def projected(x: Tensor) -> Tensor:
    n = x.shape[0]
    centring = torch.eye(n, device=x.device) - torch.ones(n, n) / n
    return (centring.to(x) @ x).square().mean(0, keepdim=True)


LABELS = torch.tensor([0, 2, 1, 1])
CASES = {
    "causal": (causal, rand(2, 5, 4), rand(2, 5, 4), rand(2, 5, 3)),
    "triangle": (triangle, rand(2, 5, 4), rand(2, 5, 4), rand(2, 5, 3)),
    "one_hot": (one_hot, rand(4, 3), LABELS),
    "likes": (likes, rand(4, 3), LABELS),
    "projected": (projected, rand(4, 3)),
}


@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_stay_on_the_device_of_the_inputs(name: str, mode: str) -> None:
    forward, *inputs = CASES[name]
    program = codegen.generate(forward, *inputs, mode=mode)
    leaves = [t for t in inputs if t.requires_grad]
    mine = torch.autograd.grad(program.function(*inputs).sum(), leaves)
    theirs = torch.autograd.grad(forward(*inputs).sum(), leaves)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    out, saved = program.forward(*[t.detach().to("meta") for t in inputs])
    assert out.is_meta
    assert all(g.is_meta for g in program.backward(saved).values())
    there = [t.detach().to("meta").requires_grad_(t.requires_grad) for t in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which has no part in what is on another device
        result = program.function(*there)
    assert (result.is_meta, result.shape, result.dtype) == (True, out.shape, out.dtype)
    found = torch.autograd.grad(result.sum(), [t for t in there if t.requires_grad])
    assert all(g.is_meta and g.shape == t.shape for g, t in zip(found, leaves, strict=True))


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("a = torch.arange(n)[:, None] < b", "a = torch.arange(n, device=x.device)[:, None] < b"),
        ("a = torch.eye(n, dtype=w.dtype) @ b", "a = torch.eye(n, dtype=w.dtype, device=w.device) @ b"),
        ("a = p[torch.arange(n), y]", "a = p[torch.arange(n), y]"),
        ("a.index_put_((torch.arange(n), y), b, accumulate=True)", "a.index_put_((torch.arange(n), y), b, accumulate=True)"),
        ("a = torch.ones(n, device=y.device) + torch.tensor(2.0)", "a = torch.ones(n, device=y.device) + torch.tensor(2.0, device=x.device)"),
        ("a.index_put((torch.arange(n) % m, y), b)", "a.index_put((torch.arange(n) % m, y), b)"),
        ("a = p[torch.arange(n).unsqueeze(-1), y[torch.arange(n)]]", "a = p[torch.arange(n).unsqueeze(-1), y[torch.arange(n)]]"),
        ("if torch.arange(n).any():", "if torch.arange(n).any():"),
        ("a = p[torch.where(torch.arange(n) < z, y, 0)]", "a = p[torch.where(torch.arange(n, device=x.device) < z, y, 0)]"),
    ],
)  # fmt: skip
def test_what_is_made_of_nothing_is_told_where(line: str, written: str) -> None:
    assert on_device(line, "x", ("n", "m")) == written
