# pyright: basic
"""Accuracy: a plan's torch statements in float32 against autograd's, on inputs around 0, 10, 100 and 1000, and on inputs of
which many are 0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.closed.gates.errors import VALUE, Trial, errors
from codegen.closed.gates.points import SEEDS
from codegen.closed.gates.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


OFFSETS = (0.0, 10.0, 100.0, 1000.0)
SLACK = 2.0
"""What errors of gradients may be of autograd's."""
RESULTS = 16.0
"""What errors of results may be. The whole less one of its parts has some of these, as it has by hand; what has lost its digits has more."""
NEAR = 1.11
"""What errors may be of autograd's, as the geometric mean over draws, for a plan that needs no repair."""
SAME = 1.01
"""What they are at most on any draw where the operations that make them are the same."""
MANY = 128
"""How many inputs decide at most whether a plan needs a repair; fewer where their mean is `SURE` deviations from NEAR."""
SURE = (2.0, 4.0)
"""How many below and how many above: a repair costs elements for good, a plan that needs none has passed all the same."""
DRAWS = 4
"""How many inputs decide where one does not."""
MORE = 24
"""How many decide where those do not."""
FLOOR = 2e-6
"""float32 errors below a few ulps of the largest entry are not told apart."""


def accurate(trial: Trial) -> Verdict:
    """float32 errors of a plan's torch statements against those of autograd, around several offsets."""
    told = False
    for offset in (*OFFSETS, None):
        verdict = at_offset(trial, offset)
        if not verdict.passed:
            return verdict
        told = told or verdict.judged
    for kind in range(1, SEEDS) if not told else ():
        verdict = at_offset(trial, 0.0, kind)
        if not verdict.passed or verdict.judged:
            return verdict
    return Verdict(told, "" if told else "no inputs were found at which its errors can be told")


def above(trial: Trial) -> str:
    """Which error of a plan is on average larger than autograd's; "" if none is. A plan that passes may be repaired then."""
    for offset in OFFSETS:

        def drawn(draw: int, offset: float = offset) -> dict[str, tuple[float, float]]:
            """Errors at one draw by what they are of."""
            return {what: (mine, other) for what, mine, other in errors(trial, offset, draw, digits=False)}

        first = drawn(0)
        for what in first:
            by = larger(what, first, drawn)
            if by > NEAR:
                return f"{what} has {by:.2f} times autograd's float32 error at offset {offset:g}"
    return ""


def at_offset(trial: Trial, offset: float | None, kind: int = 0) -> Verdict:
    """The gate at one offset. What fails on one draw is judged by several: one error is small or large by luck.

    Where all that is left of a gradient is what rounding left of it, a few of them are as well: then, unless every one of them
    says the same, the errors that most and nearly all of many draws stay below are held against each other.

    So is what cannot be judged because an integer was drawn that is divided by, and is 0.
    """
    verdict, found = Verdict(True), dict[str, list[tuple[float, float]]]()
    integers = any(c.kind != "float" and c.expr is None for c in trial.region.cells)
    for draw in range(MORE):
        for what, mine, other in errors(trial, offset, draw, kind):
            found.setdefault(what, []).append((mine, other))
        told = any(slack_of(what) == SLACK for what in found)  # of a gradient, that is
        if draw in (DRAWS - 1, MORE - 1) or (draw == 0 and (told or not integers)):
            judged = ((verdict_on(what, pairs, offset), what, pairs) for what, pairs in found.items())
            verdict, what, pairs = next((j for j in judged if not j[0].passed), (Verdict(True), "", []))
            if verdict.passed or (draw == DRAWS - 1 and all(mine > slack_of(what) * other for mine, other in pairs)):
                break
    return replace(verdict, judged=any(slack_of(what) == SLACK for what in found))


def larger(
    what: str, first: Mapping[str, tuple[float, float]], drawn: Callable[[int], Mapping[str, tuple[float, float]]]
) -> float:
    """How many times autograd's error one tensor's is on average, 1 where it is small: as many draws as it takes to tell."""
    mine, other = first[what]
    if mine <= FLOOR or mine <= SAME * other:
        return 1.0
    ratios: list[float] = []
    middle = 0.0
    for draw in range(MANY):
        mine, other = drawn(draw).get(what, (0.0, 0.0)) if draw else (mine, other)
        if mine > 0 and 0 < other < math.inf:
            ratios.append(math.log(mine / other) - math.log(NEAR))
            middle = sum(ratios) / len(ratios)
        if len(ratios) >= DRAWS:
            spread = math.sqrt(sum((r - middle) ** 2 for r in ratios) / (len(ratios) - 1) / len(ratios))
            if not -SURE[0] * spread <= middle <= SURE[1] * spread:
                break
    return NEAR * math.exp(middle) if ratios else 1.0


def slack_of(what: str) -> float:
    """How many times autograd's error something may have."""
    return RESULTS if what.startswith(VALUE) else SLACK


def verdict_on(what: str, pairs: Sequence[tuple[float, float]], offset: float | None) -> Verdict:
    """Whether one tensor's errors, ours and autograd's, are alike over all draws in which autograd's is finite."""
    judged = [(mine, other) for mine, other in pairs if math.isfinite(other)]
    if offset is None:  # 0 is a kink of many functions: what differs there is a convention, what is not finite is wrong
        finite = all(math.isfinite(mine) for mine, _ in judged)
        return Verdict(True) if finite else Verdict(False, f"{what} is not finite where inputs are 0")
    mine, other = (math.sqrt(sum(p[k] ** 2 for p in judged) / max(1, len(judged))) for k in (0, 1))
    slack = slack_of(what)
    if mine <= max(slack * other, FLOOR):
        return Verdict(True)
    if len(judged) > DRAWS and math.isfinite(mine):
        ordered = [sorted(p[k] for p in judged) for k in (0, 1)]
        ranks = (len(judged) // 2, len(judged) - 1 - len(judged) // 8)
        if all(ordered[0][r] <= max(slack * ordered[1][r], FLOOR) for r in ranks):
            return Verdict(True)
    return Verdict(False, f"{what} has float32 error {mine:.1e} at offset {offset:g}, autograd {other:.1e}")


__all__ = ["FLOOR", "SLACK", "above", "accurate"]
