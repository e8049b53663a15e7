"""How much processor time deriving takes, in this process and after imports: `python benchmarks/derive.py`.

From trace to the emitted text of the notebook's MLP in both modes, and of stacks of 5 and 71 layers of Linear, BatchNorm
and Tanh in closed mode, whose ratio says what a layer more costs.
"""

import statistics
import time
from collections.abc import Callable

import torch

import codegen
from codegen.bench.workloads import stack
from codegen.closed import code
from codegen.steps import lowered
from examples import mlp

ROUNDS = 5


def forget() -> None:
    """Empty what derivations are remembered in, so that every round starts anew."""
    code._codes.clear()  # pyright: ignore[reportPrivateUsage]
    lowered.cache_clear()


def seconds(make: Callable[[], object]) -> float:
    """The median processor time of a few runs."""
    times: list[float] = []
    for _ in range(ROUNDS):
        forget()
        started = time.process_time()
        make()
        times.append(time.process_time() - started)
    return statistics.median(times)


def main() -> None:
    """Print a line for each."""
    inputs = mlp.example_inputs(torch.Generator().manual_seed(0)).values()
    for mode in ("steps", "closed"):
        took = seconds(lambda mode=mode: codegen.generate(mlp.forward, *inputs, mode=mode))
        print(f"MLP, {mode} mode: {took:.2f} s")
    found: dict[int, float] = {}
    torch.set_default_dtype(torch.float64)
    for layers in (5, 71):
        w = stack("", "", layers, 100, 32, torch.float64)
        x, y = (t[:32] for t in w.data())
        found[layers] = seconds(lambda w=w, x=x, y=y: codegen.generate(w.forward, x, y, *w.params.values()))
        print(f"{layers} layers of Linear, BatchNorm and Tanh, closed mode: {found[layers]:.2f} s")
    print(f"ratio {found[71] / found[5]:.1f}")


if __name__ == "__main__":
    main()
