"""What a trainer holds: after an error or an interruption, when somebody replaces it, and what is refused before it starts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from engine.errors import InputError
from tests.loop.conftest import NAMES, cases


def trainer_of(name: str, momentum: float = 0.0) -> Any:
    forward, params, data = cases()[name]
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    return program.trainer(params, batch_size=16, lr=0.05, momentum=momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_goes_on_where_it_was(name: str, momentum: float) -> None:
    """Parameters that the loop keeps in another form are not left behind those that it moves in place."""
    data = cases()[name][2]
    stopped, whole = trainer_of(name, momentum), trainer_of(name, momentum)
    done: list[int] = []

    def watch(count: int, _: object) -> None:
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    generator = Generator().manual_seed(4)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(data, steps=1000, generator=generator, watch=watch)
    stopped.run(data, steps=20, generator=generator)
    whole.run(data, steps=sum(done) + 20, generator=Generator().manual_seed(4))
    assert all(torch.equal(v, whole.params[k]) for k, v in stopped.params.items())


def test_compiled_steps_that_are_interrupted_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the steps: what they left is given back."""
    from codegen.loop.compiled import Compiled

    def eager(self: Compiled, source: str) -> Any:
        """The steps as they are handed to the compiler, without it."""
        del source
        names = len(self.steps.held) + len(self.steps.moving)

        def call(given: list[Tensor]) -> list[Tensor]:
            state, losses, kept = self.steps(given[:names], given[names:-1], given[-1])
            return [*state, losses, *kept]

        return call

    monkeypatch.setattr(Compiled, "load", eager)
    _, params, data = cases()["regression"]
    program = codegen.generate(cases()["regression"][0], *[d[:16] for d in data], *params.values())
    stopped, whole = (program.trainer(params, batch_size=16, lr=0.05, compile=True) for _ in range(2))
    done: list[int] = []

    def watch(count: int, _: object) -> None:
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(data, steps=1000, generator=Generator().manual_seed(4), watch=watch)
    assert stopped.path == "compiled steps"
    whole.run(data, steps=sum(done), generator=Generator().manual_seed(4))
    assert not torch.equal(stopped.params["w"], params["w"])
    for k, v in stopped.params.items():
        torch.testing.assert_close(v, whole.params[k], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "regression"])
def test_a_parameter_that_somebody_replaced_is_the_one_that_is_trained(name: str) -> None:
    _, params, data = cases()[name]
    one, other = trainer_of(name), trainer_of(name)
    one.run(data, steps=7, generator=Generator().manual_seed(1))
    for k, v in params.items():
        one.params[k] = v.clone()
    mine, theirs = (t.run(data, steps=9, generator=Generator().manual_seed(2)) for t in (one, other))
    assert torch.equal(mine, theirs)
    assert all(torch.equal(v, other.params[k]) for k, v in one.params.items())


def test_a_parameter_that_cannot_replace_another_is_refused() -> None:
    data = cases()["regression"][2]
    trainer = trainer_of("regression")
    w = trainer.params["w"]
    for bad, message in (
        (w[:1], "w was replaced by float64 .1, .*the trainer's is float64"),
        (w.float(), "w was replaced by float32"),
        (3.0, "w is a float; give a tensor"),
    ):
        trainer.params["w"] = bad
        with pytest.raises(InputError, match=message):
            trainer.run(data, steps=1)
    trainer.params["w"] = w
    trainer.params["u"] = w
    with pytest.raises(InputError, match="'u' was put into the trainer's tensors"):
        trainer.run(data, steps=1)


@pytest.mark.parametrize("batch", [8, 1])
def test_a_loss_of_one_element_keeps_its_dimensions_out_of_the_losses(batch: int) -> None:
    def kept(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return ((x @ w - y) ** 2).mean(dim=(0, 1), keepdim=True)

    def plain(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return ((x @ w - y) ** 2).mean()

    g = Generator().manual_seed(0)
    x, y, w = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((30, 4), (30, 2), (4, 2)))
    found = [
        codegen.generate(f, x[:8], y[:8], w)
        .trainer({"w": w}, batch_size=batch)
        .run((x, y), steps=120, generator=Generator().manual_seed(1))
        for f in (kept, plain)
    ]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


LOSSES: dict[str, Any] = {
    "a parameter": lambda x, w: w[0] * 1,
    "a place of one": lambda x, w: w.narrow(0, 1, 1).mean(),
    "a length in one piece": lambda x, w: w[:, None].norm("fro").mean() + 0 * x.sum(),
    "without a row for every step": lambda x, w: (
        ((x - x)[:, None] * torch.ones(3).double()).sort(1).values.square().mean()
    ),
    "with ones put where the batch is largest": lambda x, w: (
        (F.one_hot(x.view(2, 2).argmax(1), 2) - x.view(2, 2).softmax(1)).square().mean()
    ),
    "what a parameter leaves": lambda x, w: (w - w).abs().sum() + w[2],
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_show_a_parameter_or_read_nothing_of_the_batch(name: str) -> None:
    """They are those before each step, whatever the update does to what they show."""
    x, w = torch.randn(9, dtype=torch.float64), torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    trainer = codegen.generate(LOSSES[name], x[:4], w).trainer({"w": w}, batch_size=4, lr=0.1)
    found = trainer.run((x,), steps=4, generator=Generator().manual_seed(0))
    leaf, generator, wanted = w.clone().requires_grad_(), Generator().manual_seed(0), list[Tensor]()
    for _ in range(4):
        loss = LOSSES[name](x[torch.randint(0, 9, (4,), generator=generator)], leaf)
        wanted.append(loss.detach().clone())
        if loss.requires_grad:
            (step,) = torch.autograd.grad(loss, leaf)
            leaf.data.sub_(step, alpha=0.1)
    torch.testing.assert_close(found, torch.stack(wanted))
    torch.testing.assert_close(trainer.params["w"], leaf.detach())


def test_what_is_no_number_or_no_tensor_is_refused() -> None:
    forward, params, data = cases()["regression"]
    program: Any = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    given: Any = params
    for options, message in (
        ({"lr": "fast"}, "trainer: lr is 'fast'; it is a number"),
        ({"momentum": None}, "trainer: momentum is None; it is a number"),
        ({"params": list(given.values())}, "trainer: a list was given; give a dict of tensors"),
        ({"params": {**given, "w": 1.0}}, "trainer: w is a float; give a tensor"),
    ):
        with pytest.raises(InputError, match=message):
            program.trainer(**{"params": given, **options})
    trainer: Any = program.trainer(given)
    tensor: Any = data[0]
    for rows, lr, message in (
        ((tensor.tolist(), data[1]), None, "run: x is a list; give a tensor"),
        ((tensor.numpy(), data[1]), None, "run: x is a ndarray; give a tensor"),
        (data, "slow", "run: lr is 'slow'; it is a number"),
    ):
        with pytest.raises(InputError, match=message):
            trainer.run(rows, steps=1, lr=lr)


def test_data_of_another_dtype_than_the_parameters_are_named() -> None:
    def forward(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return F.cross_entropy(x @ w, y)

    x, y, w = torch.randn(20, 4).float(), torch.randint(3, (20,)), torch.randn(4, 3).float()
    trainer = codegen.generate(forward, x, y, w).trainer({"w": w}, batch_size=4)
    with pytest.raises(InputError, match="x is float64 and w is float32; in the trace they had one dtype"):
        trainer.run((x.double(), y), steps=1)
