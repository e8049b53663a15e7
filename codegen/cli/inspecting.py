"""What `codegen inspect` does: derive, then print one node or all of them."""

import difflib
import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from codegen.build import closed_program, derivation_text, program_of
from codegen.check import check
from codegen.cli.progress import say
from codegen.closed.write.markdown import part_markdown, rewritten_markdown
from codegen.derivation_md import node_markdown
from codegen.emit import write_atomically
from codegen.explain import Explanation, explanations
from codegen.formula import text_formula
from codegen.inputs import example_inputs
from codegen.program import Program
from codegen.report import report_html
from codegen.targets import load_target, load_value
from codegen.worked.latex import node_latex
from codegen.worked.story import Memory, Part, backward_story, forward_story, memory
from codegen.worked.told import Equation
from engine.draw import to_dot, to_svg
from engine.errors import OutputError, TargetError

WIDTH = 118
SMALL = 60
"""Nodes up to which a page has the errors against the high-precision truth, too; for more, `codegen check` takes its time."""
DRAWINGS = {"svg": to_svg, "dot": to_dot}


def run_inspect(text: str, node: str | None, form: str, out: Path | None = None) -> None:
    """Print to stdout or into a file. Raises TargetError for an unknown node, OutputError for a file that cannot be written."""
    page = io.StringIO()
    console = Console() if out is None else Console(file=page, width=WIDTH)
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    if form in DRAWINGS:
        console.file.write(drawn(text, node, form))
    else:
        derived(console, text, node, form)
    if out is not None:
        _write(out, page.getvalue())


def drawn(text: str, node: str | None, form: str) -> str:
    """The graph of a forward, or of an `engine.Value`."""
    if node is not None:
        raise TargetError(f"--format {form} draws the whole graph; leave out the NODE {node!r}.")
    value = load_value(text)
    return DRAWINGS[form](program_of(load_target(text), text).graph if value is None else value)


def derived(console: Console, text: str, node: str | None, form: str) -> None:
    """A node or the whole program in one of the formats that tell the derivation."""
    target = load_target(text)
    program = program_of(target, text)
    told = explanations(program.derivation)
    if node is not None and node not in told:
        raise TargetError(_unknown(node, text, list(told)))
    if form == "html":
        inputs = tuple(example_inputs(target).values())
        closed = closed_program(program, text)
        truth = len(program.graph.nodes) <= SMALL
        reports = (check(closed, *program.tensors(inputs), truth=truth), check(program, *inputs, truth=truth))
        console.file.write(report_html(closed, text, *reports, chosen=node))
        return
    PRINTERS[form](console, program, told, node, text)


def _write(out: Path, text: str) -> None:
    try:
        write_atomically(out, text)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}. Name another file with --out.") from error


def _unknown(node: str, target: str, names: list[str]) -> str:
    close = difflib.get_close_matches(node, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{target} has no node {node!r}.{hint} Its nodes: {', '.join(names)}."


def story_of(program: Program, title: str) -> tuple[list[Part], tuple[Part, ...], Memory]:
    """The tensors of the forward that were rewritten, those of the closed backward, and what is saved for it."""
    writer = closed_program(program, title).writer
    assert writer is not None
    return [p for p in forward_story(writer) if p.stages or p.like], backward_story(writer), memory(writer)


def _text(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    forward, parts, kept = story_of(program, title)
    if node is not None:
        _panel(console, told[node], [p for p in forward if p.name == node], [p for p in parts if p.cell == node])
        return
    console.print(Syntax(repr(program.graph), "python", background_color="default", word_wrap=True))
    say(console, "\nCotangents by the chain rule, as steps.py computes them:\n")
    for e in told.values():
        if e.cotangent is not None:
            say(console, f"  {e.cotangent.text}")
    if forward:
        say(console, "\nThe forward as closed.py computes it, where that is not as it was written:\n")
    for p in forward:
        for s in p.stages:
            say(console, f"  {line_of(s.equation, p)}    # {s.rule.replace('`', '')}")
        if p.like:
            say(console, f"  {p.name} by the same steps as {p.like}")
    say(console, "\nIn closed form, as closed.py computes them:\n")
    for p in parts:
        say(console, f"  {line_of(p.equation, p) if p.equation is not None else p.lines[-1]}")
    say(
        console,
        f"\nSaved for the backward: {kept.total:,} elements at the example's sizes, inputs left out "
        f"({', '.join(k.name for k in kept.saved) or 'nothing'}). Autograd keeps {kept.autograd_total:,}.",
    )


def line_of(equation: Equation, part: Part) -> str:
    """An equation as one line of text."""
    return f"{text_formula(equation[0], part.ranks)} = {text_formula(equation[1], part.ranks)}"


def _panel(console: Console, e: Explanation, forward: list[Part], parts: list[Part]) -> None:
    """One node in a frame: forward, definition, paths, cotangent, emitted statement, and the way to its closed form."""
    rows: list[RenderableType] = []

    def heading(title: str) -> None:
        rows.append(Text(title, style="dim"))

    def lines(*texts: str, indent: int = 2) -> None:
        rows.extend(Padding(Text(line), (0, 0, 0, indent)) for line in texts)

    def code(title: str, *texts: str) -> None:
        heading(title)
        shown = Syntax("\n".join(texts), "python", background_color="default", word_wrap=True)
        rows.append(Padding(shown, (0, 0, 0, 2)))

    if e.forward:
        code(f"forward, {e.place}" if e.place else "forward", e.forward)
    if e.definition is not None:
        heading("definition")
        lines(e.definition.text)
    for caption, law in e.laws:
        heading(caption.replace("`", "").removesuffix(":"))
        lines(law.text)
    for p in e.paths:
        heading(f"through {p.consumer}" + (", scattered back along its index" if p.scattered else ""))
        lines(p.derivative.text)
    if e.rules:
        heading("rules")
        lines(*e.rules)
    heading("cotangent")
    lines(e.cotangent.text if e.cotangent is not None else "none: no gradient goes through it")
    if e.cotangent is not None:
        code("emitted in steps.py", *e.statements)
    if e.adjoint is not None:
        caption, law, statements = e.adjoint
        heading(caption.removesuffix(":"))
        lines(law.text)
        if statements:
            code("emitted in steps.py", *statements)
    for part in (*forward, *parts):
        title = f"{part.name} in the forward of closed.py" if part in forward else f"closed form of {part.name}"
        heading(title + (f", by the same steps as {part.like}" if part.like else ""))
        for k, s in enumerate(part.stages, 1):
            lines(f"{k}. {s.rule.replace('`', '')}")
            lines(*[f"where {line_of(f, part)}" for f in s.facts], line_of(s.equation, part), indent=5)
        if not part.stages and part.equation is not None:
            lines(line_of(part.equation, part))
        if part.lines:
            code("emitted in closed.py", *part.lines)
    console.print(Panel(Group(*rows), title=Text(f"{e.name}  {e.dtype} {e.shape}"), title_align="left"))


def _latex(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    forward, parts, _ = story_of(program, title)
    chosen = [told[node]] if node is not None else list(told.values())
    shown = [p for p in forward if node in (None, p.name)] + [p for p in parts if node in (None, p.cell)]
    say(console, node_latex(chosen, shown).rstrip("\n"))


def _markdown(console: Console, program: Program, told: dict[str, Explanation], node: str | None, title: str) -> None:
    if node is None:
        say(console, derivation_text(program, title).rstrip("\n"))
        return
    forward, parts, _ = story_of(program, title)
    texts = [node_markdown(told[node]), *[rewritten_markdown(p) for p in forward if p.name == node]]
    texts += [part_markdown(p) for p in parts if p.cell == node]
    say(console, "\n".join(texts).rstrip("\n"))


Printer = Callable[[Console, Program, dict[str, Explanation], str | None, str], None]
PRINTERS: dict[str, Printer] = {"text": _text, "latex": _latex, "markdown": _markdown}
