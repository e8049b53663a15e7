"""What `codegen bench` does: race the variants of each workload, print a table."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from codegen.bench.race import Result, race
from codegen.bench.variants import VARIANTS
from codegen.bench.workloads import WORKLOADS, workload
from engine.errors import InputError


def run_bench(names: Sequence[str], vs: Sequence[str], rounds: int, seconds: float, compile: bool) -> None:
    """Print a table for every workload. Raises InputError for an unknown workload or variant, or a missing package."""
    unknown = [n for n in names if n not in WORKLOADS]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no workload; those are {', '.join(WORKLOADS)}")
    known = [v for v in VARIANTS if not v.startswith(("emitted", "floor"))]
    wrong = [v for v in vs if v not in known]
    if wrong:
        raise InputError(f"--vs {wrong[0]!r} is none of {', '.join(known)}")
    torch.set_num_threads(1)
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    variants = ["emitted", *(["emitted, compiled"] if compile else []), *[v for v in vs if v != "eager"], "floor"]
    console = Console()
    console.print(f"{processor()}, torch {torch.__version__}, one thread, {rounds} rounds, processor time")
    for name in names or tuple(WORKLOADS):
        w = workload(name)
        own = variants if w.update else ["emitted, value_and_grad", *variants]  # forward and backward only
        try:
            results = race(w, own, rounds, seconds)
        except ModuleNotFoundError as error:
            raise InputError(
                f"--vs jax needs {error.name}, which is not installed: pip install symgrad[jax]"
            ) from error
        console.print(table(f"{name}  {w.title}", results))


def table(title: str, results: Sequence[Result]) -> Table:
    """Speeds relative to eager."""
    made = Table(title=title, title_justify="left", box=None)
    for heading in ("variant", "speed", "quartiles", "us a step", "extra memory", "first step"):
        made.add_column(heading, justify="left" if heading == "variant" else "right")
    for r in results:
        memory = f"{r.memory / 1e6:.1f} MB" if r.memory == r.memory else ""
        made.add_row(
            r.variant,
            f"{r.median:.2f}",
            f"{r.low:.2f} to {r.high:.2f}",
            f"{r.microseconds:,.0f}",
            memory,
            f"{r.ready:.2f} s",
        )
    return made


def processor() -> str:
    """The machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
