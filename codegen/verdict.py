"""Who is wrong where ours and autograd's differ by more than torch's tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from codegen.measure import largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from codegen.rounding import Rounding
    from codegen.truth import Entry, Truth

SLACK = 4.0
"""Rounding differs by luck: an error up to this many times autograd's own is not worse than autograd's."""
CONVENTION = 1e-3
"""A truth that moves by this much of its largest entry when the inputs move by STEP is at a kink or a tie."""
STEP = 1e-9
UNITS = 16
"""Units of rounding that a result may be off where nothing tells how much rounding there is."""


@dataclass(frozen=True)
class Verdict:
    """Whether a difference is no mismatch, and what is to be said of it."""

    ok: bool
    note: str


@dataclass(frozen=True, eq=False)
class Dispute:
    """Two tensors, the truth at some of their entries, and the error of either side there.

    `scale` is the largest finite entry of autograd's and of the truth.
    """

    node: str
    gradient: bool
    ours: Tensor
    theirs: Tensor
    entries: tuple[Entry, ...]
    true: tuple[Any, ...]
    mine: tuple[float, ...]
    its: tuple[float, ...]
    scale: float

    def where(self, mask: Tensor) -> Dispute:
        """The same at those of the entries where a mask holds."""
        kept = [k for k, at in enumerate(self.entries) if bool(mask[at])]
        entries, true = tuple(self.entries[k] for k in kept), tuple(self.true[k] for k in kept)
        mine, its = tuple(self.mine[k] for k in kept), tuple(self.its[k] for k in kept)
        return Dispute(self.node, self.gradient, self.ours, self.theirs, entries, true, mine, its, self.scale)


def verdict(d: Dispute, rounding: Rounding, truth: Truth) -> Verdict:
    """A mismatch: ours is worse than autograd's and than rounding explains, or differs where torch's convention decides."""
    if not all(np.isfinite(float(t)) for t in d.true):
        return Verdict(False, "differs from autograd where the truth is not finite")
    lost = [at for at in d.entries if not bool(d.ours[at].isfinite())]
    if lost and not rounding.singular(d.node, lost, d.gradient):
        return Verdict(False, "ours is not finite, the truth is")
    if lost:
        return Verdict(True, "not finite, as autograd's when the inputs move by their last bit")
    worst, theirs = max(d.mine), max(d.its)
    if theirs == float("inf"):
        close = _unaided(d, worst, rounding, truth)
        return Verdict(
            close, "autograd is not finite, ours is right" if close else f"both are wrong, ours by {worst:.1e}"
        )
    whole = max(d.scale, rounding.feeding(d.node, d.gradient))
    far = theirs > CONVENTION * whole
    if worst > SLACK * theirs or far:
        expected = SLACK * rounding.expected(d.node, d.theirs, d.entries, CONVENTION * whole, d.gradient)
        if worst > SLACK * theirs and worst > expected:
            return Verdict(False, f"ours is wrong: error {worst:.1e}, autograd's {theirs:.1e}")
        if max(worst, theirs) <= expected:
            return Verdict(True, "rounding, as much as is to be expected")
    if far and truth.moves(d.node, d.entries, d.true, STEP, STEP, d.gradient) > CONVENTION * whole:
        return Verdict(False, "autograd differs from the definition at a kink or a tie, where torch decides")
    return Verdict(True, "rounding, no worse than autograd's")


def _unaided(d: Dispute, worst: float, rounding: Rounding, truth: Truth) -> bool:
    """Whether an error is rounding where autograd, having no finite result, cannot tell what rounding is."""
    eps = torch.finfo(d.ours.dtype).eps
    if worst <= SLACK * UNITS * eps * max(d.scale, rounding.unit):
        return True
    if d.gradient and worst <= SLACK * rounding.jitter(d.node, d.ours, d.entries):
        return True
    moves = truth.moves(d.node, d.entries, d.true, 2 * eps, 0.0, d.gradient)
    return moves <= CONVENTION * d.scale and worst <= SLACK * (UNITS * eps * d.scale + moves)


def largest_true(theirs: Tensor, true: Sequence[Any]) -> float:
    """The largest finite entry of a tensor or of the truth."""
    return max([largest(theirs), *[abs(float(t)) for t in true if np.isfinite(float(t))]])
