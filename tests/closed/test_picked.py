"""Sums that are read at places alone are computed at these places: when, when not, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import codegen
from codegen.closed.regroup.picked import RULE, Picked
from codegen.closed.write.emit import closed_source
from engine.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable


def rand(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def distances(x: Tensor, c: Tensor) -> Tensor:
    return ((x[:, None] - c) ** 2).sum(-1)


def nearest(x: Tensor, c: Tensor) -> Tensor:
    return distances(x, c).min(1).values.mean()


def of_roots(x: Tensor, c: Tensor) -> Tensor:
    return distances(x, c).sqrt().min(1)[0].sin().sum()


def by_parts(x: Tensor, c: Tensor) -> Tensor:
    return ((x * x).sum(1, keepdim=True) - 2 * x @ c.T + (c * c).sum(1)).min(1)[0].sum()


def by_labels(x: Tensor, c: Tensor) -> Tensor:
    labels = torch.arange(x.shape[0]) % c.shape[0]
    return (x @ c.T).gather(1, labels[:, None]).sigmoid().log().mean()


def cosines(x: Tensor, c: Tensor) -> Tensor:
    x, c = x / x.norm(dim=1, keepdim=True), c / c.norm(dim=1, keepdim=True)
    return (1 - (x @ c.T).max(1)[0]).mean()


def other_way(x: Tensor, c: Tensor) -> Tensor:
    return distances(x, c).T.exp().reciprocal().max(1)[0].log().sum()


def batched(x: Tensor, c: Tensor) -> Tensor:
    d = ((x.reshape(-1, 8, x.shape[1])[:, :, None] - c) ** 2).sum(-1)
    return d.min(2)[0].mean()


def both_ways(x: Tensor, c: Tensor) -> Tensor:
    d = distances(x, c)
    return d.min(1)[0].mean() + d.mean()


def result_too(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    d = distances(x, c)
    return d.min(1)[0].mean(), d


def many(x: Tensor, c: Tensor) -> Tensor:
    return distances(x, c).topk(9, largest=False)[0].mean()


def rules(forward: Callable[..., Any], *inputs: Tensor) -> set[str]:
    graph = trace(forward, *inputs)
    _, writer = closed_source(graph, ("x", "c"), "forward")
    return {note.rule for note in writer.structure.notes}


@pytest.mark.parametrize("forward", [nearest, of_roots, by_parts, by_labels, cosines, other_way, batched])
def test_what_is_picked_alone_is_computed_alone(forward: Callable[..., Tensor]) -> None:
    x, c = rand(64, 4), rand(48, 4)
    assert RULE in rules(forward, x, c)
    program = codegen.generate(forward, x, c)
    for rows, centres in ((64, 48), (8, 3), (16, 1)):
        inputs = rand(rows, 4), rand(centres, 4)
        mine, theirs = (f(*inputs) for f in (program.function, forward))
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)
        both = (torch.autograd.grad(out, inputs, create_graph=True) for out in (mine, theirs))
        mine, theirs = (torch.autograd.grad(sum(g.sin().sum() for g in grads), inputs) for grads in both)
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("forward", [both_ways, result_too, many])
def test_what_else_reads_the_whole_or_most_of_it_keeps_it(forward: Callable[..., Any]) -> None:
    x, c = rand(64, 4), rand(48, 4)
    assert RULE not in rules(forward, x, c)


def test_sums_of_more_than_the_whole_keep_it() -> None:
    assert RULE not in rules(nearest, rand(6, 40), rand(5, 40))


def test_no_cotangent_is_as_large_as_all_pairs() -> None:
    program = codegen.generate(nearest, rand(64, 4), rand(48, 4))
    assert "new_zeros((n0, n2))" not in program.source
    assert "x - c[out_indices]" in program.source


@pytest.mark.parametrize("f", [torch.relu, lambda x: torch.log(1 + torch.exp(x)), lambda x: 1 - torch.exp(-x * x)])
def test_slopes_of_the_largest_entries_are_computed_for_these_alone(f: Callable[[Tensor], Tensor]) -> None:
    def forward(x: Tensor) -> Tensor:
        return f(x).max(1).values.sum(0)

    program = codegen.generate(forward, rand(16, 8, 5))
    backward = program.source.partition("def backward")[2].partition("return {")[0]
    made = [line for line in backward.splitlines() if line.strip().startswith("d")]
    assert ["zeros_like(x)" in made[0], "out_indices" in made[1], len(made)] == [True, True, 2], backward
    for x in (rand(16, 8, 5), rand(1, 8, 5)):
        grads = program.backward(program.forward(x)[1])
        torch.testing.assert_close(grads["x"], torch.autograd.grad(forward(x).sum(), x)[0])
    out, grads = program.value_and_grad(1e4 * rand(3, 8, 5))
    assert out.isfinite().all()
    assert grads["x"].isfinite().all()


def test_entries_that_something_else_reads_keep_their_gradient() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x.exp()
        return y.max(1).values.sum() + y.mean()

    x = rand(16, 8, 5)
    program = codegen.generate(forward, x)
    torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], torch.autograd.grad(forward(x), x)[0])


def test_a_wrong_twin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Picked.twin

    def wrong(self: Picked, c: Any, access: Any, reader: Any) -> Any:
        found = right(self, c, access, reader)
        for key, t in self.twins.items():
            if key[0] == self.whole.name:
                bad = replace(t, expr=2 * t.expr)
                self.cells[next(k for k, x in enumerate(self.cells) if x.name == t.name)] = bad
        return found

    monkeypatch.setattr(Picked, "twin", wrong)
    x, c = rand(64, 4), rand(48, 4)
    assert RULE not in rules(nearest, x, c)
    program = codegen.generate(nearest, x, c)
    torch.testing.assert_close(program.function(x, c), nearest(x, c))


def ordinal(f, theta, y):
    below = torch.sigmoid(theta - f[:, None])
    below = torch.cat([torch.zeros_like(below[:, :1]), below, torch.ones_like(below[:, :1])], 1)
    return torch.log((below[:, 1:] - below[:, :-1])[torch.arange(len(y)), y]).sum()


def test_differences_of_neighbours_are_picked_as_two_entries() -> None:
    """Places may count from the end, as torch has it, and one that is none is refused; the first and the last have one neighbour."""
    f, theta = torch.randn(40, dtype=torch.float64), torch.arange(8, dtype=torch.float64)
    program = codegen.generate(ordinal, f, theta, torch.arange(40) % 9)
    head = program.source[: program.source.index("class ")]
    assert "torch.cat" not in head
    assert "unsqueeze" not in head
    for y in (torch.arange(40) % 9, torch.arange(40) % 9 - 9, torch.full((40,), 8)):
        leaves = [f.clone().requires_grad_(), theta.clone().requires_grad_()]
        out, saved = program.forward(f, theta, y)
        torch.testing.assert_close(out, ordinal(*leaves, y))
        for ours, true in zip(
            program.backward(saved).values(), torch.autograd.grad(ordinal(*leaves, y), leaves), strict=True
        ):
            torch.testing.assert_close(ours, true)
    with pytest.raises(IndexError):
        program.forward(f, theta, torch.full((40,), 9))
