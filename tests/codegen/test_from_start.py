"""Places below zero are refused wherever torch refuses them, in both modes and by the training loop; brackets count from the end."""

import pytest
import torch
from torch import Tensor

import codegen
from engine.errors import InputError

F = torch.nn.functional


def embedded(x: Tensor, i: Tensor) -> Tensor:
    return F.embedding(i, x).square().sum()


def embedded_in_rows(x: Tensor, i: Tensor) -> Tensor:
    return F.embedding(i.reshape(2, 2), x).square().sum()


def of_a_vector(x: Tensor, i: Tensor) -> Tensor:
    return x[:, 0].index_select(0, i.reshape(-1)).tanh().sum()


def of_columns(x: Tensor, i: Tensor) -> Tensor:
    return x.index_select(1, i).square().sum()


def one_number(x: Tensor, i: Tensor) -> Tensor:
    return x.index_select(0, i[:1]).square().sum()


def along_rows(x: Tensor, i: Tensor) -> Tensor:
    return x[:4].gather(1, i[:, None]).exp().sum()


def across(x: Tensor, i: Tensor) -> Tensor:
    return x[:, :4].gather(0, i[None, :].expand(2, 4)).exp().sum()


def cross_entropy(x: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(x[:4], i)


def of_pixels(x: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(x[None, :, :4], i[None], reduction="sum")


def without_padding(x: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(x[:4], i, ignore_index=2)


def one_hot(x: Tensor, i: Tensor) -> Tensor:
    return (F.one_hot(i, 5) * x[:4].exp()).square().sum()


def added(x: Tensor, i: Tensor) -> Tensor:
    return torch.zeros(5, 5, dtype=x.dtype).index_add(0, i, x[:4]).square().sum()


def scattered(x: Tensor, i: Tensor) -> Tensor:
    return torch.zeros(4, 5, dtype=x.dtype).scatter_add(1, i[:, None], x[:4, :1]).square().sum()


def both(x: Tensor, i: Tensor) -> Tensor:
    return (x[i] * F.embedding(i, x)).sum()


REFUSING = [
    embedded, embedded_in_rows, of_a_vector, of_columns, one_number, along_rows, across, cross_entropy, of_pixels, without_padding,
    one_hot, added, scattered, both,
]  # fmt: skip


def table() -> Tensor:
    return torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("forward", REFUSING, ids=lambda f: f.__name__)
def test_what_torch_refuses_is_refused(forward: object, mode: str) -> None:
    x, i = table(), torch.tensor([1, 0, 4, 1])
    program = codegen.generate(forward, x, i, mode=mode)
    leaf = x.clone().requires_grad_()
    true = forward(leaf, i)
    out, grads = program.value_and_grad(x, i)
    torch.testing.assert_close(out, true)
    torch.testing.assert_close(grads["x"], torch.autograd.grad(true, leaf)[0])
    for bad in (-1, -5, 5):
        wrong = torch.tensor([bad, 0, 4, 1])
        with pytest.raises((IndexError, RuntimeError)):
            forward(x, wrong)
        with pytest.raises((IndexError, RuntimeError, InputError)):
            program.value_and_grad(x, wrong)


@pytest.mark.parametrize("ignored", [-100, -1, 2])
def test_targets_that_are_left_out_are_no_places(ignored: int) -> None:
    x, i = table(), torch.tensor([1, ignored, 4, ignored])

    def forward(x: Tensor, i: Tensor) -> Tensor:
        return F.cross_entropy(x[:4], i, ignore_index=ignored)

    program = codegen.generate(forward, x, i)
    leaf = x.clone().requires_grad_()
    true = forward(leaf, i)
    out, grads = program.value_and_grad(x, i)
    torch.testing.assert_close(out, true)
    torch.testing.assert_close(grads["x"], torch.autograd.grad(true, leaf)[0])
    with pytest.raises((IndexError, RuntimeError, InputError)):
        program.forward(x, torch.tensor([1, ignored, -2, 3]))


def test_a_target_that_is_left_out_though_the_example_had_none() -> None:
    program = codegen.generate(cross_entropy, table(), torch.tensor([1, 0, 4, 1]))
    with pytest.raises(InputError, match="i holds -100, which cross_entropy at .* ignores; the example held none"):
        program.forward(table(), torch.tensor([1, -100, 4, 1]))


def test_brackets_count_from_the_end() -> None:
    x, i = table(), torch.tensor([1, 0, 4, 1])
    program = codegen.generate(lambda x, i: (x[i] * x[:4]).sum(), x, i)
    torch.testing.assert_close(program.forward(x, i - 5)[0], program.forward(x, i)[0])
    assert "x[i]" in program.source


def test_all_data_of_a_training_loop_are_looked_at() -> None:
    g = torch.Generator().manual_seed(0)
    w, x, y = torch.randn(4, 3, generator=g), torch.randn(30, 4, generator=g), torch.randint(0, 3, (30,), generator=g)

    def forward(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x @ w, y)

    trainer = codegen.generate(forward, w, x[:8], y[:8]).trainer({"w": w}, batch_size=8)
    assert trainer.run((x, y), steps=2).isfinite().all()
    before = trainer.params["w"].clone()
    y[17] = -1
    with pytest.raises(InputError, match="y has places below 0, which cross_entropy at .* refuses"):
        trainer.run((x, y), steps=2)
    torch.testing.assert_close(trainer.params["w"], before)
