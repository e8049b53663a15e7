"""The closed forms of a program as Markdown, step by step, and what is saved against what autograd keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.emit import render
from codegen.formula import latex_formula
from codegen.worked.story import backward_story, forward_story, memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.write.writer import ClosedWriter
    from codegen.worked.story import Part
    from codegen.worked.told import Equation, ToldStage


@dataclass(frozen=True)
class StageText:
    """A rule, the equations it used, and the state after it, the formulas as LaTeX."""

    rule: str
    facts: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class PartText:
    """One tensor: its heading, its formula, how it follows, and its lines."""

    name: str
    cell: str
    formula: str
    stages: tuple[StageText, ...]
    like: str
    lines: tuple[str, ...]
    role: str


def closed_markdown(writer: ClosedWriter) -> str:
    """The part of `derivation.md` that leads from the chain rule to the closed forms."""
    kept, forward = memory(writer), forward_story(writer)
    return render(
        "closed.md.j2",
        forward=[part_text(p) for p in forward],
        rewritten=[part_text(p) for p in forward if p.stages or p.like],
        statements=[line for b in writer.emitted for line in b.lines],
        parts=[part_text(p) for p in backward_story(writer)],
        refused=writer.refused,
        memory=kept,
        total=kept.total,
        autograd_total=kept.autograd_total,
    )


def part_markdown(part: Part) -> str:
    """One tensor of the closed form as Markdown, headed by its name."""
    return render("part.md.j2", p=part_text(part))


def rewritten_markdown(part: Part) -> str:
    """One tensor of the forward as Markdown, with the rules that led to what is computed."""
    return render("rewritten.md.j2", p=part_text(part))


def part_text(part: Part) -> PartText:
    """One tensor with its formulas as LaTeX."""
    formula = "" if part.equation is None else latex(part.equation, part.ranks)
    return PartText(
        part.name, part.cell, formula, tuple(map(stage_text, part.stages)), part.like, part.lines, part.role
    )


def stage_text(stage: ToldStage) -> StageText:
    """One stage with its formulas as LaTeX."""
    facts = tuple(latex(f, stage.ranks) for f in stage.facts)
    return StageText(stage.rule, facts, latex(stage.equation, stage.ranks))


def latex(equation: Equation, ranks: Mapping[str, int]) -> str:
    """`left = right`."""
    return f"{latex_formula(equation[0], ranks)} = {latex_formula(equation[1], ranks)}"


__all__ = ["closed_markdown", "part_markdown", "rewritten_markdown"]
