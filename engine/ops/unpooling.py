"""What a max pooling picked, put back where it was picked from: scatters at flat spatial places."""

from __future__ import annotations

from typing import Any

import torch

from engine.table import composite, each_of

F = torch.nn.functional


def put(x: Any, places: Any, sizes: list[Any], spatial: int) -> Any:
    """Zeros of spatial `sizes`, to which every entry of `x` is added at its place."""
    lead = list(x.shape[: x.dim() - spatial])
    count: Any = 1
    for n in sizes:
        count = n * count
    zeros = x.new_zeros([*lead, count])
    return zeros.scatter_add(-1, places.reshape([*lead, -1]), x.reshape([*lead, -1])).reshape([*lead, *sizes])


def unpooled(x: Any, places: Any, kernel: Any, stride: Any, padding: Any, output_size: Any, spatial: int) -> Any:
    """Where windows overlap, a place may be named more than once, by entries that are equal: each has its whole derivative."""
    kernels, strides, paddings = (each_of(v, spatial) for v in (kernel, stride or kernel, padding))
    given = x.shape[x.dim() - spatial :]
    sizes = [(n - 1) * s - 2 * p + k for n, k, s, p in zip(given, kernels, strides, paddings, strict=True)]
    if output_size is not None:
        sizes = list(output_size)[-spatial:]
    total = put(x, places, sizes, spatial)
    if all(s >= k for s, k in zip(strides, kernels, strict=True)):
        return total
    count = put(torch.ones_like(x), places, sizes, spatial)
    return total - (total - total / count.clamp(min=1)).detach()


@composite(targets=(F.max_unpool1d,))
def max_unpool1d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    return unpooled(x, indices, kernel_size, stride, padding, output_size, 1)


@composite(targets=(F.max_unpool2d,))
def max_unpool2d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    return unpooled(x, indices, kernel_size, stride, padding, output_size, 2)


@composite(targets=(F.max_unpool3d,))
def max_unpool3d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    return unpooled(x, indices, kernel_size, stride, padding, output_size, 3)


AMONG_KERNELS = torch.ops.aten.max_pool2d_with_indices_backward


@composite(targets=(AMONG_KERNELS, AMONG_KERNELS.default))
def max_pool2d_with_indices_backward(
    grad_output: Any,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    indices: Any,
) -> Any:
    """torch's own derivative of a max pooling, as an op like any other; of `x` it reads the shape alone."""
    return put(grad_output, indices, list(x.shape[-2:]), 2)
