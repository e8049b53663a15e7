"""`python -m tests.fuzz --count 10000`: random forwards in both modes against autograd; exit code 1 at a mismatch.

A mismatch is shrunk by hypothesis and printed as a forward that can be pasted, with the emitted program below it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.compare import MODES, Mismatch, compared
from tests.fuzz.forwards import forwards

if TYPE_CHECKING:
    from tests.codegen.random_forwards import RandomForward


def main() -> int:
    """Run, and print how many passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random forwards against autograd.")
    parser.add_argument("--count", type=int, default=1000, help="forwards to draw")
    parser.add_argument("--steps", type=int, default=6, help="the most lines of a forward")
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    modes = MODES if options.mode == "both" else (options.mode,)
    outcomes: Counter[str] = Counter()
    begin = time.perf_counter()

    @seed(options.seed)
    @settings(
        max_examples=options.count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(forwards(steps=options.steps), st.integers(0, 3))
    def run(drawn: RandomForward, number: int) -> None:
        for mode in modes:
            outcomes[f"{mode} {compared(drawn, mode, number)}"] += 1

    warnings.simplefilter("ignore")
    gc.set_threshold(100_000)  # expressions make garbage at a rate at which the default spends a fifth of the time
    try:
        run()
    except Mismatch as error:
        print(f"a mismatch, shrunk:\n{error}")
        return 1
    finally:
        for outcome, count in outcomes.most_common():
            print(f"{count:>7} {outcome[:200]}")
        print(f"{time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
