"""What `codegen build` does: make every file, then write or compare."""

from pathlib import Path

import typer
from rich.console import Console
from rich.syntax import Syntax

from codegen.build import Built, build, build_all, leftovers
from codegen.cli.progress import say
from engine.errors import InputError, OutputError, TargetError

STALE = 1


def run_build(
    targets: tuple[str, ...],
    check: bool,
    out: Path | None,
    operator: bool = False,
    sizes: str | None = None,
    plain: bool = False,
) -> None:
    """Build as asked, printing to stdout. Everything is made before anything is written.

    Raises the package's errors, and typer.Exit(1) where `check` finds something stale.
    """
    if out is not None and len(targets) != 1:
        raise TargetError(
            f"--out takes the files of one TARGET, and {len(targets) or 'all bundled ones'} were asked for."
        )
    if (sizes or plain) and len(targets) != 1:
        raise TargetError(
            f"--sizes and --plain are for the loop of one TARGET, and {len(targets) or 'all'} were asked for."
        )
    shapes = shapes_of(sizes or "")
    built = [b for t in targets for b in build(t, out, operator, shapes, plain)] if targets else build_all(operator)
    extra = [] if targets else leftovers(built)
    console = Console(soft_wrap=True)
    if check:
        _compare(console, built, extra)
    else:
        _write(console, built, extra)


def shapes_of(text: str) -> dict[str, tuple[int, ...]]:
    """`batch=4096,w1=512x1024` as shapes by name. Raises InputError for anything else."""
    found: dict[str, tuple[int, ...]] = {}
    for part in filter(None, text.replace(" ", ",").split(",")):
        name, _, shape = part.partition("=")
        sizes = shape.split("x")
        if not name.isidentifier() or not all(s.isdecimal() and int(s) > 0 for s in sizes):
            raise InputError(f"--sizes: {part!r} is not NAME=SIZExSIZE, as in batch=4096,w1=512x1024")
        if name == "batch" and len(sizes) != 1:
            raise InputError(f"--sizes: {part!r}: batch is one number")
        found[name] = tuple(map(int, sizes))
    return found


def _compare(console: Console, built: list[Built], extra: list[Path]) -> None:
    stale = [b for b in built if b.stale]
    for b in stale:
        _show(console, b.diff())
    for path in extra:
        say(console, f"{path}: no bundled target makes this file")
    if stale or extra:
        say(console, f"{len(stale) + len(extra)} of {len(built) + len(extra)} files are stale. Run codegen build.")
        raise typer.Exit(STALE)
    say(console, f"{len(built)} files are up to date")


def _show(console: Console, diff: str) -> None:
    """A diff, in colour on a terminal and as it is anywhere else."""
    if console.is_terminal:
        console.print(Syntax(diff, "diff", word_wrap=False))
    else:
        console.file.write(diff)


def _write(console: Console, built: list[Built], extra: list[Path]) -> None:
    for b in built:
        if b.write():
            say(console, f"wrote {_short(b.path)}")
    for path in extra:
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot remove {path}, which no bundled target makes any more: {error.strerror}."
            ) from error
        say(console, f"removed {_short(path)}")
    say(console, f"{len(built)} files are up to date")


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
