"""The rows of a check: two tensors compared, and where they differ, the truth asked which one is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from codegen.measure import difference
from codegen.truth import chosen_entries, errors
from codegen.verdict import Dispute, Verdict, largest_true, verdict

if TYPE_CHECKING:
    from torch import Tensor

    from codegen.measure import Difference
    from codegen.reference import Reference
    from codegen.rounding import Rounding
    from codegen.truth import Truth
    from engine.graph import Graph

OVERFLOW_DIGITS = 30
"""Digits of the truth where longdoubles overflow."""


@dataclass(frozen=True)
class Row:
    """One tensor of a check.

    Attributes:
        name: the key of the gradient, or the name of the value.
        ok: whether this is no mismatch.
        exact: bit-equal to autograd's.
        allclose: within torch's default tolerances at the dtype.
        absolute: the largest absolute difference.
        relative: that, over the largest entry of autograd's.
        elementwise: the largest of |(theirs - ours) / theirs|, the measure of the notebook.
        error: of ours against the truth at the sampled entries, over the largest entry; None where it was not asked for.
        autograd_error: the same of autograd's.
        note: what was found where the two differ, and which side is wrong.
    """

    name: str
    ok: bool
    exact: bool
    allclose: bool
    absolute: float
    relative: float
    elementwise: float
    error: float | None
    autograd_error: float | None
    note: str = ""


@dataclass(eq=False)
class Judge:
    """Makes the rows of one check.

    Attributes:
        outputs: the emitted forward's own results by name, to see whether the truth overflows where they do not.
        samples: entries per tensor at which the truth is evaluated.
        always: whether rows that agree get their errors, too.
    """

    graph: Graph
    reference: Reference
    rounding: Rounding
    truth: Truth
    outputs: dict[str, Tensor]
    samples: int
    always: bool
    seed: int

    def gradient(self, key: str, ours: Any) -> Row:
        """The row of a gradient."""
        node = next((n.name for n in self.graph.nodes if self.graph.key(n.name) == key), None)
        if node is None:
            return _failed(key, "no node or input has this name")
        theirs = self.reference.gradients[node]
        value = self.reference.values[node]
        # Nothing can be said of a gradient with respect to an infinity or a nan.
        defined = value.isfinite() if value.is_floating_point() else None
        return self._row(key, node, ours, torch.zeros_like(value) if theirs is None else theirs, defined, gradient=True)

    def value(self, name: str, ours: Any) -> Row:
        """The row of a tensor of the forward."""
        return self._row(name, name, ours, self.reference.values[name], None, gradient=False)

    def _row(self, key: str, node: str, ours: Any, theirs: Tensor, defined: Tensor | None, gradient: bool) -> Row:
        if not isinstance(ours, torch.Tensor):
            return _failed(key, f"this is a {type(ours).__name__}, not a tensor")
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            shapes = f"{ours.dtype} {tuple(ours.shape)}, not {theirs.dtype} {tuple(theirs.shape)}"
            return _failed(key, f"it is {shapes}".replace("torch.", ""))
        d = difference(ours, theirs, defined)
        asked = (not d.allclose or (self.always and gradient)) and ours.is_floating_point() and ours.numel() > 0
        found = self._truly(node, ours, theirs, d, gradient) if asked else None
        if d.allclose:
            judged = Verdict(True, "")
        elif found is None:
            judged = Verdict(False, f"differs from autograd, and the truth is out of reach ({self.truth.failure})")
        else:
            judged = verdict(found.where(d.excess > 1), self.rounding, self._true)
        scale = 1.0 if found is None else found.scale or 1.0
        return Row(
            name=key,
            ok=judged.ok,
            exact=d.exact,
            allclose=d.allclose,
            absolute=d.absolute,
            relative=d.relative,
            elementwise=d.elementwise,
            error=None if found is None else max(found.mine) / scale,
            autograd_error=None if found is None else max(found.its) / scale,
            note=judged.note,
        )

    def _truly(self, node: str, ours: Tensor, theirs: Tensor, d: Difference, gradient: bool) -> Dispute | None:
        """Both sides against the truth at chosen entries; None where there is no truth."""
        count = 1 if self._true is not self.truth else self.samples
        entries = chosen_entries(tuple(ours.shape), d.excess, count, self.seed)
        true = self._true.at(node, entries, gradient)
        if true is None:
            self.truth.failure = self._true.failure
            return None
        mine, its = (errors(side, true, entries, self._true.number) for side in (ours, theirs))
        scale = largest_true(theirs, true)
        return Dispute(node, gradient, ours, theirs, tuple(entries), tuple(true), tuple(mine), tuple(its), scale)

    @cached_property
    def _true(self) -> Truth:
        """Where longdoubles overflow and our forward does not, mpmath tells: its exponents have no end."""
        if self.truth.number != "complex":
            return self.truth
        finite = self.truth.finite()
        over = any(bool((t.isfinite() & ~finite[name]).any()) for name, t in self.outputs.items() if name in finite)
        return replace(self.truth, number=OVERFLOW_DIGITS) if over else self.truth


def _failed(name: str, note: str) -> Row:
    worst = float("inf")
    return Row(name, False, False, False, worst, worst, worst, None, None, note)
