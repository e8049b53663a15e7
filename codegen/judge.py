# pyright: basic
"""One row of a check: two tensors compared, and where they differ, the truth asked which one is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from codegen.measure import Difference, difference, largest
from codegen.reference import autograd, values_of
from codegen.truth import chosen_entries, errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from codegen.program import Program
    from codegen.reference import Reference
    from codegen.truth import Entry, Truth

SLACK = 4.0
"""Rounding differs by luck: an error up to this many times autograd's own is not worse than autograd's."""
CONVENTION = 1e-3
"""A truth that moves by this much of its largest entry when the inputs move by STEP is at a kink or a tie."""
STEP = 1e-9
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


@dataclass(frozen=True)
class _Verdict:
    ok: bool
    note: str


@dataclass(eq=False)
class Judge:
    """Makes the rows of one check."""

    program: Program
    tensors: Sequence[Tensor]
    seeds: Sequence[Tensor | None]
    reference: Reference
    truth: Truth
    samples: int
    always: bool
    seed: int
    outputs: dict[str, Tensor]

    def gradient(self, key: str, ours: Tensor) -> Row:
        """The row of a gradient."""
        node = self._node_of(key)
        if node is None:
            return _failed(key, "no node or input has this name")
        theirs = self.reference.gradients[node]
        if theirs is None:
            theirs = torch.zeros_like(self.reference.values[node])
        return self._row(key, node, ours, theirs, gradient=True)

    def value(self, name: str, ours: Tensor) -> Row:
        """The row of a tensor of the forward."""
        return self._row(name, name, ours, self.reference.values[name], gradient=False)

    def _defined(self, node: str) -> Tensor | None:
        """Where a node's value is finite: nothing can be said of a gradient with respect to an infinity or a nan."""
        value = self.reference.values[node]
        return value.isfinite() if value.is_floating_point() else None

    def _node_of(self, key: str) -> str | None:
        graph = self.program.graph
        return next((n.name for n in graph.nodes if graph.key(n.name) == key), None)

    def _row(self, key: str, node: str, ours: Any, theirs: Tensor, gradient: bool) -> Row:
        if not isinstance(ours, torch.Tensor):
            return _failed(key, f"this is a {type(ours).__name__}, not a tensor")
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            shapes = f"{ours.dtype} {tuple(ours.shape)}, not {theirs.dtype} {tuple(theirs.shape)}"
            return _failed(key, f"it is {shapes}".replace("torch.", ""))
        d = difference(ours, theirs, self._defined(node) if gradient else None)
        error = autograd_error = None
        verdict = _Verdict(d.allclose, "")
        if (not d.allclose or (self.always and gradient)) and ours.is_floating_point() and ours.numel():
            entries = chosen_entries(tuple(ours.shape), d.excess, self.samples, self.seed)
            true = self._true(node, entries, gradient)
            if true is None and not d.allclose:
                verdict = _Verdict(
                    False, f"differs from autograd, and the truth is out of reach ({self.truth.failure})"
                )
            if true is not None:
                scale = _scale(theirs, true) or 1.0
                mine, its = (
                    errors(side, true, entries, OVERFLOW_DIGITS if self._overflows else self.truth.number)
                    for side in (ours, theirs)
                )
                error, autograd_error = max(mine) / scale, max(its) / scale
                if not d.allclose:
                    verdict = self._verdict(node, ours, theirs, d, entries, true, mine, its, gradient)
        return Row(
            key,
            verdict.ok,
            d.exact,
            d.allclose,
            d.absolute,
            d.relative,
            d.elementwise,
            error,
            autograd_error,
            verdict.note,
        )

    def _true(self, node: str, entries: list[Entry], gradient: bool) -> list[Any] | None:
        """The truth at entries. Where longdoubles overflow and our forward does not, mpmath tells: its exponents have no end."""
        if self._overflows:
            del entries[2:]
        truth = replace(self.truth, number=OVERFLOW_DIGITS) if self._overflows else self.truth
        found = truth.gradient(node, entries) if gradient else truth.value(node, entries)
        self.truth.failure = truth.failure
        return found

    @cached_property
    def _overflows(self) -> bool:
        if self.truth.number != "complex":
            return False
        finite = self.truth.finite()
        return any(bool((t.isfinite() & ~finite[name]).any()) for name, t in self.outputs.items() if name in finite)

    def _verdict(
        self,
        node: str,
        ours: Tensor,
        theirs: Tensor,
        d: Difference,
        entries: Sequence[Entry],
        true: Sequence[Any],
        mine: Sequence[float],
        its: Sequence[float],
        gradient: bool,
    ) -> _Verdict:
        """Which side is wrong at the entries where the tolerance is exceeded."""
        far = [k for k, at in enumerate(entries) if float(d.excess[at]) > 1]
        if any(not np.isfinite(float(true[k])) for k in far):
            return _Verdict(False, "differs from autograd where the truth is not finite")
        if any(not bool(ours[entries[k]].isfinite()) for k in far):
            return _Verdict(False, "ours is not finite, the truth is")
        scale = _scale(theirs, true)
        worst, its_worst = max(mine[k] for k in far), max(its[k] for k in far)
        at = [entries[k] for k in far]
        if its_worst == float("inf"):
            eps = torch.finfo(ours.dtype).eps
            moves = self._moves(node, at, [true[k] for k in far], 2 * eps, 0.0, gradient)
            unit = max((largest(g) for g in self.seeds if g is not None), default=0.0)
            close = worst <= eps**2 * unit or worst <= SLACK * (
                16 * eps * scale + (moves if moves <= CONVENTION * scale else 0.0)
            )
            close = close or (gradient and worst <= SLACK * self._jitter(node, ours, at))
            return _Verdict(
                close, "autograd is not finite, ours is right" if close else f"both are wrong, ours by {worst:.1e}"
            )
        if worst > SLACK * its_worst:
            if worst > SLACK * self._noise(node, theirs, at, max(scale, self._feeding(node)), gradient):
                return _Verdict(False, f"ours is wrong: error {worst:.1e}, autograd's {its_worst:.1e}")
            return _Verdict(True, "rounding, as much as is to be expected")
        whole = max(scale, self._feeding(node))
        if (
            its_worst > CONVENTION * whole
            and self._moves(node, at, [true[k] for k in far], STEP, STEP, gradient) > CONVENTION * whole
        ):
            return _Verdict(False, "autograd differs from the definition at a kink or a tie, where torch decides")
        return _Verdict(True, "rounding, no worse than autograd's")

    def _feeding(self, node: str) -> float:
        """The largest entry among the cotangents that a node's own is summed from."""
        consumers = [n.name for n in self.program.graph.nodes if node in n.operands]
        found = [self.reference.gradients[c] for c in consumers]
        return max((largest(g) for g in found if g is not None), default=0.0)

    def _noise(self, node: str, theirs: Tensor, entries: Sequence[Entry], scale: float, gradient: bool) -> float:
        """What rounding alone can do at these entries: the running error of a gradient, and how far autograd's own result moves
        when the inputs move by their last bit (unless it jumps, as at a kink).
        """
        moved = [(r.gradients if gradient else r.values)[node] for r in self._moved]
        steps = [abs(float(m[at]) - float(theirs[at])) for m in moved if m is not None for at in entries]
        found = [s for s in steps if s <= CONVENTION * scale]
        if gradient:
            found += [2 * float(self._rounding[node][at]) for at in entries]
        return max((f for f in found if np.isfinite(f)), default=0.0)

    @cached_property
    def _rounding(self) -> dict[str, Tensor]:
        """A running error of every gradient: the last bits of the terms that it is summed from, and what comes down with the
        cotangents. Terms are added with random signs, so that they do not cancel as they do in the gradient itself.
        """
        graph = self.program.graph
        values = values_of(graph, self.tensors, keep_gradients=True)
        generator = torch.Generator().manual_seed(self.seed)

        def spread(g: Tensor, node: str, consumer: str) -> Tensor:
            parts: list[Tensor] = []
            for _ in range(3):
                signed = torch.where(torch.rand(g.shape, generator=generator) < 0.5, -g, g)
                (part,) = torch.autograd.grad(
                    values[consumer], values[node], signed, retain_graph=True, allow_unused=True
                )
                parts.append(torch.zeros_like(values[node]) if part is None else part.abs())
            return torch.stack(parts).amax(0)

        consumers: dict[str, list[str]] = {}
        for n in graph.nodes:
            for o in n.operands:
                consumers.setdefault(o, []).append(n.name)
        found: dict[str, Tensor] = {}
        for n in reversed(graph.nodes):
            total = torch.zeros_like(values[n.name])
            for c in consumers.get(n.name, []):
                g = self.reference.gradients[c]
                if g is not None and values[n.name].requires_grad:
                    total = total + spread(torch.finfo(g.dtype).eps * g.abs(), n.name, c) + spread(found[c], n.name, c)
            found[n.name] = total.detach()
        return found

    def _jitter(self, node: str, ours: Tensor, entries: Sequence[Entry]) -> float:
        """How far our own result moves when the inputs move by their last bit: the rounding of our own formula."""
        key = self.program.graph.key(node)
        return max(abs(float(again[key][at]) - float(ours[at])) for again in self._again for at in entries)

    @cached_property
    def _again(self) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        for tensors, seeds in self._nearby:
            _, saved = self.program.forward(*tensors)
            found.append(self.program.backward(saved, seeds[0] if self.program.graph.single else seeds))
        return found

    @cached_property
    def _moved(self) -> list[Reference]:
        return [autograd(self.program.graph, tensors, seeds) for tensors, seeds in self._nearby]

    @cached_property
    def _nearby(self) -> list[tuple[list[Tensor], list[Tensor | None]]]:
        """Three times the inputs and cotangents, each number moved by up to two units of its last place."""
        generator = torch.Generator().manual_seed(self.seed)

        def nudged(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            bits = torch.randint(-1, 2, t.shape, generator=generator)
            return t * (1 + 2 * torch.finfo(t.dtype).eps * bits.to(t.dtype))

        return [
            ([nudged(t) for t in self.tensors], [None if g is None else nudged(g) for g in self.seeds])
            for _ in range(3)
        ]

    def _moves(
        self, node: str, entries: Sequence[Entry], true: Sequence[Any], relative: float, absolute: float, gradient: bool
    ) -> float:
        """How far the truth moves when the inputs move by next to nothing: far at a kink, little elsewhere."""
        generator = torch.Generator().manual_seed(self.seed)

        def nudged(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            wide = t.double()
            by = relative * wide.abs().clamp(min=absolute / relative)
            return wide + by * torch.randn(t.shape, generator=generator, dtype=torch.float64)

        moves: list[float] = []
        for _ in range(3):
            near = replace(self.truth, inputs={name: nudged(t) for name, t in self.truth.inputs.items()})
            near = replace(near, number=OVERFLOW_DIGITS) if self._overflows else near
            found = near.gradient(node, entries) if gradient else near.value(node, entries)
            moves += [abs(float(a) - float(b)) for a, b in zip(found or (), true, strict=False)] or [float("inf")]
        return max(float("inf") if np.isnan(m) else m for m in moves)


def _scale(theirs: Tensor, true: Sequence[Any]) -> float:
    """The largest finite entry of a tensor or of the truth."""
    return max([largest(theirs), *[abs(float(t)) for t in true if np.isfinite(float(t))]])


def _failed(name: str, note: str) -> Row:
    worst = float("inf")
    return Row(name, False, False, False, worst, worst, worst, None, None, note)
