"""What a forward returns around its tensors comes back, also where it is a class of the forward's own."""

from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import codegen
from engine import TraceError, trace


@dataclass(frozen=True)
class Inner:
    """A tensor, and what is none."""

    loss: Tensor
    label: str
    weight: Tensor | None = None


@dataclass(slots=True)
class Outer:
    """Tensors at two depths."""

    scores: Tensor
    inner: Inner


class Pair(NamedTuple):
    """The same in a tuple."""

    outer: Outer
    x: Tensor


@dataclass
class Computed:
    """A field that no argument gives."""

    loss: Tensor
    twice: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.loss


def of_classes(x: Tensor) -> Pair:
    return Pair(Outer(x.sin(), Inner(x.cos().sum(), "label")), x * 2)


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_dataclasses_and_named_tuples(mode: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    program = codegen.generate(of_classes, x, mode=mode)
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    out = program.function(x)
    assert isinstance(out, Pair)
    assert isinstance(out.outer, Outer)
    assert (out.outer.inner.label, out.outer.inner.weight) == ("label", None)
    torch.testing.assert_close((out.outer.scores, out.outer.inner.loss, out.x), (x.sin(), x.cos().sum(), x * 2))
    (found,) = torch.autograd.grad(out.outer.scores.sum() + 3 * out.outer.inner.loss + out.x.sum(), x)
    torch.testing.assert_close(found, x.cos() - 3 * x.sin() + 2)
    _, saved = program.forward(x.detach())
    seeds = Pair(Outer(torch.ones_like(x), Inner(torch.full((), 3.0, dtype=x.dtype), "label")), torch.ones_like(x))
    torch.testing.assert_close(program.backward(saved, seeds)["x"], found)


def test_what_cannot_be_made_again_is_refused() -> None:
    with pytest.raises(TraceError, match="returned Computed"):
        trace(lambda x: Computed(x.sum()), torch.ones(3))
