# pyright: basic
"""What a call costs: a fixed part, memory moved, and arithmetic. In microseconds of one core; only ratios matter.

`python benchmarks/costs.py` measures the constants.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from codegen.loop.graph import VIEWS, Node
from codegen.loop.views import has_channels_last

if TYPE_CHECKING:
    from codegen.loop.graph import Step

CALL = 1.0
CACHE = 90_000.0  # bytes a microsecond while everything fits into the second-level cache
MEMORY = 18_000.0  # beyond it
FITS = 4 << 20
THREE = 3
"""How many values of the size of the largest are to fit: of all calls on values of a size the same, or one more operand would count for more than a call."""
FLOPS = {4: 90_000.0, 8: 45_000.0}  # a microsecond, for matrix products
BLOCK = {4: 16}
"""Columns of a product that are computed together, at four bytes; a rest of more than half of them costs two blocks."""
SCALAR = 0.015
"""What an element of a softmax costs more where a row has less than a block of columns."""
POOLED, BY_PLACE = 0.6e-3, 4.5e-3
"""What an element costs that is pooled, with the channels last in memory and otherwise."""
REORDERED = {"convolution": 0.4e-3, "convolution_backward": 2e-3}
"""What an element of its largest operand costs where a convolution turns them to have the channels last."""
EXTRA = {  # nanoseconds an element beyond reading and writing, at four bytes
    "tanh": 2.4, "exp": 0.7, "log": 0.9, "sigmoid": 0.35, "pow": 0.1, "_softmax": 0.5, "_log_softmax": 0.45, "logsumexp": 1.0,
    "native_batch_norm": 0.3, "native_batch_norm_backward": 0.4, "index": 0.6, "index_put": 2.5, "sqrt": 0.3, "div": 0.0,
    "where": 3.4, "le": 0.4, "gt": 0.4, "lt": 0.4, "ge": 0.4, "threshold_backward": 0.05,
    "native_layer_norm": 0.17, "native_layer_norm_backward": 0.25, "erf": 1.3,
    "softplus": 2.2, "softplus_backward": 0.7, "silu": 0.65, "silu_backward": 0.75, "elu": 1.5, "elu_backward": 0.05, "mish": 4.6,
    "log1p": 1.2, "expm1": 1.3,
}  # fmt: skip
KERNELS = {("gelu", 4): 0.5, ("gelu_backward", 4): 1.3, ("gelu", 8): 19.0, ("gelu_backward", 8): 20.0}
"""The same of calls that are another multiple of it at eight bytes."""
FIXED = {
    "native_batch_norm": 4.5, "native_batch_norm_backward": 4.5, "mean": 3.0, "sum": 1.0, "index_put": 8.0, "index": 4.0, "mm": 1.0, "bmm": 3.0,
    "logsumexp": 6.0, "addmm": 2.0, "mv": 0.1, "native_layer_norm": 1.5, "native_layer_norm_backward": 3.7,
    "threshold_backward": 0.5, "hardtanh_backward": 0.5,
}  # fmt: skip
EACH = {
    ("native_layer_norm", 4): 0.028, ("native_layer_norm", 8): 0.028,
    ("native_layer_norm_backward", 4): 0.008, ("native_layer_norm_backward", 8): 0.045,
}  # fmt: skip
"""Microseconds that a row costs, by the bytes of an element."""
LARGE = 1 << 17
FREE = frozenset(["input", "part", "constant"])


Priced = tuple[Any, Any, float]
"""What a call read when it was priced, and what it costs."""


def price(step: Step, known: dict[Node, Priced] | None = None) -> float:
    """The cost of everything in a step that is not known before it.

    `known` holds what calls cost while only their arguments change, and is filled.
    """
    if known is None:
        return sum(cost(n) for n in step.order)
    total = 0.0
    for n in step.order:
        priced = known.get(n)
        if priced is None or priced[0] is not n.args or priced[1] is not n.kwargs:
            priced = known[n] = (n.args, n.kwargs, cost(n))
        total += priced[2]
    return total


def cost(n: Node) -> float:
    """The cost of one call, in microseconds."""
    if n.op in FREE or n.op in VIEWS or is_data(n):
        return 0.0
    width = n.dtype.itemsize if n.dtype is not None else of_several(n)
    if n.op == "bag":
        values, indices, _ = n.args
        moved = (indices.numel + n.shape[0]) * values.shape[1] * width  # pyright: ignore[reportOptionalMemberAccess]
        return CALL + 8.0 + moved / (1.5 * CACHE) + indices.numel * 0.02
    if n.op in ("index_add", "scatter_add"):
        return at_places(n, width)
    if n.op == "repeated":
        return prod(n.args[1]) * (3 * CALL + n.args[0].numel * 0.5e-3)
    parts = [r.numel for r in n.reads]
    elements = n.numel if n.dtype is not None else max(parts, default=1)
    moved = (sum(parts) + elements) * width
    fits = THREE * max([elements, *parts]) * width < FITS
    time = CALL + FIXED.get(n.op, 0.0) + moved / (CACHE if fits else MEMORY)
    time += EXTRA.get(n.op, 0.0) * max([elements, *parts]) * 1e-3 * (2 if width == 8 else 1)
    if n.kwargs.get("approximate", "none") == "none":
        time += KERNELS.get((n.op, width), 0.0) * elements * 1e-3
    block = BLOCK.get(width, 0)
    if n.op in ("_softmax", "_log_softmax") and n.shape[-1] < block:
        time += elements * SCALAR
    if (n.op, width) in EACH:
        time += n.args[0].shape[0] * EACH[n.op, width]
    if n.op == "native_batch_norm_backward" and max(parts) * 4 > LARGE:
        time += max(parts) * 2.5e-3  # its results are new memory every time
    if n.op == "max_pool2d_with_indices":
        time += n.args[0].numel * (POOLED if has_channels_last(n.args[0]) else BY_PLACE)
    if n.op in REORDERED and not has_channels_last(n.args[0]):
        time += max(parts) * REORDERED[n.op]
    if n.op in ("mm", "addmm", "bmm", "addbmm", "mv", "addmv"):
        time += flops(n) / FLOPS.get(width, 90_000.0)
    return time


def at_places(n: Node, width: int) -> float:
    """Rows that are added at places of a table, which stays where it is: what is paid for is what is added."""
    rows = n.args[3]
    return CALL + 4.0 + 0.006 * rows.shape[0] + rows.numel * 0.25e-3 * (2 if width == 8 else 1)


def of_several(n: Node) -> int:
    """The bytes of an element of the results of a call that has several."""
    return next((r.dtype.itemsize for r in n.reads if r.dtype is not None), 4)


def flops(n: Node) -> float:
    """Multiplications and additions of a matrix product."""
    inner = n.args[-2].shape[-1]  # what a product is added to comes first
    if len(n.shape) < 2:
        return 2.0 * n.numel * inner
    columns = n.shape[-1]
    block = BLOCK.get(n.dtype.itemsize, 1)
    rest = columns % block
    few = rest <= block // 2 and columns > rest
    return 2.0 * n.numel / columns * (columns - rest + (rest if few else 2 * block)) * inner


def is_data(n: Node) -> bool:
    """Whether a node is known before the step: constants and what the batch alone decides."""
    return n.constant is not None or n.op in ("onehot", "counts", "spread", "places", "order", "begins", "turned")
