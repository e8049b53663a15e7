"""Parameters that the loop keeps in another form: turned, doubled, with spare columns, a bias as a row; the steps are the same."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from codegen.loop import cost
from tests.loop.conftest import stepwise

Forward = Callable[..., Tensor]
N, SYMBOLS = 96, 27


def words(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = (c[x].view(x.shape[0], -1) @ w + b).tanh()
    return F.cross_entropy(h @ v + u, y)


def decayed(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    squares = c.square().sum() + w.square().sum() + b.square().sum() + u.square().sum()
    return words(x, y, c, w, b, v, u) + 0.01 * squares


def one_place(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = (c[x[:, 0]] @ w[: c.shape[1]] + b).tanh()
    return F.cross_entropy(h @ v + u, y)


def single(x: Tensor, y: Tensor, c: Tensor, w: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return F.cross_entropy((c[x] @ w).tanh() @ v + u, y)


def used_again(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    e = c[x].view(x.shape[0], -1)
    return F.cross_entropy((e @ w + b).tanh() @ v + u, y) + 0.1 * e.square().mean()


def normalised(x: Tensor, y: Tensor, c: Tensor, w: Tensor, g: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = F.batch_norm(c[x].view(x.shape[0], -1) @ w, None, None, g, b, True).tanh()
    return F.cross_entropy(h @ v + u, y)


def quiet(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = (c[x].view(x.shape[0], -1) @ w + b).tanh()
    return F.cross_entropy(h @ v + u, y) + h.abs().mean()


def layers(count: int) -> Forward:
    """So many layers, each with parameters of its own."""
    names = [f"{p}{k}" for k in range(count) for p in "wb"]
    text = [f"def stack(x, y, {', '.join(names)}, v, u):", "    h = x"]
    text += [f"    h = (h @ w{k} + b{k}).tanh()" for k in range(count)]
    scope: dict[str, Forward] = {"F": F}  # pyright: ignore[reportAssignmentType]
    exec("\n".join([*text, "    return F.mse_loss(h @ v + u, y)"]), scope)
    return scope["stack"]


def given(forward: Forward, dtype: torch.dtype) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Parameters and data of the forwards of words."""
    g = Generator().manual_seed(3)
    inner = {single: 10}.get(forward, 30)
    shapes = {"c": (SYMBOLS, 10), "w": (inner, 47), "g": (47,), "b": (47,), "v": (47, SYMBOLS), "u": (SYMBOLS,)}
    wanted = forward.__code__.co_varnames[2 : forward.__code__.co_argcount]
    params = {k: torch.randn(shapes[k], generator=g, dtype=dtype) for k in wanted}
    places = () if forward is single else (3,)
    x, y = torch.randint(0, SYMBOLS, (N, *places), generator=g), torch.randint(0, SYMBOLS, (N,), generator=g)
    return params, (x, y)


FORMS: dict[Forward, tuple[str, ...]] = {
    words: ("in the order (1, 0)", "seen as (3, 10, 47)", "times 2", "u (27,), in v_u[48, :27] of (64, 32)"),
    decayed: ("times 2",),
    one_place: ("v_u[47, :27]",),
    single: ("c (27, 10), its dimensions in the order (1, 0)", "times 2", "v_u[48, :27]"),
    used_again: ("times 2", "v_u[48, :27]"),
    normalised: ("seen as (3, 10, 47)", "g (47,), times 2", "b (47,), times 2, in b[:47] of (48,)", "v_u[48, :27]"),
    quiet: ("seen as (3, 10, 47)", "times 2"),
}
"""What is to be found in the file for each."""


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("forward", list(FORMS), ids=lambda f: f.__name__)
def test_the_steps_are_those_of_single_steps(
    forward: Forward, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, with the columns of products counted in blocks as they are for float32."""
    monkeypatch.setitem(cost.BLOCK, 8, cost.BLOCK[4])
    params, data = given(forward, torch.float64)
    program = codegen.generate(forward, *[d[:32] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=32, lr=0.05, momentum=momentum)
    generator = Generator().manual_seed(4)
    losses = torch.cat([trainer.run(data, steps=n, generator=generator) for n in (30, 20)])
    assert trainer.path == "the emitted loop"
    expected, after = stepwise(program, params, data, 32, 50, 0.05, momentum, Generator().manual_seed(4))
    assert torch.allclose(losses, expected, rtol=1e-10, atol=0)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-9, atol=1e-11) for k, v in after.items())
    assert all(form in trainer.source for form in FORMS[forward])


@pytest.mark.parametrize("count", [3, 60])
def test_multiples_are_carried_through_any_number_of_layers(count: int) -> None:
    """Every layer doubles what is passed back; from time to time that is multiplied out."""
    g = Generator().manual_seed(1)
    params = {
        f"{p}{k}": torch.randn((32, 32) if p == "w" else (32,), generator=g) / 6 for k in range(count) for p in "wb"
    }
    params |= {"v": torch.randn(32, 2, generator=g), "u": torch.randn(2, generator=g)}
    data = (torch.randn(N, 32, generator=g), torch.randn(N, 2, generator=g))
    program = codegen.generate(layers(count), *[d[:32] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=32, lr=0.05)
    losses = trainer.run(data, steps=20, generator=Generator().manual_seed(4))
    expected, after = stepwise(program, params, data, 32, 20, 0.05, 0.0, Generator().manual_seed(4))
    assert torch.allclose(losses, expected, rtol=1e-10, atol=0)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-9, atol=1e-11) for k, v in after.items())
    assert "times 2" in trainer.source
    assert ("e-08" in trainer.source) is (count == 60)


@pytest.mark.parametrize("which", [0, 1])
def test_a_symbol_that_there_is_not_is_an_error(which: int) -> None:
    """Spare columns are no symbols."""
    torch.set_default_dtype(torch.float32)
    params, data = given(words, torch.float32)
    program = codegen.generate(words, *[d[:32] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=32)
    wrong = [d.clone() for d in data]
    wrong[which][5:] = SYMBOLS
    trainer.run(data, steps=2)
    assert "of (10, 32)" in trainer.source
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        trainer.run(wrong, steps=50)


def wide(x: Tensor, y: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = F.relu(x @ w + b)
    return F.cross_entropy(h @ v + u, y)


def test_what_is_flat_proves_nothing() -> None:
    """With many inputs a softmax of random logits is one-hot, and spare columns of zeros would seem to change nothing."""
    torch.set_default_dtype(torch.float32)
    g = Generator().manual_seed(2)
    shapes = {"w": (400, 64), "b": (64,), "v": (64, 10), "u": (10,)}
    params = {k: torch.randn(s, generator=g) / 8 for k, s in shapes.items()}
    data = (torch.randn(N, 400, generator=g) / 20, torch.randint(0, 10, (N,), generator=g))
    program = codegen.generate(wide, *[d[:32] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=32, lr=0.1)
    losses = trainer.run(data, steps=10, generator=Generator().manual_seed(4))
    expected, after = stepwise(program, params, data, 32, 10, 0.1, 0.0, Generator().manual_seed(4))
    assert "v_u[64] = -1e+30" in trainer.source
    assert torch.allclose(losses, expected, rtol=1e-5, atol=0)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-4, atol=1e-6) for k, v in after.items())


def flattened(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = (c[x] @ w + b).tanh() @ v + u
    return F.cross_entropy(h.flatten(0, 1), y.flatten())


def transposed(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return F.cross_entropy(((c[x] @ w + b).tanh() @ v + u).transpose(1, 2), y)


def normed(x: Tensor, y: Tensor, c: Tensor, w: Tensor, b: Tensor, v: Tensor, u: Tensor) -> Tensor:
    h = F.layer_norm(c[x] @ w + b, (w.shape[1],), b.exp(), b)
    return -torch.log_softmax(h.sigmoid() @ v + u, -1).gather(-1, y[..., None]).mean()


@pytest.mark.parametrize("forward", [flattened, transposed, normed], ids=lambda f: f.__name__)
def test_sequences_are_rows(forward: Forward) -> None:
    """Between products everything is a matrix: biases are added by products, targets known for a chunk of steps."""
    g = Generator().manual_seed(3)
    shapes = {"c": (SYMBOLS, 6), "w": (6, 20), "b": (20,), "v": (20, SYMBOLS), "u": (SYMBOLS,)}
    params = {k: torch.randn(s, generator=g) / 3 for k, s in shapes.items()}
    data = tuple(torch.randint(0, SYMBOLS, (N, 5), generator=g) for _ in range(2))
    program = codegen.generate(forward, *[d[:8] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=16, lr=0.05)
    losses = trainer.run(data, steps=12, generator=Generator().manual_seed(4))
    expected, after = stepwise(program, params, data, 16, 12, 0.05, 0.0, Generator().manual_seed(4))
    assert torch.allclose(losses, expected, rtol=1e-10, atol=0)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-9, atol=1e-11) for k, v in after.items())
    assert "bmm" not in trainer.source
    assert "torch.index_select" in trainer.source
    assert "index_put" not in trainer.source


def hostile(x: Tensor, y: Tensor, w: Tensor, v_own: Tensor, v: Tensor, u: Tensor, v_u: Tensor, x_all: Tensor) -> Tensor:
    return F.cross_entropy((x @ w + v_own).tanh() @ v + u, y) + 0.01 * (v_u * x_all).square().sum()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_names_that_the_loop_would_give_to_something_else(momentum: float) -> None:
    torch.set_default_dtype(torch.float32)
    g = Generator().manual_seed(3)
    shapes = {"w": (64, 64), "v_own": (64,), "v": (64, SYMBOLS), "u": (SYMBOLS,), "v_u": (5,), "x_all": (5,)}
    params = {k: torch.randn(s, generator=g) / 8 for k, s in shapes.items()}
    data = (torch.randn(N, 64, generator=g), torch.randint(0, SYMBOLS, (N,), generator=g))
    program = codegen.generate(hostile, *[d[:32] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=32, lr=0.1, momentum=momentum)
    losses = trainer.run(data, steps=8, generator=Generator().manual_seed(4))
    expected, after = stepwise(program, params, data, 32, 8, 0.1, momentum, Generator().manual_seed(4))
    assert trainer.path == "the emitted loop"
    assert torch.allclose(losses, expected, rtol=1e-5, atol=0)
    assert all(torch.allclose(trainer.params[k], v, rtol=1e-4, atol=1e-5) for k, v in after.items())
