"""Gradients: autograd over the forward as it is, and its named values on the way."""

import cProfile
import math
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from codegen.frames import call_with_locals
from codegen.targets import load_target
from codegen.train.backward import AutogradBackward, first_non_finite, named_values
from examples import mlp


@pytest.mark.parametrize("seed", [0, 1])
def test_autograd_is_plain_autograd(seed: int) -> None:
    inputs = mlp.example_inputs(torch.Generator().manual_seed(seed))
    x, y, *_ = inputs.values()
    params = {name: value for name, value in inputs.items() if name not in ("x", "y")}
    before = {name: value.clone() for name, value in params.items()}
    with torch.no_grad():  # as in the training loop
        loss, grads, saved = AutogradBackward(mlp.forward).step(params, x, y)
    leaves = [value.clone().requires_grad_() for value in params.values()]
    expected = mlp.forward(x, y, *leaves)
    expected.backward()
    assert torch.equal(loss, expected)
    assert list(grads) == list(params)
    for leaf, (name, grad) in zip(leaves, grads.items(), strict=True):
        assert leaf.grad is not None
        assert torch.equal(grad, leaf.grad)
        assert torch.equal(params[name], before[name])
        assert not params[name].requires_grad
    hpreact = before["C"][x].view(32, -1) @ before["w1"]
    torch.testing.assert_close(named_values(saved)["bnmeani"], hpreact.mean(dim=0, keepdim=True))
    torch.testing.assert_close(named_values(saved)["bnstdi"], hpreact.var(dim=0, correction=0, keepdim=True).sqrt())


def test_a_parameter_the_forward_does_not_use_has_gradient_zero() -> None:
    def forward(x: Tensor, y: Tensor, w: Tensor, unused: Tensor) -> Tensor:
        return (x * w - y).square().mean()

    ones = torch.ones(3)
    _, grads, _ = AutogradBackward(forward).step({"w": ones, "unused": ones}, ones, ones)
    assert grads["unused"].tolist() == [0, 0, 0]


def test_locals_are_the_outermost_calls_in_order() -> None:
    def countdown(n: int) -> int:
        below = countdown(n - 1) if n else 0
        total = below + n
        return total  # a local to be captured

    previous = sys.getprofile()
    result, named = call_with_locals(countdown, 4)
    assert result == 10
    assert list(named) == ["n", "below", "total", "countdown"]
    assert (named["n"], named["below"], named["total"]) == (4, 6, 10)
    assert sys.getprofile() is previous


def test_locals_leave_a_running_profiler_running() -> None:
    with cProfile.Profile() as profile:
        call_with_locals(lambda: None)
        math.gamma(3)
    profile.create_stats()
    assert any("gamma" in name for _, _, name in profile.stats)


def test_locals_leave_the_profiler_alone_when_the_function_fails() -> None:
    def fail() -> None:
        raise ValueError("inside")

    previous = sys.getprofile()
    with pytest.raises(ValueError, match="inside"):
        call_with_locals(fail)
    assert sys.getprofile() is previous


def test_first_non_finite_is_the_first_in_order() -> None:
    fine, bad, worse = torch.ones(2), torch.tensor([1.0, torch.inf]), torch.tensor([torch.nan])
    saved = SimpleNamespace(w=fine, a=fine, indices=torch.arange(3), b=bad, c=worse)
    assert first_non_finite({"w": fine}, saved) == "the node b (inf)"
    assert first_non_finite({"w": fine, "v": bad}, saved) == "the parameter v (already after the step before)"
    assert first_non_finite({"w": fine}, namedtuple("Saved", "a c")(fine, worse)) == "the node c (nan)"  # noqa: PYI024
    assert first_non_finite({}, SimpleNamespace()) == "the loss itself"


def test_the_mlp_is_cross_entropy_after_batch_norm() -> None:
    inputs = mlp.example_inputs(torch.Generator().manual_seed(3))
    assert list(inputs) == ["x", "y", "C", "w1", "w2", "b2", "bnw", "bnb"]
    hpreact = inputs["C"][inputs["x"]].flatten(1) @ inputs["w1"]
    normal = torch.nn.functional.batch_norm(hpreact, None, None, inputs["bnw"], inputs["bnb"], training=True, eps=1e-12)
    logits = normal.tanh() @ inputs["w2"] + inputs["b2"]
    torch.testing.assert_close(mlp.forward(**inputs), torch.nn.functional.cross_entropy(logits, inputs["y"]))


def test_the_mlp_evaluates_with_running_or_batch_statistics() -> None:
    generator = torch.Generator().manual_seed(5)
    params = mlp.init(generator, 27, torch.float64)
    x = torch.randint(0, 27, (50, 3), generator=generator)
    hpreact = params["C"][x].flatten(1) @ params["w1"]
    own = {"bnmean_running": hpreact.mean(0, keepdim=True), "bnstd_running": hpreact.std(0, keepdim=True)}
    by_batch = mlp.logits(x, params, mlp.init_buffers(torch.float64), True)
    torch.testing.assert_close(mlp.logits(x, params, own, False), by_batch)
    assert by_batch.shape == (50, 27)
    assert by_batch.dtype == torch.float64


def test_running_statistics_move_a_hundredth() -> None:
    buffers = mlp.init_buffers(torch.float32)
    mlp.update_buffers(buffers, SimpleNamespace(bnmeani=torch.full((1, 200), 2.0), bnstdi=torch.full((1, 200), 3.0)))
    torch.testing.assert_close(buffers["bnmean_running"], torch.full((1, 200), 0.02))
    torch.testing.assert_close(buffers["bnstd_running"], torch.full((1, 200), 1.02))


def test_the_bundled_target_is_the_module() -> None:
    target = load_target("mlp")
    assert target.bundled
    assert target.forward is mlp.forward
