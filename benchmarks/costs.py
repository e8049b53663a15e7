"""The constants of `codegen/loop/cost.py`, measured on this machine: `python benchmarks/costs.py`.

Every call is timed (the least of many runs, one thread) on float32 matrices of three sizes: a small one, where calling is
all there is, one that fits into the second-level cache, and one that fits into no cache. From the first comes the fixed
part, from the others memory and arithmetic. Beside each stands what `cost.py` has; only ratios of them decide anything.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from codegen.loop import cost

SIZES = {"small": (8, 32), "narrow": (4096, 32), "cached": (256, 512), "large": (8192, 2048)}
ROWS = {rows: torch.ones(rows, 1) for rows, _ in SIZES.values()}
SIDE = 512
OPERANDS = {
    "div": 3,
    "native_batch_norm_backward": 3,
    "native_layer_norm_backward": 3,
    "mean": 1,
    "sum": 1,
    "logsumexp": 1,
}
"""How many matrices a call reads and writes, where it is not one each."""
Call = Callable[[Tensor, Tensor, Tensor, Tensor], object]
backward = torch.ops.aten.native_batch_norm_backward.default
backward_of_rows = torch.ops.aten.native_layer_norm_backward.default

CALLS: dict[str, Call] = {
    "exp": lambda x, y, v, out: torch.exp(x, out=out),
    "log": lambda x, y, v, out: torch.log(y, out=out),
    "tanh": lambda x, y, v, out: torch.tanh(x, out=out),
    "sigmoid": lambda x, y, v, out: torch.sigmoid(x, out=out),
    "sqrt": lambda x, y, v, out: torch.sqrt(y, out=out),
    "div": lambda x, y, v, out: torch.div(x, y, out=out),
    "_softmax": lambda x, y, v, out: torch.softmax(x, 1, out=out),
    "_log_softmax": lambda x, y, v, out: torch.log_softmax(x, 1, out=out),
    "logsumexp": lambda x, y, v, out: torch.logsumexp(x, 1),
    "mean": lambda x, y, v, out: torch.mean(x, 0),
    "sum": lambda x, y, v, out: torch.sum(x, 0),
    "native_batch_norm": lambda x, y, v, out: torch.native_batch_norm(x, v, v, None, None, True, 0.0, 1e-5, out=(out, v.clone(), v.clone())),
    "native_batch_norm_backward": lambda x, y, v, out: backward(x, y, v, None, None, v, v, True, 1e-5, [True, True, True]),
    "native_layer_norm": lambda x, y, v, out: torch.native_layer_norm(x, v.shape, v, v, 1e-5),
    "native_layer_norm_backward": lambda x, y, v, out: backward_of_rows(y, x, v.shape, ROWS[len(x)], ROWS[len(x)], v, v, [True, True, True]),
}  # fmt: skip


def least(call: Callable[[], object], seconds: float = 0.2) -> float:
    """Microseconds of the quickest run."""
    call()
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < seconds:
        started = time.perf_counter()
        for _ in range(3):
            call()
        best = min(best, (time.perf_counter() - started) / 3)
    return best * 1e6


def tensors(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two matrices, the second of positive numbers, a vector of ones, and memory for a result."""
    return torch.randn(size), torch.rand(size) + 0.5, torch.ones(size[1]), torch.empty(size)


def main() -> None:
    """Print a line for every constant: measured, and as it is."""
    torch.set_num_threads(1)
    print(f"{'constant':42}{'measured':>10}{'cost.py':>10}")

    def line(name: str, measured: float, now: float) -> None:
        print(f"{name:42}{measured:10.2f}{now:10.2f}")

    with torch.inference_mode():
        given = {k: tensors(size) for k, size in SIZES.items()}

        def timed(call: Call, size: str) -> float:
            return least(lambda: call(*given[size]))

        sub = {k: timed(lambda x, y, v, out: torch.sub(x, y, out=out), k) for k in SIZES}
        moved = {k: 3 * 4 * a * b for k, (a, b) in SIZES.items()}
        line("a call, us", sub["small"], cost.CALL)
        cached = moved["cached"] / (sub["cached"] - sub["small"])
        line("bytes a us, in the cache", cached, cost.CACHE)
        line("bytes a us, beyond it", moved["large"] / (sub["large"] - sub["small"]), cost.MEMORY)
        for dtype in (torch.float32, torch.float64):
            took = product(dtype)
            line(f"operations of a product a us, {dtype}", 2 * SIDE**3 / took, cost.FLOPS[dtype.itemsize])
        elements = SIZES["cached"][0] * SIZES["cached"][1]
        for name, call in CALLS.items():
            small, large = timed(call, "small"), timed(call, "cached")
            through = OPERANDS.get(name, 2) * 4 * elements / cached
            line(f"{name}: beyond a call, us", max(0.0, small - sub["small"]), cost.FIXED.get(name, 0.0))
            each = max(0.0, (large - small - through) / elements * 1e3)
            line(f"{name}: beyond memory, ns an element", each, cost.EXTRA.get(name, 0.0))
            if (name, 4) in cost.EACH:
                narrow = timed(call, "narrow") - large
                line(f"{name}: a row, us", narrow / SIZES["narrow"][0], cost.EACH[name, 4])


def product(dtype: torch.dtype) -> float:
    """Microseconds of a product of square matrices."""
    a, b, out = (torch.randn(SIDE, SIDE, dtype=dtype) for _ in range(3))
    return least(lambda: torch.mm(a, b, out=out))


if __name__ == "__main__":
    main()
