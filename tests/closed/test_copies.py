"""Tensors of equal values that differ in what is detached: one is computed, and each passes back what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import codegen
from tests.closed.forms.counter import count
from tests.closed.trail import gaps_of

if TYPE_CHECKING:
    from collections.abc import Callable


def codebook(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The two losses of van den Oord et al., Neural discrete representation learning, 2017."""
    return ((c - z.detach()) ** 2).mean() + 0.25 * ((c.detach() - z) ** 2).mean()


def balanced_divergence(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The divergence of Hafner et al., Mastering Atari with discrete world models, 2021, with either side held."""
    p, q = torch.log_softmax(z, 1), torch.log_softmax(c, 1)

    def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p.exp() * (p - q)).sum(1).mean()

    return 0.8 * divergence(p.detach(), q) + 0.2 * divergence(p, q.detach())


def gated_twice(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """A gate whose argument is held on one of two ways."""
    return torch.tanh(z * c) * z + torch.tanh(z.detach() * c)


def straight_through(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """What is added and taken away again, once held: the values are those of c, and z gets a gradient all the same."""
    return (c - z.detach() + z).tanh()


def viewed_twice(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The same view is taken twice, and each is held once."""
    first, second = z.flatten(), z.flatten()
    return (1 + (first * first.detach()).square()).log().sum() + (second * second.detach()).cos().sum() * c


FORWARDS = (codebook, balanced_divergence, gated_twice, straight_through, viewed_twice)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_gradients_are_those_of_autograd(forward: Callable[..., torch.Tensor]) -> None:
    z, c = (torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    program = codegen.generate(forward, z, c)
    out, grads = program.value_and_grad(z, c)
    leaves = [t.clone().requires_grad_() for t in (z, c)]
    expected = forward(*leaves)
    torch.testing.assert_close(out, expected.detach())
    true = torch.autograd.grad(expected.sum(), leaves)
    for name, t in zip(("z", "c"), true, strict=True):
        torch.testing.assert_close(grads[name], t)
    assert gaps_of(program) == []


@pytest.mark.parametrize(
    ("forward", "op", "times"),
    [(codebook, "pow", 1), (balanced_divergence, "mean", 1), (gated_twice, "tanh", 1), (straight_through, "tanh", 1)],
)
def test_they_are_computed_once(forward: Callable[..., torch.Tensor], op: str, times: int) -> None:
    z, c = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    program = codegen.generate(forward, z, c)
    log = count(lambda: program.forward(z, c)).log
    assert [name for name, _ in log].count(op) == times


def commitment(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The codebook's two losses, of which one has the opposite sign inside of the square."""
    return ((c - z.detach()) ** 2).mean() + 0.25 * ((z - c.detach()) ** 2).mean()


def test_what_is_the_opposite_of_another_is_read_with_a_minus() -> None:
    z, c = torch.randn(5, 7), torch.randn(5, 7)
    program = codegen.generate(commitment, z, c)
    assert program.source.count(" - z") + program.source.count(" - c") == 1
    assert codegen.check(program, z.double(), c.double()).ok


def test_what_is_added_and_taken_away_again_is_left_out() -> None:
    z, c = torch.randn(5, 7), torch.randn(5, 7)
    program = codegen.generate(straight_through, z, c)
    forward = program.source[program.source.index("def forward") : program.source.index("def backward")]
    assert "c.tanh()" in forward
    assert "+ z" not in forward


def test_what_is_read_as_another_tensor_is_held_to_its_values() -> None:
    """The detached tensor of another one is none of its twins."""

    def forward(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return ((z - c.detach()) ** 2).mean() + ((z - z.detach() * 2) ** 2).mean()

    z, c = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    program = codegen.generate(forward, z, c)
    torch.testing.assert_close(program.forward(z, c)[0], forward(z, c))


def test_what_whole_numbers_say_twice_is_compared_once() -> None:
    """The truth values are kept; what is made anew takes its dtype from floats all the same."""
    y = torch.tensor([0, 2, 1, 2, 2])

    def largest(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(y == 2, torch.zeros((), dtype=x.dtype), x.max(1).values).sum()

    def held(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (torch.where(y == 2, x.sum(1), (x**2).sum(1)) ** 2).sum()

    x = torch.randn(5, 7, dtype=torch.float64)
    for forward in (largest, held):
        program = codegen.generate(forward, x, y)
        grads = program.value_and_grad(x, y)[1]
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf, y), leaf)
        torch.testing.assert_close(grads["x"], true)
        assert gaps_of(program) == []
        assert program.source[: program.source.index("class ")].count("y == 2") == 1


WITHOUT_GRADIENT: dict[str, Any] = {
    "turned": lambda t: t.T,
    "a part": lambda t: t[:1],
    "a copy": lambda t: t.clone(),
    "negated": lambda t: -t,
    "a multiple": lambda t: t * 1,
    "the same again": lambda t: t.sin(),
    "the largest": lambda t: t.max(),
    "the largest of rows": lambda t: t.max(0, keepdim=True).values,
    "a product with ones on the diagonal": lambda t: t @ torch.eye(t.shape[-1], dtype=t.dtype),
    "two calls": lambda t: (t.T * 1).T,
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_what_is_computed_without_gradient_passes_none_back(name: str, mode: str, size: int) -> None:
    """Also where its definition is another tensor, of which a gradient is asked for."""

    def forward(x: torch.Tensor) -> Any:
        t = x.exp()
        with torch.no_grad():
            m = WITHOUT_GRADIENT[name](t)
        return (t * m).sum() + (t.sin() * x).sum(), m

    x = torch.randn(size, size, dtype=torch.float64)
    program = codegen.generate(forward, x, mode=mode)
    (out, m), saved = program.forward(x)
    leaf = x.clone().requires_grad_()
    wanted, kept = forward(leaf)
    torch.testing.assert_close((out, m), (wanted.detach(), kept))
    found = program.backward(saved, (torch.ones_like(out), torch.ones_like(m)))["x"]
    torch.testing.assert_close(found, torch.autograd.grad(wanted, leaf)[0])


GIVEN_BACK: dict[str, Any] = {
    "contiguous": lambda t: t.contiguous(),
    "to": lambda t: t.to(torch.float64),
    "double": lambda t: t.double(),
    "the same type": lambda t: t.type_as(t),
    "flattened": lambda t: t.flatten(1),
    "plus": lambda t: +t,
    "turned and laid out": lambda t: t.T.contiguous().T,
    "rounded to another type": lambda t: t.float().double(),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", GIVEN_BACK)
def test_what_torch_gives_back_itself_keeps_its_gradient_under_no_grad(name: str, mode: str) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        t = x.exp()
        with torch.no_grad():
            m = GIVEN_BACK[name](t)
        return (t * m).sum()

    x = torch.randn(3, 2, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    found = codegen.generate(forward, x, mode=mode).value_and_grad(x)[1]["x"]
    torch.testing.assert_close(found, torch.autograd.grad(forward(leaf), leaf)[0])
