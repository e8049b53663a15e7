"""What is slow on images: pooling place by place, choices by a mask, sums of products of what is the same along rows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen
from tests.loop.conftest import stepwise
from tests.loop.test_loop_trainer import close


def pooled(x: Tensor, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
    h = F.max_pool2d(F.conv2d(x, k, padding=1), 3, 2, 1)
    return F.cross_entropy(h.flatten(1) @ v, y)


def averaged(x: Tensor, y: Tensor, k: Tensor, g: Tensor, b: Tensor, v: Tensor) -> Tensor:
    h = F.batch_norm(F.conv2d(x, k, padding=1), None, None, g, b, training=True)
    return F.cross_entropy(F.relu(h).mean((2, 3)) @ v, y)


def given(channels: int) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    g = Generator().manual_seed(0)
    x, y = torch.randn(60, 2, 8, 8, generator=g), torch.randint(0, 3, (60,), generator=g)
    return {"k": torch.randn(channels, 2, 3, 3, generator=g)}, (x, y)


def trained(forward: Callable[..., Tensor], params: dict[str, Tensor], data: tuple[Tensor, ...]) -> str:
    """The source of a loop whose steps are those of the closed backward."""
    program = codegen.generate(forward, *[d[:16] for d in data], *params.values())
    trainer = program.trainer(params, batch_size=16, lr=0.05)
    losses = trainer.run(data, steps=5, generator=Generator().manual_seed(3))
    expected, after = stepwise(program, params, data, 16, 5, 0.05, 0.0, Generator().manual_seed(3))
    assert close(losses, expected)
    assert all(close(trainer.params[k], v) for k, v in after.items())
    return trainer.source


@pytest.mark.parametrize(("channels", "last"), [(16, True), (3, False)])
def test_many_channels_are_pooled_at_once(channels: int, last: bool) -> None:
    params, data = given(channels)
    params["v"] = torch.randn(channels * 16, 3, generator=Generator().manual_seed(1))
    source = trained(pooled, params, data)
    assert ("clone(memory_format=torch.channels_last)" in source) is last
    assert ("max_pool2d(x with channels last)" in source) is last


def test_ties_are_pooled_to_the_first_of_them() -> None:
    params, (x, y) = given(16)
    params["v"] = torch.randn(16 * 16, 3, generator=Generator().manual_seed(1))
    trained(pooled, params, (x.round() * 0, y))


def test_a_mean_of_what_is_rectified_is_passed_back_without_a_mask() -> None:
    params, data = given(16)
    g = Generator().manual_seed(1)
    params |= {"g": torch.rand(16, generator=g) + 0.5, "b": torch.randn(16, generator=g)}
    params["v"] = torch.randn(16, 3, generator=g)
    source = trained(averaged, params, data)
    assert "torch.where" not in source
    assert "torch.addcmul(" not in source


def twice(x: Tensor, y: Tensor, k: Tensor, b: Tensor, m: Tensor, v: Tensor) -> Tensor:
    h = F.relu(F.conv2d(x, k, b, padding=1))
    h = F.relu(F.conv2d(h, m, stride=2))
    return F.cross_entropy(h.mean((2, 3)) @ v, y)


def along(x: Tensor, y: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
    h = torch.tanh(F.conv1d(x.flatten(2), k, padding=1))
    return F.cross_entropy(F.conv1d(h, m, stride=2).mean(-1) @ v, y)


def test_a_convolution_passes_back_to_both_factors_at_once() -> None:
    params, data = given(8)
    g = Generator().manual_seed(1)
    params |= {"b": torch.randn(8, generator=g), "m": torch.randn(5, 8, 3, 3, generator=g) / 5}
    source = trained(twice, params | {"v": torch.randn(5, 3, generator=g)}, data)
    assert source.count("convolution_backward.default(") == 2
    assert "(True, True, False)" in source
    assert "new_empty" not in source


def test_a_convolution_along_one_axis_is_passed_back_at_once() -> None:
    params, data = given(8)
    g = Generator().manual_seed(1)
    params = {"k": torch.randn(8, 2, 3, generator=g), "m": torch.randn(5, 8, 3, generator=g) / 5}
    source = trained(along, params | {"v": torch.randn(5, 3, generator=g)}, data)
    assert source.count("convolution_backward.default(") == 2
    assert "new_empty" not in source


def test_large_results_of_convolutions_are_changed_in_place() -> None:
    g = Generator().manual_seed(1)
    data = torch.randn(60, 2, 64, 64, generator=g), torch.randint(0, 3, (60,), generator=g)
    params = {
        "k": torch.randn(8, 2, 3, 3, generator=g) / 3, "b": torch.randn(8, generator=g),
        "m": torch.randn(5, 8, 3, 3, generator=g) / 9, "v": torch.randn(5, 3, generator=g),
    }  # fmt: skip
    source = trained(twice, params, data)
    assert "h.clamp_min_(0)" in source
    assert "threshold_backward(dh_conv2d, h, 0, grad_input=dh_conv2d)" in source
    kept = trained(deviating, params, data)  # the first is read after it was changed
    assert "h.clamp_min_(0)" not in kept


def deviating(x: Tensor, y: Tensor, k: Tensor, b: Tensor, m: Tensor, v: Tensor) -> Tensor:
    h = F.conv2d(x, k, b, padding=1)
    z = F.conv2d(F.relu(h), m, stride=2)
    return F.cross_entropy(z.mean((2, 3)) @ v, y) + 0.1 * h.square().mean()


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "by_rows"),
    [(2, None, 0, True), (3, 2, 0, True), ((1, 2), None, 0, True), (2, 3, 0, True), ((3, 2), (2, 1), 0, True),
     (3, 2, 1, False), (5, 1, 0, False)],
)  # fmt: skip
def test_means_of_windows_are_sums_of_rows_and_columns(kernel: Any, stride: Any, padding: int, by_rows: bool) -> None:
    def forward(x: Tensor, y: Tensor, k: Tensor, b: Tensor, v: Tensor) -> Tensor:
        h = F.avg_pool2d(torch.tanh(F.conv2d(x, k, b)), kernel, stride, padding)
        return F.cross_entropy(h.flatten(1) @ v, y)

    params, data = given(3)
    g = Generator().manual_seed(1)
    columns = F.avg_pool2d(torch.zeros(1, 3, 6, 6), kernel, stride, padding).numel()
    params |= {"b": torch.randn(3, generator=g), "v": torch.randn(columns, 3, generator=g)}
    source = trained(forward, params, data)
    assert ("avg_pool2d.default" not in source) is by_rows
    assert (source.count("convolution_backward.default(") == 1) is by_rows


def normalised(x: Tensor, y: Tensor, k: Tensor, g: Tensor, b: Tensor, m: Tensor, c: Tensor, v: Tensor) -> Tensor:
    h = F.relu(F.batch_norm(F.conv2d(x, k, padding=1), None, None, g, b, training=True))
    return F.cross_entropy((F.max_pool2d(h, 3, 2, 1).sum((2, 3)) * c + m.sum()) @ v, y)


def dilated(x: Tensor, y: Tensor, k: Tensor, g: Tensor, b: Tensor, m: Tensor, c: Tensor, v: Tensor) -> Tensor:
    h = torch.tanh(F.conv1d(x.flatten(2), k, b, padding=1) * g[:, None])
    h = h + F.conv1d(h, m, c, padding=2, dilation=2, groups=2) * h.mean(2, keepdim=True)
    return F.cross_entropy(h.amax(2) @ v, y)


def windows(x: Tensor, y: Tensor, k: Tensor, g: Tensor, b: Tensor, m: Tensor, c: Tensor, v: Tensor) -> Tensor:
    h = F.avg_pool2d(torch.tanh(F.conv2d(x, k, b)), 3, 2, 1) * g[:, None, None]
    h = F.conv2d(h, m, c, groups=2) * x.mean((1, 2, 3), keepdim=True)
    return F.cross_entropy(h.flatten(1) @ v, y)


def again(x: Tensor, y: Tensor, k: Tensor, g: Tensor, b: Tensor, m: Tensor, c: Tensor, v: Tensor) -> Tensor:
    h = F.conv2d(x, k, b)
    kept = F.relu(h).mean((2, 3)) * g  # before a convolution reads what is rectified
    return F.cross_entropy((kept + F.conv2d(h, m, c, groups=2).mean((2, 3))) @ v, y)


@pytest.mark.parametrize(
    ("forward", "size", "seen"),
    [
        (normalised, 2, "native_batch_norm"),
        (dilated, 1, "(0, 2), (1, 2), False"),
        (windows, 2, "avg_pool2d_backward"),
        (again, 2, ""),
    ],
)
def test_images_are_rows_of_pixels(forward: Callable[..., Tensor], size: int, seen: str) -> None:
    g = Generator().manual_seed(0)
    shapes = {"k": (8, 2, *[3] * size), "g": (8,), "b": (8,), "m": (8, 4, *[3] * size), "c": (8,), "v": (8, 3)}
    params = {k: torch.randn(*s, generator=g) / max(s) ** 0.5 for k, s in shapes.items()}
    places = 64 if forward is again else 8
    data = torch.randn(60, 2, places, places, generator=g), torch.randint(0, 3, (60,), generator=g)
    short = {k: v.float() for k, v in params.items()}
    program = codegen.generate(forward, data[0][:16].float(), data[1][:16], *short.values())
    trainer = program.trainer(short, batch_size=16, lr=0.05)
    trainer.run((data[0].float(), data[1]), steps=3, generator=Generator().manual_seed(3))
    rounded = {k: v.double() for k, v in short.items()}, (data[0].float().double(), data[1])
    _, after = stepwise(program, *rounded, 16, 3, 0.05, 0.0, Generator().manual_seed(3))
    assert trainer.path == "the emitted loop"
    assert all(torch.allclose(trainer.params[k].double(), v, rtol=1e-4, atol=1e-4) for k, v in after.items())
    assert "permute(0, 3, 1, 2)" in trainer.source  # an image whose channels are last in memory
    assert "clone(" not in trainer.source
    assert seen in trainer.source
