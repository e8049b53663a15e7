"""The page: what is told of each node, laid out by a template."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from codegen.emit import render
from codegen.explain import explanations
from codegen.report.mathml import MathML, formula
from codegen.report.picture import anchor, picture

if TYPE_CHECKING:
    from codegen.check import Report
    from codegen.derivation import Derivation, Proof
    from codegen.explain import Explanation
    from codegen.judge import Row
    from codegen.program import Program


@dataclass(frozen=True)
class Closed:
    """One closed form: what it was, the rules in order, what it became, and the lines that compute it."""

    name: str
    naive: str
    rules: tuple[str, ...]
    formula: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """What the page says of one node; formulas are MathML, all other text is escaped."""

    name: str
    anchor: str
    facts: str
    source: str
    forward: str
    definition: str
    paths: tuple[tuple[str, str, str], ...]
    rules: tuple[str, ...]
    cotangent: str
    statements: tuple[str, ...]
    closed: tuple[Closed, ...]
    check: str


def report_html(program: Program, target: str, report: Report | None = None, chosen: str | None = None) -> str:
    """One self-contained HTML page for a program.

    Args:
        program: a program in either mode. In closed mode the page leads from the chain of local derivatives to the closed
            forms.
        target: what the page says it is about.
        report: the outcome of `codegen.check(program, ...)`, shown beside each gradient.
        chosen: the node that is shown before another one is clicked; a result of the forward by default.
    """
    derivation = program.derivation
    told = explanations(derivation)
    rows = {} if report is None else {r.name: r for r in report.rows}
    closed = closed_forms(program)
    of: dict[str, list[Closed]] = {}
    for proof, form in closed:
        of.setdefault(proof.cell, []).append(form)
    nodes = [node_told(derivation, e, rows.get(derivation.graph.key(n)), tuple(of.get(n, ()))) for n, e in told.items()]
    graph = derivation.graph
    return render(
        "report.html.j2",
        target=escape(target),
        name=escape(graph.name),
        mode=program.mode,
        result=" and ".join(f"<code>{escape(o)}</code>" for o in graph.outputs),
        inputs=[{"name": escape(i), "anchor": escape(anchor(i)), "facts": facts(told[i])} for i in graph.inputs],
        verdict=verdict(report),
        picture=picture(graph),
        chosen=escape(anchor(chosen or graph.outputs[0])),
        nodes=nodes,
        closed=[form for _, form in closed],
        source=escape(program.source),
    )


def verdict(report: Report | None) -> str:
    """One line about the check; empty without one."""
    if report is None:
        return ""
    said = "all agree with autograd" if report.ok else "; ".join(report.failures)
    return escape(f"Checked in {report.dtype}: {report.exact_count} gradients equal to autograd's bit for bit, {said}.")


def facts(e: Explanation) -> str:
    """Type and shape."""
    return escape(f"{e.dtype} {e.shape}")


def closed_forms(program: Program) -> list[tuple[Proof, Closed]]:
    """The proofs of closed mode in the order of the emitted code."""
    lines = {b.name: b.lines for b in program.writer.blocks} if program.writer is not None else {}
    ranks = dict(program.derivation.ranks)
    out: list[tuple[Proof, Closed]] = []
    for p in program.derivation.proofs:
        math = MathML({**ranks, **p.ranks})
        naive, simple = p.equation(naive=True), p.equation()
        shown = math.equation(*naive) if naive != simple else ""
        text = tuple(escape(line) for line in lines.get(p.name, ()))
        out.append((p, Closed(escape(p.name), shown, tuple(escape(r) for r in p.rules), math.equation(*simple), text)))
    return out


def node_told(derivation: Derivation, e: Explanation, row: Row | None, closed: tuple[Closed, ...]) -> Told:
    """One node's section."""
    math = MathML(derivation.ranks)
    known = derivation.definition(e.name)
    return Told(
        name=escape(e.name),
        anchor=escape(anchor(e.name)),
        facts=facts(e),
        source=escape(f"{e.place}: {e.line}" if e.line else e.place),
        forward=escape(e.forward),
        definition="" if known is None else math.equation(*known),
        paths=tuple(path_told(math, p) for p in e.paths),
        rules=tuple(escape(r) for r in e.rules),
        cotangent=cotangent_told(derivation, math, e.name),
        statements=tuple(escape(s) for s in e.statements),
        closed=closed,
        check="" if row is None else checked(row),
    )


def path_told(math: MathML, path: Any) -> tuple[str, str, str]:
    """(anchor, name, local derivative) of one way to the result."""
    top, under, value = path.parts
    fraction = f"<mfrac><mrow><mo>∂</mo>{math.at(top, 1)}</mrow><mrow><mo>∂</mo>{math.at(under, 1)}</mrow></mfrac>"
    return escape(anchor(path.consumer)), escape(path.consumer), formula(f"{fraction}<mo>=</mo>{math.at(value, 1)}")


def cotangent_told(derivation: Derivation, math: MathML, name: str) -> str:
    """The chain rule's cotangent of a node, over the cotangents of its consumers; empty for a node without one."""
    known = derivation.cotangents.get(name)
    if known is None:
        return ""
    seed = "<mi>grad_out</mi>"
    if known.seeded and not known.parts:
        return formula(f"<mi>{escape(known.name)}</mi><mo>=</mo>{seed}")
    return math.equation(*derivation.equation(name), before=f"{seed}<mo>+</mo>" if known.seeded else "")


def checked(row: Row) -> str:
    """One row of a check in words."""
    same = "equal to autograd's bit for bit" if row.exact else f"differs from autograd's by at most {row.absolute:.1e}"
    error = "" if row.error is None else f"; error {row.error:.1e}, autograd's {row.autograd_error or 0.0:.1e}"
    return escape(("ok: " if row.ok else "mismatch: ") + same + error + (f" ({row.note})" if row.note else ""))


__all__ = ["report_html"]
