"""How accurate the closed backwards are: float32 errors of emitted code and of autograd against the truth, at offsets.

    python benchmarks/accuracy.py [EXAMPLE...] [--dtype float32|float64] [--digits N] [--samples N]

Every bundled example's first floating-point input is moved by 0, 10, 100 and 1000. The truth is a complex step through the index
notation (no autograd, no derivation), by default in longdoubles, with `--digits 50` by mpmath. An error is the largest at the
sampled entries over the gradient's largest entry. A ratio below 1 says that the emitted code is nearer to the truth.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

import codegen
from codegen.build import default_targets
from codegen.cli.checking import DTYPES
from codegen.inputs import example_inputs
from codegen.targets import load_target

OFFSETS = (0.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Accuracy:
    """The largest errors of an example's gradients at one offset, ours and autograd's, and every gradient's ratio."""

    example: str
    offset: float
    ours: float
    autograd: float
    ratios: tuple[float, ...]


def measured(name: str, dtype: torch.dtype, offset: float, digits: int | None, samples: int) -> Accuracy:
    """One example at one offset, in closed mode."""
    target = load_target(name)
    inputs = example_inputs(target, torch.float32)
    program = codegen.generate(target.forward, *inputs.values(), mode="closed")
    first = next(n for n, t in inputs.items() if t.is_floating_point())
    moved = {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs.items()}
    moved[first] = moved[first] + offset
    report = codegen.check(program, *moved.values(), digits=digits, samples=samples)
    floor = torch.finfo(dtype).eps / 4  # errors below a quarter of a unit are the rounding of the result itself
    pairs = [(r.error, r.autograd_error) for r in report.rows if r.error is not None and r.autograd_error is not None]
    finite = [(a, b) for a, b in pairs if b != float("inf")]
    ratios = tuple(max(a, floor) / max(b, floor) for a, b in finite)
    return Accuracy(
        name, offset, max((a for a, _ in pairs), default=0.0), max((b for _, b in pairs), default=0.0), ratios
    )


def main() -> int:
    """Print a row per example and offset."""
    parser = argparse.ArgumentParser(description="Errors of the closed backwards and of autograd.")
    parser.add_argument("examples", nargs="*", help="bundled examples, all of them by default")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--digits", type=int, default=None, help="decimal digits of the truth, by mpmath")
    parser.add_argument("--samples", type=int, default=32, help="entries of a gradient at which the truth is evaluated")
    given = parser.parse_args()
    print(f"{'example':<24} {'offset':>6} {'ours':>9} {'autograd':>9} {'ratio':>7} {'median ratio of gradients':>26}")
    every: list[float] = []
    for name in given.examples or default_targets():
        for offset in OFFSETS:
            a = measured(name, DTYPES[given.dtype], offset, given.digits, given.samples)
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
