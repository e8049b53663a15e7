"""What a mask chooses, `x[mask]`, computed with and put back, against autograd at several sizes and for other values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils import _pytree as pytree

import codegen
from engine import TraceError, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

F = torch.nn.functional
TEN = torch.float64


def added_and_scaled(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> Tensor:
    z = x * 2
    z[x > 0] += 1
    z[m] *= w[0]
    return z.sin()


def written_back(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> Tensor:
    """The mask that is written at is another tensor than the one read at, of the same values."""
    z = x.clone()
    z[z < 0] = z[z < 0].exp() * 0.1
    z[~m] = (z[~m] * x[~m]).sin()
    return z


def rows_of_a_layer(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], 3)
    out[m] = F.relu(x[m] @ w.T + 1, inplace=True)
    out[m, :] += F.linear(x[m], w)
    return out


def in_the_order_of_the_mask(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    z, v = x.clone(), x.sin()
    z[torch.arange(x.shape[0]) > 0] = x[1:] * w[0]
    v[m] = w[:1]
    return z, v


def sums_and_means(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    chosen = x[m]
    of_both = x[x > -5]
    return (
        chosen.mean(), chosen.mean(0), chosen.square().sum(-1).mean(), chosen.softmax(-1)[:, 0].sum(), of_both.sum(),
        chosen.max(), (chosen - chosen.mean(0)).square().mean(), chosen.sum((0, 1), keepdim=True), chosen.unsqueeze(1).mean((0, 2)),
    )  # fmt: skip


def undefined_elsewhere(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    """The logarithms and roots of what is not chosen are nan, and w would get nan times zero."""
    positive = x[x > 0]
    chosen = torch.masked_select(x * w[0], x > 0)
    return (
        positive.log().sum(),
        (positive.sqrt() * w[0, 0]).mean(),
        (1 / x.relu()[x > 0]).sum(),
        F.softplus(chosen).mean(),
    )


def losses(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    other = x.flip(1)
    return (
        F.mse_loss(x[m], other[m]), F.l1_loss(x[m], other[m], reduction="sum"), F.smooth_l1_loss(x[m], other[m], reduction="none").sum(),
        F.binary_cross_entropy_with_logits(x[m], (other[m] > 0).to(x.dtype)), F.gaussian_nll_loss(x[m], other[m], other[m].exp()),
    )  # fmt: skip


def classes(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    """Where y is -1 it is no class."""
    known = y != -1
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=TEN)
    return (
        F.cross_entropy(x[known], y[known]), F.cross_entropy(x[known], y[known], weight=weights, label_smoothing=0.1),
        F.nll_loss(x[known].log_softmax(1), y[known], reduction="sum"), F.cross_entropy(x[known], y[known], reduction="none").sum(),
        w.T[y[known]].tanh().sum(0), x[known].gather(1, y[known][:, None]).mean(),
    )  # fmt: skip


def of_two_dimensions(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    cube = x[:, :, None] * w[:, 0]
    mask = cube.detach()[..., 0] > -0.5
    flat = cube.reshape(-1, 3)[mask.reshape(-1)]
    return cube[mask].norm(dim=-1).mean(), (flat * cube.flatten(0, 1)[mask.reshape(-1)]).sum(0)


def behind_others(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    cube = x.T[:, :, None] * w[0]
    z = cube.clone()
    z[:, m] += 1
    z[:, m, :] = z[:, m].exp() * m.double()[m][:, None]
    last = x.T.clone()
    last[..., m] *= 3
    return cube[:, m].mean(1), cube[:, m].log_softmax(-1).mean((0, 1)), x.T[..., m].sum(-1), z, last


def around_their_mean(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    chosen, both = x[m], x[x > -5]
    return (
        chosen.var(), chosen.var(0, unbiased=False), chosen.std(1).sum(), torch.cat(torch.var_mean(both, keepdim=True)),
        both.std(correction=0), ((chosen - chosen.mean(0)) / (chosen.std(0, False) + 0.1)).pow(3).sum(),
    )  # fmt: skip


def norms(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    chosen = x[m]
    return (
        chosen.norm(),
        chosen.norm(1, 0),
        torch.linalg.vector_norm(x[x > 0], 3),
        chosen.norm(dim=(0, 1)),
        chosen.norm(float("inf")),
    )


def shared_out(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    chosen, of_all = x[m], (100 * x)[x > 0]
    return (
        chosen.logsumexp(0), chosen.logsumexp((0, 1)), (chosen.softmax(0) * chosen.log_softmax(0)).sum(), of_all.logsumexp(0),
        F.softmax(of_all, 0).square().sum(), x.T[:, m].softmax(1).square().sum(), chosen.amax(0), chosen.amin((0, 1)),
    )  # fmt: skip


FORWARDS = (
    around_their_mean, norms, shared_out,
    added_and_scaled, written_back, rows_of_a_layer, in_the_order_of_the_mask, sums_and_means, undefined_elsewhere, losses, classes,
    of_two_dimensions, behind_others,
)  # fmt: skip


def inputs(n: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(*size, dtype=TEN, generator=generator) for size in ((n, 4), (3, 4)))
    y, m = torch.randint(-1, 4, (n,), generator=generator), torch.rand(n, generator=generator) < 0.5
    y[0], m[0], x[0, 0] = 2, True, 0.7
    return [x, w, y, m]


@pytest.mark.sampled("forward")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_a_mask_chooses(forward: Callable[..., Any], mode: str) -> None:
    program = codegen.generate(forward, *inputs(5, 0), mode=mode)
    for n in (5, 3, 8):
        x, w, y, m = inputs(n, n)
        leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        wanted = pytree.tree_leaves(forward(*leaves, y, m))
        seeds = [torch.linspace(-1, 2, o.numel(), dtype=TEN).reshape(o.shape) for o in wanted]
        gradients = torch.autograd.grad(wanted, leaves, seeds, materialize_grads=True)
        out, saved = program.forward(x, w, y, m)
        torch.testing.assert_close(pytree.tree_leaves(out), [o.detach() for o in wanted])
        found = program.backward(saved, seeds[0] if program.graph.single else seeds)
        torch.testing.assert_close((found["x"], found["w"]), gradients)


def test_one_is_chosen() -> None:
    """It is its own mean, and a variance with a correction is 0 / 0."""
    x, _, _, m = inputs(4, 1)
    m = torch.arange(4) == 2
    program = codegen.generate(of_one, x, torch.ones_like(m))
    leaf = x.clone().requires_grad_()
    wanted = of_one(leaf, m)
    out, saved = program.forward(x, m)
    torch.testing.assert_close(out, wanted)
    seeds = [torch.ones(4, dtype=TEN)] * 3
    torch.testing.assert_close(program.backward(saved, seeds)["x"], torch.autograd.grad(wanted, leaf, seeds)[0])
    assert bool(codegen.generate(lambda x, m: x[m].var(0), x, torch.ones_like(m)).forward(x, m)[0].isnan().all())


def of_one(x: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    return x[m].var(0, correction=0), x[m].std(0, correction=0), x[m].logsumexp(0)


def through_a_view(x: Tensor, m: Tensor) -> Tensor:
    chosen = (2 * x)[m]
    chosen.view(-1, 3)[:, 0].add_(1)
    return chosen.square().sum()


def before_a_write(x: Tensor, m: Tensor) -> Tensor:
    chosen = (2 * x)[m]
    first = chosen[:, 0]
    chosen += 1
    return first.square().sum()


@pytest.mark.parametrize("forward", [through_a_view, before_a_write])
def test_what_lies_in_the_same_memory_is_refused_once_one_is_written(forward: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match=r"written through a view of them|x\[mask\] has as many"):
        trace(forward, torch.randn(4, 3), torch.ones(4, dtype=torch.bool))


def test_nothing_is_chosen() -> None:
    program = codegen.generate(sums_of_none, *inputs(4, 0))
    x, w, y, m = inputs(4, 1)
    out, saved = program.forward(x, w, y.clone().fill_(-1), torch.zeros_like(m))
    assert out.item() == 0
    assert all(not g.any() for g in program.backward(saved).values())


def sums_of_none(x: Tensor, w: Tensor, y: Tensor, m: Tensor) -> Tensor:
    return (x[m] @ w.T).sin().sum() + w.T[y[y != -1]].sum() + F.cross_entropy(x[m], y[m], reduction="sum")


@pytest.mark.parametrize(
    "counted",
    [
        lambda x, m: x[m],
        lambda x, m: x[m].sum() / x[m].shape[0],
        lambda x, m: x[m].sum() / len(x[m]),
        lambda x, m: x[m] @ x[m].T,
        lambda x, m: x[m].cumsum(0).sum(),
        lambda x, m: x[m].triu().sum(),
        lambda x, m: x[m].median(),
        lambda x, m: x[m].norm(-1),
        lambda x, m: x[m].flip(0).sum(),
        lambda x, m: (x[m] * x).sum(),
        lambda x, m: (x[m] * torch.arange(x.shape[0])[:, None]).sum(),
        lambda x, m: (x[m] + x[~m]).sum(),
        lambda x, m: x[m][0].sum(),
        lambda x, m: x[m].reshape(-1).sum(),
        lambda x, m: torch.cat([x[m], x[~m]]).sum(),
        lambda x, m: F.dropout(x[m]).sum(),
        lambda x, m: x[:, m[:3]].sum(0).sum(),
        lambda x, m: x[:2, m[:3]].sum(),
        lambda x, m: x.clone().index_put_((m,), x[x[:, 0] > 0]),
    ],
)
def test_what_asks_how_many_are_chosen_is_refused(counted: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match=r" at test_selected\.py:\d+|tests/codegen/test_selected.py:\d+") as error:
        trace(counted, torch.randn(4, 3), torch.ones(4, dtype=torch.bool))
    assert "torch.where" in str(error.value)
