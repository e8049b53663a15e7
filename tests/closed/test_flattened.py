"""Rows that are flattened beside targets of other sizes: a fixed length of a text, a batch shaped in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES, CLASSES, BATCH = 4, 5, 8


def beside_places(z: Any, y: Any) -> Any:
    z = z + torch.arange(PLACES)[:, None]
    return F.cross_entropy(z.view(-1, CLASSES), y.view(-1))


def of_a_batch(z: Any, y: Any) -> Any:
    return F.cross_entropy(z.view(-1, CLASSES), y.view(-1))


def causal(x: Any, y: Any) -> Any:
    unseen = torch.tril(torch.ones(PLACES, PLACES)) == 0
    shares = (x @ x.mT).masked_fill(unseen, float("-inf")).softmax(-1)
    return F.cross_entropy((shares @ x).view(-1, CLASSES), y.view(-1))


def soft_targets(z: Any, y: Any) -> Any:
    z = z + torch.arange(PLACES)[:, None]
    return -(y.view(-1, CLASSES) * z.view(-1, CLASSES).log_softmax(1)).sum()


def squares(z: Any, y: Any) -> Any:
    z = z + torch.arange(PLACES)[:, None]
    return F.mse_loss(z.view(-1), y.view(-1))


def classes(*shape: int) -> torch.Tensor:
    return torch.randint(0, CLASSES, shape, generator=torch.Generator().manual_seed(1))


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


CASES: list[tuple[Callable[..., Any], torch.Tensor]] = [
    (beside_places, classes(BATCH, PLACES)),
    (beside_places, classes(2 * BATCH, PLACES // 2)),
    (of_a_batch, classes(2 * BATCH, PLACES // 2)),
    (of_a_batch, classes(2, BATCH, PLACES // 2)),
    (causal, classes(BATCH, PLACES)),
    (soft_targets, numbers(BATCH, PLACES, CLASSES)),
    (soft_targets, numbers(2 * BATCH, PLACES // 2, CLASSES)),
    (squares, numbers(2 * BATCH, PLACES // 2 * CLASSES)),
]


@pytest.mark.parametrize(("forward", "y"), CASES, ids=[f"{f.__name__} {tuple(y.shape)}" for f, y in CASES])
def test_gradients_are_those_of_autograd_where_exponentials_overflow(
    forward: Callable[..., Any], y: torch.Tensor
) -> None:
    program = codegen.generate(forward, numbers(BATCH, PLACES, CLASSES), y)
    name = next(iter(program.graph.inputs))
    for scale in (1.0, 1e3):
        given = numbers(BATCH, PLACES, CLASSES) * scale
        leaf = given.clone().requires_grad_()
        true = forward(leaf, y)
        out, grads = program.value_and_grad(given, y)
        torch.testing.assert_close(out, true.detach())
        torch.testing.assert_close(grads[name], torch.autograd.grad(true, leaf)[0], rtol=1e-9, atol=1e-12)


def test_what_is_read_has_one_size() -> None:
    for forward, y in CASES[:3]:
        text = codegen.generate(forward, numbers(BATCH, PLACES, CLASSES), y).source
        assert "softmax" in text
        assert ".exp().sum(" not in text
        assert "[:4 * n0]" not in text


def test_other_sizes_are_refused() -> None:
    program = codegen.generate(beside_places, numbers(BATCH, PLACES, CLASSES), classes(BATCH, PLACES))
    taken = numbers(3, PLACES, CLASSES), classes(PLACES, 3)
    torch.testing.assert_close(program.value_and_grad(*taken)[0], beside_places(*taken))
    with pytest.raises(ValueError, match="the forward fixed"):
        program.value_and_grad(numbers(3, PLACES, CLASSES), classes(PLACES, 4))
