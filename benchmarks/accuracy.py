"""How accurate the closed backwards are: float32 errors of emitted code and of autograd against the truth, at offsets.

    python benchmarks/accuracy.py [EXAMPLE...] [--dtype float32|float64] [--digits N] [--samples N] [--draws N]

Every bundled example's first floating-point input is moved by 0, 10, 100 and 1000. The truth is a complex step through the index
notation (no autograd, no derivation), by default in longdoubles, with `--digits 50` by mpmath. An error is the largest at the
sampled entries over the gradient's largest entry, and the median over several draws of the inputs: one error is large or small
by luck. A ratio below 1 says that the emitted code is nearer to the truth.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

import codegen
from codegen.build import default_targets
from codegen.cli.checking import DTYPES
from codegen.inputs import example_inputs
from codegen.targets import load_target

if TYPE_CHECKING:
    from codegen.program import Program

OFFSETS = (0.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Accuracy:
    """The largest errors of an example's gradients at one offset, ours and autograd's, and every gradient's ratio."""

    example: str
    offset: float
    ours: float
    autograd: float
    ratios: tuple[float, ...]


def measured(
    program: Program, draws: list[dict[str, torch.Tensor]], offset: float, digits: int | None, samples: int
) -> Accuracy:
    """One example at one offset, in closed mode."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    first = next(n for n, t in draws[0].items() if t.is_floating_point())
    for k, inputs in enumerate(draws):
        moved = {**inputs, first: inputs[first] + offset}
        for r in codegen.check(program, *moved.values(), digits=digits, samples=samples, seed=k).rows:
            if r.error is not None and r.autograd_error is not None:
                pairs.setdefault(r.name, []).append((r.error, r.autograd_error))
    middle = [(median(a for a, _ in p), median(b for _, b in p)) for p in pairs.values()]
    floor = (
        torch.finfo(draws[0][first].dtype).eps / 4
    )  # errors below a quarter of a unit are the rounding of the result itself
    ratios = tuple(max(a, floor) / max(b, floor) for a, b in middle if b != float("inf"))
    ours, theirs = (max((m[k] for m in middle), default=0.0) for k in (0, 1))
    return Accuracy(program.graph.name, offset, ours, theirs, ratios)


def main() -> int:
    """Print a row per example and offset."""
    parser = argparse.ArgumentParser(description="Errors of the closed backwards and of autograd.")
    parser.add_argument("examples", nargs="*", help="bundled examples, all of them by default")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--digits", type=int, default=None, help="decimal digits of the truth, by mpmath")
    parser.add_argument("--samples", type=int, default=32, help="entries of a gradient at which the truth is evaluated")
    parser.add_argument("--draws", type=int, default=5, help="inputs that errors are the median over")
    given = parser.parse_args()
    print(f"{'example':<24} {'offset':>6} {'ours':>9} {'autograd':>9} {'ratio':>7} {'median ratio of gradients':>26}")
    every: list[float] = []
    for name in given.examples or default_targets():
        target = load_target(name)
        program = codegen.generate(target.forward, *example_inputs(target, torch.float32).values(), mode="closed")
        draws = [example_inputs(target, DTYPES[given.dtype], seed) for seed in range(given.draws)]
        for offset in OFFSETS:
            a = measured(program, draws, offset, given.digits, given.samples)
            every += a.ratios
            ratio = a.ours / a.autograd if a.autograd else 1.0
            middle = f"{median(a.ratios):.2f}" if a.ratios else ""
            print(f"{name:<24} {offset:>6g} {a.ours:>9.1e} {a.autograd:>9.1e} {ratio:>7.2f} {middle:>26}", flush=True)
    better = sum(r < 1 for r in every)
    print(
        f"{len(every)} gradients: {better} nearer than autograd, {sum(r == 1 for r in every)} as near; median ratio {median(every):.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
