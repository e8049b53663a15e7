"""How much of a difference rounding explains: what moves when the inputs move by their last bit, and a running error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from codegen.measure import difference, largest
from codegen.reference import autograd, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codegen.program import Program
    from codegen.reference import Reference
    from codegen.truth import Entry

DRAWS = 3
UNITS = (2, 3, 5, 7, 11, 13, 17, 19)
"""Units of the last place by which inputs are moved to see whether autograd has no result next to them."""
JUMP = 1e-3
"""A gradient that moves by this much of what it is summed from, when inputs move by their last bit, is at a kink."""


@dataclass(eq=False)
class Rounding:
    """The rounding of one program and of autograd, at one set of inputs."""

    program: Program
    tensors: Sequence[Tensor]
    seeds: Sequence[Tensor | None]
    reference: Reference
    seed: int

    @property
    def unit(self) -> float:
        """The largest entry of the result's cotangent."""
        return max((largest(g) for g in self.seeds if g is not None), default=0.0)

    def feeding(self, node: str, gradient: bool) -> float:
        """The largest entry among the cotangents that a node's own is summed from; for a value, of what its op reads, or 1."""
        if not gradient:
            read = [self.reference.values[o] for o in self.program.graph[node].operands]
            return min(1.0, max((largest(v.detach().double()) for v in read), default=0.0))
        found = [self.reference.gradients[n.name] for n in self.program.graph.nodes if node in n.operands]
        return max((largest(g) for g in found if g is not None), default=0.0)

    def expected(self, node: str, theirs: Tensor, entries: Sequence[Entry], jump: float, gradient: bool) -> float:
        """What rounding alone can do at these entries.

        That is the running error of a gradient, and how far autograd's own result moves when the inputs move by their last
        bit, unless it is as far as `jump`.
        """
        moved = [(r.gradients if gradient else r.values)[node] for r in self._moved]
        steps = [abs(float(m[at]) - float(theirs[at])) for m in moved if m is not None for at in entries]
        found = [s for s in steps if s <= jump]
        if gradient:
            found += [2 * float(self._running[node][at]) for at in entries]
        return max((f for f in found if np.isfinite(f)), default=0.0)

    def explains(self, node: str, gradient: Tensor, theirs: Tensor) -> bool:
        """Whether rounding alone can make one autograd's gradient out of another's."""
        if gradient.shape != theirs.shape:
            return False
        entries = [tuple(int(k) for k in at) for at in (difference(gradient, theirs).excess > 1).nonzero()]
        apart = max((abs(float(gradient[at]) - float(theirs[at])) for at in entries), default=0.0)
        return apart <= 2 * self.expected(node, theirs, entries, JUMP * self.feeding(node, True), True)

    def singular(self, node: str, entries: Sequence[Entry], gradient: bool) -> bool:
        """Whether rounding alone decides if there is a result at these entries: autograd has none at inputs next to these.

        So it is where a difference of what is equal, 0 or a last bit, is divided by.
        """
        left = set(entries)
        for tensors, seeds in (near for units in UNITS for near in self._nearby(DRAWS, units)):
            r = autograd(self.program.graph, tensors, seeds)
            moved = (r.gradients if gradient else r.values)[node]
            left = {at for at in left if moved is None or bool(moved[at].isfinite())}
            if not left:
                return True
        return False

    def jitter(self, node: str, ours: Tensor, entries: Sequence[Entry]) -> float:
        """How far our own result moves when the inputs move by their last bit: the rounding of our own formula."""
        key = self.program.graph.key(node)
        return max(abs(float(again[key][at]) - float(ours[at])) for again in self._again for at in entries)

    def _nearby(self, count: int = DRAWS, units: int = 2) -> Iterator[tuple[list[Tensor], list[Tensor | None]]]:
        """Inputs and cotangents, each number moved by so many units of its last place, down or up, or not at all."""
        generator = torch.Generator().manual_seed(self.seed)

        def nudged(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            bits = torch.randint(-1, 2, t.shape, generator=generator)
            return t * (1 + units * torch.finfo(t.dtype).eps * bits.to(t.dtype))

        for _ in range(count):
            yield [nudged(t) for t in self.tensors], [None if g is None else nudged(g) for g in self.seeds]

    @cached_property
    def _moved(self) -> list[Reference]:
        return [autograd(self.program.graph, tensors, seeds) for tensors, seeds in self._nearby()]

    @cached_property
    def _again(self) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        for tensors, seeds in self._nearby():
            _, saved = self.program.forward(*tensors)
            found.append(self.program.backward(saved, seeds[0] if self.program.graph.single else seeds))
        return found

    @cached_property
    def _running(self) -> dict[str, Tensor]:
        """A running error of every gradient: the last bits of the terms that it is summed from, and what comes down with them.

        Terms are added with random signs, so that they do not cancel as they do in the gradient itself.
        """
        graph = self.program.graph
        values = values_of(graph, self.tensors, keep_gradients=True)
        generator = torch.Generator().manual_seed(self.seed)

        def spread(g: Tensor, node: str, consumer: str) -> Tensor:
            parts = [torch.zeros_like(values[node])]
            for _ in range(DRAWS):
                signed = torch.where(torch.rand(g.shape, generator=generator) < 0.5, -g, g)
                found = cast(
                    "tuple[Any, ...]",
                    torch.autograd.grad(values[consumer], values[node], signed, retain_graph=True, allow_unused=True),
                )
                parts += [p.abs() for p in found if isinstance(p, Tensor)]
            return torch.stack(parts).amax(0)

        consumers: dict[str, list[str]] = {}
        for n in graph.nodes:
            for o in n.operands:
                consumers.setdefault(o, []).append(n.name)
        running: dict[str, Tensor] = {}
        for n in reversed(graph.nodes):
            total = torch.zeros_like(values[n.name])
            for c in consumers.get(n.name, []):
                g = self.reference.gradients[c]
                if g is not None and values[n.name].requires_grad:
                    own = torch.finfo(g.dtype).eps * g.abs()
                    total = total + spread(own, n.name, c) + spread(running[c], n.name, c)
            running[n.name] = total.detach()
        return running
