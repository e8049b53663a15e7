"""`program.trainer`: the numbers of the closed backward step by step, whatever the forward, the batch, and the pieces."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import codegen
from codegen.loop.make import make_loop, rows_of
from codegen.program import Program, load
from engine.errors import InputError
from tests.loop.conftest import NAMES, cases, stepwise

Forward = Callable[..., Tensor]


@cache
def program_of(name: str) -> Program:
    forward, params, data = cases()[name]
    return codegen.generate(forward, *[d[:16] for d in data], *params.values())


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-9 * (1 + b.abs().max()))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch", [16, 7])
@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_the_closed_backward(name: str, batch: int, momentum: float) -> None:
    _, params, data = cases()[name]
    program = program_of(name)
    trainer = program.trainer(params, batch_size=batch, lr=0.05, momentum=momentum)
    losses = trainer.run(data, steps=130, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, batch, 130, 0.05, momentum, Generator().manual_seed(3))
    assert losses.shape == (130,)
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())


@pytest.mark.parametrize("name", ["mlp", "regression"])
def test_a_run_in_pieces_is_the_run(name: str) -> None:
    _, params, data = cases()[name]
    whole, parts = (program_of(name).trainer(params, batch_size=16, lr=0.05) for _ in range(2))
    one, other = Generator().manual_seed(1), Generator().manual_seed(1)
    losses = whole.run(data, steps=230, generator=one)
    pieces = torch.cat([parts.run(data, steps=n, lr=0.05, generator=other) for n in (1, 104, 25, 100)])
    assert torch.equal(losses, pieces)
    assert all(torch.equal(v, parts.params[k]) for k, v in whole.params.items())
    assert torch.equal(one.get_state(), other.get_state())


def test_the_random_stream_is_that_of_single_draws() -> None:
    _, params, data = cases()["mlp"]
    generator, single = Generator().manual_seed(2), Generator().manual_seed(2)
    program_of("mlp").trainer(params, batch_size=5).run(data, steps=137, generator=generator)
    for _ in range(137):
        torch.randint(0, len(data[0]), (5,), generator=single)
    assert torch.equal(generator.get_state(), single.get_state())


def test_parameters_are_copied() -> None:
    _, params, data = cases()["mlp"]
    before = {k: v.clone() for k, v in params.items()}
    program_of("mlp").trainer(params).run(data, steps=3)
    assert all(torch.equal(v, before[k]) for k, v in params.items())


@pytest.mark.parametrize("name", NAMES)
def test_kernels_change_nothing(name: str) -> None:
    """With every kernel and with none: the same numbers."""
    from dataclasses import replace

    from codegen.loop.make import Plan

    _, params, data = cases()[name]
    module = program_of(name).module
    names = [n for n in module.forward.__code__.co_varnames[: module.forward.__code__.co_argcount] if n not in params]
    found: list[Tensor] = []
    for plan in (Plan(), replace(Plan(), plain=True)):
        loop = make_loop(module, dict(zip(names, rows_of(data), strict=True)), params, 16, plan, name, name)
        own = {k: v.clone() for k, v in params.items()}
        run = load(loop.source, name).trainer(own)
        with torch.inference_mode():
            found.append(run(data, 40, 0.05, Generator().manual_seed(0)).clone())
    assert close(*found)


def test_the_file_is_plain_torch_without_autograd() -> None:
    _, params, data = cases()["mlp"]
    trainer = program_of("mlp").trainer(params)
    trainer.run(data, steps=1)
    imports = [line for line in trainer.source.splitlines() if line.lstrip().startswith(("import", "from"))]
    assert imports == ["import torch"]
    assert "requires_grad" not in trainer.source
    assert "addmm_" in trainer.source


@pytest.mark.parametrize(
    ("params", "message"),
    [({}, "no parameters"), ({"nothing": torch.zeros(1)}, "'nothing' is no input")],
)
def test_parameters_that_cannot_be(params: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        program_of("mlp").trainer(params)


def test_data_that_cannot_be() -> None:
    _, params, data = cases()["mlp"]
    trainer = program_of("mlp").trainer(params)
    with pytest.raises(InputError, match="takes rows of 2 tensors"):
        trainer.run(data[:1], steps=1)
    with pytest.raises(InputError, match="300, 299 rows"):
        trainer.run((data[0], data[1][:299]), steps=1)
    assert trainer.run(data, steps=0).shape == (0,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_compiled_steps_are_the_same_steps(momentum: float) -> None:
    _, params, data = cases()["deep"]
    trainer = program_of("deep").trainer(params, batch_size=16, lr=0.05, momentum=momentum, compile=True)
    losses = trainer.run(data, steps=23, generator=Generator().manual_seed(3))
    expected, after = stepwise(program_of("deep"), params, data, 16, 23, 0.05, momentum, Generator().manual_seed(3))
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())


class Net(nn.Module):
    """A module with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Linear(9, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.last(torch.relu(self.norm(self.first(x)))), y)


def test_a_module_keeps_its_running_statistics() -> None:
    torch.manual_seed(0)
    net = Net()
    x, y = torch.randn(200, 6), torch.randint(0, 3, (200,))
    program = codegen.generate(net, x[:16], y[:16])
    trainer = program.trainer(dict(net.named_parameters()), batch_size=16, lr=0.1)
    losses = trainer.run((x, y), steps=110, generator=Generator().manual_seed(1))
    optimizer, generator = torch.optim.SGD(net.parameters(), lr=0.1), Generator().manual_seed(1)
    expected: list[Tensor] = []
    for _ in range(110):
        rows = torch.randint(0, len(x), (16,), generator=generator)
        loss = net(x[rows], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.detach())
    assert close(losses, torch.stack(expected))
    assert all(close(trainer.params[k], p.detach()) for k, p in net.named_parameters())
    assert set(trainer.buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert all(close(trainer.buffers[k].double(), b.double()) for k, b in net.named_buffers())


def test_a_view_that_the_memory_of_a_loop_does_not_allow() -> None:
    """Such a forward is trained all the same, and `path` says how."""

    def forward(x: Tensor, table: Tensor, kernel: Tensor) -> Tensor:
        h = F.embedding(x, table, padding_idx=0).transpose(1, 2)
        return F.conv1d(h, kernel).relu().amax(2).square().mean()

    params, data = {"table": torch.randn(7, 4), "kernel": torch.randn(3, 4, 2)}, (torch.randint(0, 7, (60, 5)),)
    program = codegen.generate(forward, data[0][:6], *params.values())
    trainer = program.trainer(params, batch_size=6, lr=0.05)
    losses = trainer.run(data, steps=20, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 6, 20, 0.05, 0.0, Generator().manual_seed(3))
    assert trainer.path
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())


class Averaged(nn.Module):
    """A BatchNorm over all batches so far, and a mean that takes the shape of what it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0, keepdim=True)
        return self.norm(h).tanh().square().mean()


def test_statistics_over_all_steps_and_of_another_shape() -> None:
    torch.manual_seed(0)
    model, data = Averaged(), torch.randn(60, 4)
    trainer = codegen.generate(model, data[:6]).trainer(dict(model.named_parameters()), batch_size=6, lr=0.1)
    losses = trainer.run((data,), steps=5, generator=Generator().manual_seed(1))
    assert trainer.path == "the emitted loop"
    rows = Generator().manual_seed(1)
    for loss in losses:
        own = model(data[torch.randint(0, 60, (6,), generator=rows)])
        assert close(loss, own.detach())
        for p, g in zip(model.parameters(), torch.autograd.grad(own, list(model.parameters())), strict=True):
            p.data.sub_(g, alpha=0.1)
    for name, value in model.named_buffers():
        assert close(trainer.buffers[name].double(), value.double())


def test_the_plain_loop_has_the_basic_vocabulary_and_the_same_numbers() -> None:
    from codegen.loop.make import Plan

    _, params, data = cases()["mlp"]
    module = program_of("mlp").module
    rows = dict(zip(("x", "y"), rows_of(data), strict=True))
    plain, chosen = (make_loop(module, rows, params, 16, Plan(plain=p), "mlp", "mlp").source for p in (True, False))
    for kernel in ("native_batch_norm", "tanh_backward", "sigmoid", "onehot", "_foreach"):
        assert kernel not in plain
        assert kernel in chosen or kernel == "_foreach"
    assert "torch.ops" not in plain


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["mlp", "deep"])
def test_spare_columns_change_nothing(name: str, momentum: float) -> None:
    """27 columns are kept as 32 in float32; parameters and losses are those of single steps."""
    torch.set_default_dtype(torch.float32)
    g = Generator().manual_seed(2)
    forward, params, data = cases(torch.float32)[name]
    if name == "deep":
        params = {**params, "v": torch.randn(8, 27, generator=g)}
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=16, lr=0.05, momentum=momentum)
    losses = [trainer.run(data, steps=n, generator=g.manual_seed(n)) for n in (30, 20)]
    assert ("[:, :27]" in trainer.source or "[:200, :27]" in trainer.source) is (name == "mlp")
    for steps, found in zip((30, 20), losses, strict=True):
        assert found.shape == (steps,)
    expected, after = stepwise(program, params, data, 16, 30, 0.05, momentum, g.manual_seed(30))
    assert torch.allclose(losses[0], expected, rtol=1e-4, atol=1e-5)
    if not momentum:
        more, after = stepwise(program, after, data, 16, 20, 0.05, momentum, g.manual_seed(20))
        assert torch.allclose(losses[1], more, rtol=1e-4, atol=1e-4)
        assert all(torch.allclose(trainer.params[k], v, rtol=1e-3, atol=1e-4) for k, v in after.items())


def fixed(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return F.cross_entropy((x.view(16, 4) @ w).tanh() @ v, y)


def one_by_one(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return sum(F.cross_entropy((x[i : i + 1] @ w).tanh() @ v, y[i : i + 1]) for i in range(x.shape[0])) / 16  # pyright: ignore[reportReturnType]


def dropped(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return F.cross_entropy(F.dropout(x @ w, 0.5) @ v, y)


def test_a_mask_is_drawn_anew_in_every_step() -> None:
    g = Generator().manual_seed(4)
    params = {"w": torch.randn(4, 6, generator=g), "v": torch.randn(6, 3, generator=g)}
    data = torch.randn(1, 4, generator=g), torch.randint(0, 3, (1,), generator=g)  # every batch is the same
    program = codegen.generate(dropped, *[d.repeat(16, *[1] * (d.dim() - 1)) for d in data], *params.values())
    torch.manual_seed(9)
    trainer = program.trainer(params, batch_size=16, lr=0.0)
    losses = trainer.run(data, steps=6, generator=Generator().manual_seed(3))
    assert "draws random numbers" in trainer.path
    assert len(losses.unique()) == 6
    trainer = program.trainer(params, batch_size=16, lr=0.05)
    torch.manual_seed(9)
    losses = trainer.run(data, steps=6, generator=Generator().manual_seed(3))
    torch.manual_seed(9)
    expected, after = stepwise(program, params, data, 16, 6, 0.05, 0.0, Generator().manual_seed(3))
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("forward", "reason"), [(fixed, "the forward fixed x.shape[0] = 16"), (one_by_one, "a value that Python reads")]
)
def test_what_cannot_be_recorded_is_trained_one_step_at_a_time(forward: Forward, reason: str, momentum: float) -> None:
    g = Generator().manual_seed(4)
    params = {"w": torch.randn(4, 6, generator=g), "v": torch.randn(6, 3, generator=g)}
    data = torch.randn(100, 4, generator=g), torch.randint(0, 3, (100,), generator=g)
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=16, lr=0.05, momentum=momentum)
    losses = trainer.run(data, steps=20, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 16, 20, 0.05, momentum, Generator().manual_seed(3))
    assert trainer.path.startswith("the closed backward, one step at a time")
    assert reason in trainer.path
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())


def test_a_module_that_cannot_be_recorded_keeps_its_running_statistics() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.bn, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(self.b(self.bn(self.a(x.view(16, 4))).relu()), y)

    torch.manual_seed(0)
    net = Net()
    data = torch.randn(100, 4), torch.randint(0, 3, (100,))
    program = codegen.generate(net, *[d[:16] for d in data])
    trainer = program.trainer(dict(net.named_parameters()), batch_size=16, lr=0.05)
    losses = trainer.run(data, steps=10, generator=Generator().manual_seed(3))
    optimizer, generator = torch.optim.SGD(net.parameters(), lr=0.05), Generator().manual_seed(3)
    expected: list[Tensor] = []
    for _ in range(10):
        rows = torch.randint(0, 100, (16,), generator=generator)
        loss = net(*[d[rows] for d in data])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.detach())
    assert "one step at a time" in trainer.path
    assert close(losses, torch.stack(expected))
    assert all(close(trainer.buffers[k], v.to(trainer.buffers[k].dtype)) for k, v in net.named_buffers())


def test_the_plain_loop_writes_out_what_other_slopes_are() -> None:
    from codegen.loop.make import Plan

    def gates(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return ((torch.sigmoid(x @ w).tanh() @ v).relu() @ v.T - y).square().mean()

    g = Generator().manual_seed(4)
    w, v = torch.randn(5, 4, generator=g), torch.randn(4, 6, generator=g)
    x, y = torch.randn(40, 5, generator=g), torch.randn(40, 4, generator=g)
    program = codegen.generate(gates, x, y, w, v, wrt=("w", "v"))
    found: list[Tensor] = []
    for plain in (True, False):
        params = {"w": w.clone(), "v": v.clone()}
        rows = dict(zip(("x", "y"), rows_of((x, y)), strict=True))
        source = make_loop(program.module, rows, params, 8, Plan(plain=plain), "gates", "gates").source
        assert plain is not any(f"{kernel}_backward" in source for kernel in ("tanh", "sigmoid", "threshold"))
        run = load(source, "gates").trainer(params)
        with torch.inference_mode():
            found.append(run((x, y), 40, 0.1, Generator().manual_seed(1)).clone())
    assert close(*found)


def of_pairs(x: Tensor, w: Tensor) -> Tensor:
    s = x @ w
    s = s.masked_fill(torch.eye(x.shape[0], dtype=torch.bool), -float("inf"))
    return F.cross_entropy(s, torch.arange(x.shape[0]).roll(1))


def put_at_places(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    h[:, 0] = 0
    h[torch.arange(x.shape[0]), 1 + torch.arange(x.shape[0]) % 3] = 1.0
    return h.logsumexp(1).mean() + h.square().mean()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("forward", [of_pairs, put_at_places])
def test_a_tensor_that_was_written_into_is_there_when_losses_are_computed(
    forward: Callable[[Tensor, Tensor], Tensor], momentum: float
) -> None:
    """Losses are computed for many steps at once, from rows; a row begins where it begins."""
    g = Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((30, 6), (6, 8)))
    trainer = codegen.generate(forward, x[:8], w).trainer({"w": w}, batch_size=8, momentum=momentum)
    losses = trainer.run((x,), steps=120, generator=Generator().manual_seed(3))
    assert trainer.path == "the emitted loop"
    rows, leaf, velocity = Generator().manual_seed(3), w.clone().requires_grad_(), torch.zeros_like(w)
    for mine in losses:
        theirs = forward(x[torch.randint(0, 30, (8,), generator=rows)], leaf)
        (gradient,) = torch.autograd.grad(theirs, leaf)
        velocity = momentum * velocity + gradient
        leaf = (leaf - 0.1 * velocity).detach().requires_grad_()
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(trainer.params["w"], leaf.detach(), rtol=1e-9, atol=1e-10)


def test_what_is_no_number_of_steps_or_rows_is_refused() -> None:
    _, params, data = cases()["mlp"]
    for batch in (0, -1, 2.5, None):
        with pytest.raises(InputError, match="batch_size is .*; it is a whole number from 1"):
            program_of("mlp").trainer(params, batch_size=batch)  # pyright: ignore[reportArgumentType]
    trainer = program_of("mlp").trainer(params, batch_size=5)
    for steps in (-1, 2.5):
        with pytest.raises(InputError, match="steps is .*; it is a whole number from 0"):
            trainer.run(data, steps=steps)  # pyright: ignore[reportArgumentType]
    assert trainer.run(data, steps=0).shape == (0,)


def test_a_batch_of_another_size_than_a_fixed_one_is_refused() -> None:
    """A size of one broadcasts, so that a trace at one row is for one row."""
    x, y, w = torch.randn(9, 6), torch.randn(9, 3), torch.randn(6, 3)
    program = codegen.generate(lambda x, w, y: ((x @ w - y) ** 2).mean(), x[:1], w, y[:1])
    with pytest.raises(InputError, match="dimension 0 of x is 5, the trace had 1"):
        program.trainer({"w": w}, batch_size=5).run((x, y), steps=3)
    assert len(program.trainer({"w": w}, batch_size=1).run((x, y), steps=3)) == 3


def test_an_argument_that_is_a_word() -> None:
    def loss(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        z = x @ w
        return ((z - y) ** 2).mean() + (torch.div(z, 2.0, rounding_mode="floor") * z).mean()

    generator = Generator().manual_seed(0)
    x, y, w = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((8, 3), (8,), (3,)))
    losses = codegen.generate(loss, x, y, w).trainer({"w": w}, batch_size=8, lr=0.1).run((x, y), steps=2)
    assert losses.isfinite().all()
