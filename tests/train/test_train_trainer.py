"""The inner loop: a run in pieces is the run, in every mode, and a loss that is not finite stops it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from codegen.train.backward import AutogradBackward
from codegen.train.data import Split
from codegen.train.recipe import Tensors
from codegen.train.trainer import NonFiniteLossError, StepTrainer, default_dtype
from engine.errors import TrainingError
from examples import mlp


def data(rows: int = 500) -> Split:
    generator = torch.Generator().manual_seed(9)
    return Split(
        torch.randint(0, 27, (rows, 3), generator=generator), torch.randint(0, 27, (rows,), generator=generator)
    )


def trainer(backward: object, dtype: torch.dtype = torch.float32) -> StepTrainer:
    params = mlp.init(torch.Generator().manual_seed(1), 27, dtype)
    return StepTrainer(backward, params, mlp.init_buffers(dtype), mlp.update_buffers, 16)  # type: ignore[arg-type]


def test_a_run_in_pieces_is_the_run() -> None:
    whole, pieces = trainer(AutogradBackward(mlp.forward)), trainer(AutogradBackward(mlp.forward))
    g1, g2 = (torch.Generator().manual_seed(2) for _ in range(2))
    losses = whole.run(data(), 20, 0.5, g1)
    parts = torch.cat([pieces.run(data(), n, 0.5, g2) for n in (1, 6, 13)])
    assert losses.shape == (20,)
    assert torch.equal(losses, parts)
    for a, b in ((whole.params, pieces.params), (whole.buffers, pieces.buffers)):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_plain_gradient_descent_on_the_rows_torch_draws() -> None:
    ours = trainer(AutogradBackward(mlp.forward))
    ours.run(data(), 3, 0.5, torch.Generator().manual_seed(2))
    x, y = data()
    generator = torch.Generator().manual_seed(2)
    params = [p.requires_grad_() for p in mlp.init(torch.Generator().manual_seed(1), 27, torch.float32).values()]
    for _ in range(3):
        rows = torch.randint(0, len(x), (16,), generator=generator)
        grads = torch.autograd.grad(mlp.forward(x[rows], y[rows], *params), params)
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p.sub_(0.5 * g)
    assert all(torch.equal(a, b) for a, b in zip(ours.params.values(), params, strict=True))


def test_parameters_are_copied() -> None:
    params = mlp.init(torch.Generator().manual_seed(1), 27, torch.float32)
    before = params["w1"].clone()
    StepTrainer(AutogradBackward(mlp.forward), params, mlp.init_buffers(torch.float32), mlp.update_buffers, 4).run(
        data(), 2, 1.0, torch.Generator()
    )
    assert torch.equal(params["w1"], before)


def test_a_loss_that_is_not_finite_stops() -> None:
    ours = trainer(AutogradBackward(mlp.forward))
    with pytest.raises(NonFiniteLossError) as caught:
        ours.run(data(), 50, 1e30, torch.Generator().manual_seed(0))
    assert caught.value.offset >= 1
    assert "the parameter" in caught.value.culprit or "the node" in caught.value.culprit


def test_a_loss_must_be_one_number() -> None:
    def forward(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return w.sum() + torch.zeros(2)

    class Unreduced:
        def step(self, params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
            return forward(x, y, params["w"]), params, SimpleNamespace()

    broken = StepTrainer(Unreduced(), {"w": torch.ones(1)}, {}, lambda buffers, saved: None, 4)
    with pytest.raises(TrainingError, match=r"shape \(2,\)"):
        broken.run(data(), 1, 1.0, torch.Generator())


def test_default_dtype_is_put_back() -> None:
    def fail_inside() -> None:
        with default_dtype(torch.float64):
            assert torch.ones(1).dtype == torch.float64
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert torch.get_default_dtype() == torch.float32
