"""What `codegen check` does: generate, run the cases, print, and tell whether all is well."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from codegen.build import default_targets, program_of
from codegen.check import Report, check
from codegen.cli.progress import say
from codegen.cli.tables import report_table, summary
from codegen.inputs import example_inputs, resized
from codegen.program import Program
from codegen.suites import Case, edge_cases
from codegen.targets import Target, load_target
from engine.errors import InputError

MISMATCH = 1
WIDTH = 118
FEW = 4
"""Rows of the example that are checked where every number has many digits."""
SAMPLES = {True: 2, False: 4}
"""Entries per tensor at which the truth is evaluated, with and without many digits."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class CheckRequest:
    """The command's arguments."""

    targets: tuple[str, ...]
    dtypes: tuple[str, ...]
    mode: str
    batches: tuple[int, ...]
    edges: bool
    digits: int | None


def run_check(request: CheckRequest) -> None:
    """Check as asked, printing to stdout. Raises the package's errors, and typer.Exit(1) after a mismatch."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    wrong: list[str] = []
    for text in request.targets or default_targets():
        target = load_target(text)
        program = program_of(target, text, request.mode)
        for name in request.dtypes:
            wrong += _checked(console, request, target, program, name)
    if wrong:
        say(console, f"mismatch: {'; '.join(wrong)}")
        raise typer.Exit(MISMATCH)


def _checked(console: Console, request: CheckRequest, target: Target, program: Program, dtype: str) -> list[str]:
    """All cases of one target at one dtype; the titles of those that failed."""
    if isinstance(target.forward, nn.Module):
        program = copy.copy(program)
        program.owner = copy.deepcopy(target.forward).to(DTYPES[dtype])
    inputs = example_inputs(target, DTYPES[dtype])
    title = f"{target.name} {dtype}"
    wrong: list[str] = []
    for k, case in enumerate(_cases(request, program, inputs)):
        plain = k == 0
        name = f"{title}, {case.name}" if case.name else title
        try:
            report = check(
                program,
                *case.inputs.values(),
                digits=request.digits,
                truth=plain,
                samples=SAMPLES[request.digits is not None],
            )
        except InputError as error:
            if plain:
                raise
            say(console, f"{name}: not taken. {error}")
            continue
        _print(console, name, report, plain)
        if not report.ok:
            wrong.append(name)
    return wrong


def _cases(request: CheckRequest, program: Program, inputs: dict[str, Tensor]) -> Iterator[Case]:
    """The example inputs or the batch sizes asked for, then the edges."""

    def with_batch(n: int) -> dict[str, Tensor]:
        return resized(program.graph, inputs, n)

    if not request.batches:
        yield _few(request, program, inputs)
    for n in request.batches:
        yield Case(f"batch {n}", with_batch(n))
    if request.edges:
        yield from edge_cases(inputs, with_batch)


def _few(request: CheckRequest, program: Program, inputs: dict[str, Tensor]) -> Case:
    """The example's inputs; with many digits and many rows the first few of them, as every entry costs an evaluation."""
    first = next(iter(program.graph[program.graph.inputs[0]].shape), None)
    if request.digits is None or first is None or not first.is_Symbol or len(inputs[program.graph.inputs[0]]) <= FEW:
        return Case("", inputs)
    return Case(f"batch {FEW}", resized(program.graph, inputs, FEW))


def _print(console: Console, title: str, report: Report, table: bool) -> None:
    say(console, f"{title}: {summary(report)}")
    if table:
        console.print(report_table(report))
        console.print()
    for line in report.failures:
        if not table or line in report.problems:
            say(console, f"  {line}")
    if table:
        for row in report.values:
            if not row.ok:
                say(console, f"  {row.name}: {row.note}")
