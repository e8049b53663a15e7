"""The command line. Errors raised on purpose end it with a message and exit code 2; 1 means a mismatch was found."""

import sys

import typer
from rich.console import Console

from codegen.cli.bench import bench
from codegen.cli.build import build
from codegen.cli.check import check
from codegen.cli.inspect import inspect
from codegen.cli.sample import sample
from codegen.cli.train import train
from engine.errors import SymgradError

ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="codegen",
    help="Write a forward once, in plain PyTorch; get its backward derived, emitted, checked, and trained with.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(build)
app.command()(inspect)
app.command()(check)
app.command()(train)
app.command()(sample)
app.command()(bench)


def main() -> None:
    """The console script `codegen`."""
    try:
        app(prog_name="codegen")
    except SymgradError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
