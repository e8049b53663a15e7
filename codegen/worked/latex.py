"""A derivation as LaTeX: one display per node, and one per closed form with the rule beside every state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from codegen.formula import latex_formula

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codegen.explain import Explanation
    from codegen.worked.story import Part
    from codegen.worked.told import Equation, ToldStage

SPECIAL = re.compile(r"([_#%&${}])")


def node_latex(told: Sequence[Explanation], parts: Sequence[Part]) -> str:
    """Definitions, local derivatives and cotangents of nodes, then closed forms state by state, for amsmath."""
    formulas = (
        (
            e.definition,
            *(law for _, law in e.laws),
            *(p.derivative for p in e.paths),
            e.cotangent,
            None if e.adjoint is None else e.adjoint[1],
        )
        for e in told
    )
    rows = [f.latex for several in formulas for f in several if f is not None]
    blocks = [aligned(r.replace(" = ", " &= ", 1) for r in rows)]
    blocks += [aligned(states(p)) for p in parts]
    return "\n\n".join(b for b in blocks if b) + "\n"


def aligned(rows: Iterable[str]) -> str:
    """Rows of an `align*`; "" for none."""
    body = " \\\\\n".join(f"  {r}" for r in rows)
    return f"\\begin{{align*}}\n{body}\n\\end{{align*}}" if body else ""


def states(part: Part) -> list[str]:
    """The states of one closed form, each below the rule that led to it."""
    if not part.stages:
        return [] if part.equation is None else [equation(part.equation, part.ranks)]
    return [row for k, s in enumerate(part.stages, 1) for row in (f"&\\text{{{k}. {said(s)}}}", *equations(s))]


def equations(stage: ToldStage) -> list[str]:
    """What a stage used, and the state after it."""
    return [equation(e, stage.ranks) for e in (*stage.facts, stage.equation)]


def equation(e: Equation, ranks: Mapping[str, int]) -> str:
    """`left &= right`."""
    return f"{latex_formula(e[0], ranks)} &= {latex_formula(e[1], ranks)}"


def said(stage: ToldStage) -> str:
    """A rule for a text inside of mathematics, names in typewriter."""
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", SPECIAL.sub(r"\\\1", stage.rule))


__all__ = ["node_latex"]
