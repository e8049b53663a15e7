"""What `codegen inspect` does: derive, then print one node or all of them."""

import difflib
import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from codegen.build import derivation_text, program_of
from codegen.check import check
from codegen.cli.progress import say
from codegen.derivation_md import node_markdown
from codegen.emit import write_atomically
from codegen.explain import Explanation, explanations
from codegen.inputs import example_inputs
from codegen.program import Program
from codegen.report import report_html
from codegen.targets import load_target
from engine.errors import OutputError, TargetError

WIDTH = 118


def run_inspect(text: str, node: str | None, form: str, out: Path | None = None) -> None:
    """Print to stdout or into a file. Raises TargetError for an unknown node, OutputError for a file that cannot be written."""
    target = load_target(text)
    program = program_of(target, text, "closed" if form == "html" else "steps")
    told = explanations(program.derivation)
    if node is not None and node not in told:
        raise TargetError(_unknown(node, text, list(told)))
    page = io.StringIO()
    console = Console() if out is None else Console(file=page, width=WIDTH)
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    if form == "html":
        report = check(program, *example_inputs(target).values())
        console.file.write(report_html(program, text, report, node))
    else:
        PRINTERS[form](console, program, told, node, text)
    if out is not None:
        _write(out, page.getvalue())


def _write(out: Path, text: str) -> None:
    try:
        write_atomically(out, text)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}. Name another file with --out.") from error


def _unknown(node: str, target: str, names: list[str]) -> str:
    close = difflib.get_close_matches(node, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{target} has no node {node!r}.{hint} Its nodes: {', '.join(names)}."


def _text(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    if node is not None:
        _panel(console, told[node])
        return
    console.print(Syntax(repr(program.graph), "python", background_color="default", word_wrap=True))
    console.print()
    for e in told.values():
        if e.cotangent is not None:
            say(console, e.cotangent.text)


def _panel(console: Console, e: Explanation) -> None:
    """One node in a frame: forward, definition, paths, cotangent, emitted statement."""
    parts: list[Text | Syntax] = []

    def part(title: str, *lines: str) -> None:
        parts.append(Text(title, style="dim"))
        parts.extend(Text(f"  {line}") for line in lines)

    def code(title: str, *lines: str) -> None:
        parts.append(Text(title, style="dim"))
        parts.append(
            Syntax("\n".join(f"  {line}" for line in lines), "python", background_color="default", word_wrap=True)
        )

    if e.forward:
        code(f"forward, {e.place}" if e.place else "forward", e.forward)
    if e.definition is not None:
        part("definition", e.definition.text)
    for p in e.paths:
        part(f"through {p.consumer}" + (", scattered back along its index" if p.scattered else ""), p.derivative.text)
    if e.rules:
        part("rules", *e.rules)
    if e.cotangent is not None:
        part("cotangent", e.cotangent.text)
        code("emitted", *e.statements)
    else:
        part("cotangent", "none: no gradient goes through it")
    console.print(Panel(Group(*parts), title=Text(f"{e.name}  {e.dtype} {e.shape}"), title_align="left"))


def _latex(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    chosen = [told[node]] if node is not None else list(told.values())
    rows = [
        f.latex for e in chosen for f in (e.definition, *(p.derivative for p in e.paths), e.cotangent) if f is not None
    ]
    body = " \\\\\n".join("  " + r.replace(" = ", " &= ", 1) for r in rows)
    say(console, f"\\begin{{align*}}\n{body}\n\\end{{align*}}")


def _markdown(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    text = node_markdown(told[node]) if node is not None else derivation_text(program, title)
    say(console, text.rstrip("\n"))


Printer = Callable[[Console, Program, dict[str, Explanation], str | None, str], None]
PRINTERS: dict[str, Printer] = {"text": _text, "latex": _latex, "markdown": _markdown}
