"""Rounds in which every variant takes the same number of steps, one after the other; what counts is the ratio in a round."""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from codegen.bench.variants import VARIANTS, Runner
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from codegen.bench.workloads import Workload


class UnequalError(SymgradError):
    """Variants that do not take the same steps are not compared."""


@dataclass(frozen=True)
class Result:
    """A variant's speed relative to eager: median and quartiles over rounds, and microseconds a step (median).

    `memory` are the most bytes beyond parameters during a step, `ready` the processor time to the end of the first step:
    from the forward's trace for an emitted loop.
    """

    variant: str
    median: float
    low: float
    high: float
    microseconds: float
    memory: float
    ready: float


def race(w: Workload, variants: Sequence[str], rounds: int, seconds: float) -> list[Result]:
    """Alternate variants; `eager` is what the others are relative to.

    Args:
        w: the workload.
        variants: names in VARIANTS, without `eager`.
        rounds: how many.
        seconds: how long eager's part of a round takes, about.

    Raises:
        UnequalError: parameters after a step differ from eager's, that is, gradients do.
    """
    names = ["eager", *[v for v in variants if v != "eager"]]
    made: dict[str, Runner] = {}
    ready: dict[str, float] = {}
    for name in names:
        made[name] = VARIANTS[name](w)
        ready[name] = made[name].made + timed(made[name].run, 1)
    verify(w, {name: r.params for name, r in made.items() if r.params})
    steps = max(1, round(seconds / timed(made["eager"].run, 3) * 3))
    for r in made.values():
        r.run(steps)  # at this number of steps, which decides what is compiled
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            times[name].append(timed(made[name].run, steps))
    memory = {name: peak(made[name].run) + made[name].held() for name in names if name != "jax"}
    return [
        result(name, times[name], times["eager"], steps, memory.get(name, float("nan")), ready[name]) for name in names
    ]


def timed(run: Callable[[int], None], steps: int) -> float:
    """Seconds of processor time for some steps: what else the machine does counts for less than on the clock."""
    started = time.process_time()
    run(steps)
    return time.process_time() - started


def result(name: str, times: list[float], eager: list[float], steps: int, memory: float, ready: float) -> Result:
    """Ratios of one variant."""
    ratios = [e / t for e, t in zip(eager, times, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Result(name, statistics.median(ratios), low, high, statistics.median(times) / steps * 1e6, memory, ready)


def verify(w: Workload, found: dict[str, dict[str, Tensor]]) -> None:
    """All variants have eager's parameters."""
    tolerance = 1e-9 if w.dtype == torch.float64 else 1e-5
    for name, params in found.items():
        for key, p in params.items():
            other = found["eager"][key].detach()
            difference = float((p.detach() - other).abs().max())
            if not difference <= tolerance * (1 + float(other.abs().max())):
                raise UnequalError(
                    f"{w.name}: after a step {key} of {name!r} differs from eager's by {difference:.1e}; "
                    f"nothing was timed. Check the gradients with `codegen check`."
                )


@contextmanager
def silent() -> Generator[None]:
    """Nothing is written to the standard error of the process: torch's profiler tells there that it begins and ends."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def peak(run: Callable[[int], None]) -> float:
    """The most bytes that are allocated at once during two steps, beyond what is there before."""
    from torch.profiler import ProfilerActivity, profile

    with silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run(2)
    level = top = 0
    events: Any = profiled.profiler
    for event in events.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            top = max(top, level)
    return float(top)
