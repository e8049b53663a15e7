"""How long 10,000 steps take from the start of the process: `codegen train mlp` against the notebook's own loop as a script.

    python benchmarks/whole_run.py --rounds 5

Both are run in turn; printed are seconds on the clock and of the processor, and the ratio of each pair. With `--threads 0`
torch has as many threads as it takes by itself.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TRAIN = "from codegen.cli import main; main()"
Seconds = tuple[float, float]


def took(command: list[str], folder: str, threads: int) -> Seconds:
    """Seconds of a process, on the clock and of the processor."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, processor


def main(rounds: int, compile: bool, threads: int) -> None:
    """Take turns and print a line for each, then medians of the ratios."""
    pairs: list[tuple[Seconds, Seconds]] = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(rounds):
            emitted = [sys.executable, "-c", TRAIN, "train", "mlp", "--samples", "0", "--out", f"run{k}"]
            emitted += ["--compile"] if compile else []
            by_hand = [sys.executable, str(HERE / "manual_loop.py")]
            pairs.append((took(emitted, folder, threads), took(by_hand, folder, threads)))
            (a, b), (c, d) = pairs[-1]
            print(f"codegen train mlp {a:.2f} s ({b:.2f} s processor), manual_loop.py {c:.2f} s ({d:.2f} s processor)")
    for which, name in ((0, "clock"), (1, "processor")):
        ratios = sorted(ours[which] / theirs[which] for ours, theirs in pairs)
        print(f"ratio, {name}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="hand the steps to torch's compiler")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of both; 0 leaves it unset")
    given = parser.parse_args()
    main(given.rounds, given.compile, given.threads)
