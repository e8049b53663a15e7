"""How many threads a run gets: one for small work, torch's own number for large, and whatever somebody has chosen."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from codegen.train.state import Training
from codegen.train.threads import CHOSEN, fitting_threads, largest_work


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which torch has two threads, and nobody has said so."""
    before = torch.get_num_threads()
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def training(forward: Callable[..., Tensor], width: int, batch: int = 32) -> Training:
    """What of a run matters here."""
    split = SimpleNamespace(x=torch.randn(batch, width), y=torch.randn(batch))
    return cast(
        "Training",
        SimpleNamespace(
            dataset=SimpleNamespace(train=split),
            settings=SimpleNamespace(batch=batch),
            trainer=SimpleNamespace(params={"w": torch.randn(width, width)}),
            recipe=SimpleNamespace(forward=forward),
            dtype=torch.float32,
        ),
    )


def product(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return ((x @ w).sum(1) - y).square().mean()


def linear(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (torch.nn.functional.linear(x, w, y[:1].expand(w.shape[0])).sum(1) - y).square().mean()


def einsum(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (torch.einsum("ij,jk->ik", x, w).sum(1) - y).square().mean()


def outer(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (x[:, :, None] * w).mean() * y.mean()


@pytest.mark.parametrize("forward", [product, linear, einsum])
def test_multiply_adds_of_a_product(forward: Callable[..., Tensor]) -> None:
    assert largest_work(training(forward, width=200)) == pytest.approx(32 * 200 * 200)


@pytest.mark.parametrize("forward", [product, linear, einsum, outer])
@pytest.mark.parametrize(("width", "batch", "threads"), [(20, 32, 1), (600, 64, 2)])
def test_small_work_has_one_thread(forward: Callable[..., Tensor], width: int, batch: int, threads: int) -> None:
    with fitting_threads(training(forward, width, batch)) as given:
        assert (given, torch.get_num_threads()) == (threads, threads)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", CHOSEN)
def test_what_was_chosen_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with fitting_threads(training(product, width=20)) as given:
        assert given == torch.get_num_threads() == 2


def test_a_forward_that_fails_is_left_to_its_first_step() -> None:
    def failing(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        raise ValueError("no")

    with fitting_threads(training(failing, width=20)) as given:
        assert given == 2


def test_it_draws_no_random_numbers_of_the_run() -> None:
    def noisy(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return product(x + torch.randn_like(x), y, w)

    run, before = training(noisy, width=20), torch.get_rng_state()
    assert largest_work(run) == 32 * 20 * 20
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command_says_how_many(train: Callable[..., Any]) -> None:
    result = train("--steps", 2)
    assert result.code == 0
    assert "by one step at a time, one thread" in result.out
