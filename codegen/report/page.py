"""The page: what is told of each node, laid out by a template that escapes everything but the formulas and the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from codegen.emit import render, steps_source
from codegen.explain import explanations
from codegen.report.mathml import MathML, formula
from codegen.report.picture import anchor, kind_of, picture
from codegen.worked.story import backward_story, forward_story, memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.check import Report
    from codegen.derivation import Derivation, Law
    from codegen.explain import Explanation, Path
    from codegen.judge import Row
    from codegen.program import Program
    from codegen.worked.story import Part
    from codegen.worked.told import ToldStage


@dataclass(frozen=True)
class Stage:
    """What was done, the equations it used, and the state after it."""

    rule: Markup
    facts: tuple[Markup, ...]
    state: Markup


@dataclass(frozen=True)
class Closed:
    """One tensor of the closed file: its formula, the states that lead to it, or the part that it is like, and its lines."""

    name: str
    anchor: str
    cell: str
    formula: Markup
    stages: tuple[Stage, ...]
    like: str
    like_anchor: str
    lines: tuple[str, ...]
    role: str


@dataclass(frozen=True)
class PathTold:
    """One way to the result: the node it goes through and the local derivative."""

    anchor: str
    consumer: str
    derivative: Markup
    scattered: bool


@dataclass(frozen=True)
class Checked:
    """One row of a check in words."""

    mode: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Told:
    """What the page says of one node."""

    name: str
    anchor: str
    kind: str
    facts: str
    place: str
    line: str
    forward: str
    definition: Markup
    paths: tuple[PathTold, ...]
    rules: tuple[str, ...]
    cotangent: Markup
    statements: tuple[str, ...]
    laws: tuple[tuple[str, Markup], ...]
    adjoint: tuple[str, Markup, tuple[str, ...]] | None
    rewritten: tuple[Closed, ...]
    closed: tuple[Closed, ...]
    saved: str
    checks: tuple[Checked, ...]


def report_html(program: Program, target: str, *reports: Report, chosen: str | None = None) -> str:
    """One self-contained HTML page for a program.

    Args:
        program: a program in either mode. In closed mode the page leads from the chain of local derivatives to the closed
            forms, state by state, and says what is saved.
        target: what the page says it is about.
        reports: outcomes of `codegen.check`, of this program and of the one in the other mode; each node shows its rows.
        chosen: the node that is shown before another one is clicked; a result of the forward by default.
    """
    derivation, graph, writer = program.derivation, program.graph, program.writer
    told = explanations(derivation)
    parts = [closed_told(p) for p in backward_story(writer)] if writer is not None else []
    kept = None if writer is None else memory(writer)
    saved = {} if kept is None else {k.name: k.count for k in kept.saved}
    forward = [] if writer is None else [closed_told(p) for p in forward_story(writer)]
    rewritten = {c.name: c for c in forward if c.stages or c.like}
    by_cell: dict[str, list[Closed]] = {}
    for c in parts:
        by_cell.setdefault(c.cell, []).append(c)
    nodes = [
        node_told(
            derivation,
            e,
            checks_of(graph.key(n), reports),
            (rewritten[n],) if n in rewritten else (),
            tuple(by_cell.get(n, ())),
            saved.get(n),
        )
        for n, e in told.items()
    ]
    files = [("steps.py", steps_source(derivation, target) if program.mode == "closed" else program.source)]
    files = [("closed.py", program.source), *files] if program.mode == "closed" else files
    return render(
        "report.html.j2",
        target=target,
        name=graph.name,
        mode=program.mode,
        outputs=[{"name": o, "anchor": anchor(o)} for o in graph.outputs],
        inputs=[{"name": i, "anchor": anchor(i), "facts": facts(told[i])} for i in graph.inputs],
        verdicts=[verdict(r) for r in reports],
        picture=Markup(picture(graph)),
        chosen=anchor(chosen or graph.outputs[0]),
        nodes=nodes,
        forward=forward,
        rewritten=list(rewritten.values()),
        closed=parts,
        refused=[] if writer is None else writer.refused,
        memory=kept,
        files=files,
    )


def verdict(report: Report) -> Checked:
    """One line about a check."""
    said = "all agree with autograd" if report.ok else "; ".join(report.failures)
    count = f"{report.exact_count} gradients equal to autograd's bit for bit"
    return Checked(f"{report.mode}.py", report.ok, f"checked in {report.dtype}: {count}, {said}.")


def facts(e: Explanation) -> str:
    """Type and shape."""
    return f"{e.dtype} {e.shape}"


def closed_told(part: Part) -> Closed:
    """One tensor of the closed file."""
    math = MathML(part.ranks)
    shown = Markup("") if part.equation is None else Markup(math.equation(*part.equation))
    stages = tuple(stage_told(s) for s in part.stages)
    like = f"closed-{part.like}" if part.like else ""
    return Closed(part.name, f"closed-{part.name}", part.cell, shown, stages, part.like, like, part.lines, part.role)


def stage_told(stage: ToldStage) -> Stage:
    """One state on the way to a closed form."""
    math = MathML(stage.ranks)
    return Stage(
        coded(stage.rule),
        tuple(Markup(math.equation(*f)) for f in stage.facts),
        Markup(math.equation(*stage.equation)),
    )


def coded(text: str) -> Markup:
    """Text whose names are in backticks as markup."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def node_told(
    derivation: Derivation,
    e: Explanation,
    checks: tuple[Checked, ...],
    rewritten: tuple[Closed, ...],
    closed: tuple[Closed, ...],
    saved: int | None,
) -> Told:
    """One node's panel."""
    math = MathML(derivation.ranks)
    known, adjoint = derivation.definition(e.name), derivation.adjoint(e.name)
    shown = Markup("" if adjoint is None else math.equation(adjoint.left, adjoint.right))
    return Told(
        name=e.name,
        anchor=anchor(e.name),
        kind=kind_of(derivation.graph, derivation.graph[e.name]),
        facts=facts(e),
        place=e.place,
        line=e.line,
        forward=e.forward,
        definition=Markup("" if known is None else math.equation(*known)),
        paths=tuple(path_told(math, p) for p in e.paths),
        rules=e.rules,
        cotangent=cotangent_told(derivation, math, e.name),
        statements=e.statements,
        laws=tuple((said(law), Markup(math.equation(law.left, law.right))) for law in derivation.laws(e.name)),
        adjoint=None if adjoint is None or e.adjoint is None else (said(adjoint), shown, e.adjoint[2]),
        rewritten=rewritten,
        closed=closed,
        saved="" if saved is None else f"saved for the backward, {saved:,} elements at the example",
        checks=checks,
    )


def said(law: Law) -> str:
    """The caption of an equation."""
    return law.caption.replace("`", "").removesuffix(":")


def path_told(math: MathML, path: Path) -> PathTold:
    """One way to the result, as a displayed partial derivative."""
    top, under, value = path.parts
    fraction = f"<mfrac><mrow><mo>∂</mo>{math.at(top, 1)}</mrow><mrow><mo>∂</mo>{math.at(under, 1)}</mrow></mfrac>"
    shown = Markup(formula(f"{fraction}<mo>=</mo>{math.at(value, 1)}"))
    return PathTold(anchor(path.consumer), path.consumer, shown, path.scattered)


def cotangent_told(derivation: Derivation, math: MathML, name: str) -> Markup:
    """The chain rule's cotangent of a node, over the cotangents of its consumers; empty for a node without one."""
    known = derivation.cotangents.get(name)
    if known is None:
        return Markup("")
    seed = "<mi>grad_out</mi>"
    if known.seeded and not known.parts:
        return Markup(formula(f"<mi>{escape(known.name)}</mi><mo>=</mo>{seed}"))
    return Markup(math.equation(*derivation.equation(name), before=f"{seed}<mo>+</mo>" if known.seeded else ""))


def checks_of(key: str, reports: Sequence[Report]) -> tuple[Checked, ...]:
    """The rows of one gradient in every check."""
    found: list[tuple[str, Mapping[str, Row]]] = [(r.mode, {row.name: row for row in r.rows}) for r in reports]
    return tuple(Checked(f"{mode}.py", rows[key].ok, checked(rows[key])) for mode, rows in found if key in rows)


def checked(row: Row) -> str:
    """One row of a check in words."""
    same = "equal to autograd's bit for bit" if row.exact else f"differs from autograd's by at most {row.absolute:.1e}"
    error = "" if row.error is None else f"; error {number(row.error)}, autograd's {number(row.autograd_error or 0.0)}"
    return ("ok: " if row.ok else "mismatch: ") + same + error + (f" ({row.note})" if row.note else "")


def number(x: float) -> str:
    """Two digits."""
    return f"{x:.1e}" if x else "0"


__all__ = ["report_html"]
