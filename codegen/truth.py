"""The truth that both sides are measured against: complex steps through the index notation, at chosen entries.

It uses neither autograd nor the derivation. In longdoubles where the machine has them, else and on request by mpmath.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import torch

from engine.errors import SymgradError
from engine.evaluate import ComplexSteps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from engine.graph import Graph

Entry = tuple[int, ...]

FAILURES = (SymgradError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What stops an evaluation. Then there is no truth, and a mismatch stays a mismatch."""


def default_number() -> str | int:
    """Complex longdoubles where they hold more than a float64, else 30 digits."""
    return "complex" if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps else 30


@dataclass(eq=False)
class Truth:
    """True values and gradients of one graph at one set of inputs. What stops an evaluation is remembered in `failure`.

    `masks` are the values of nodes without a definition, `number` is the arithmetic (see `engine.evaluate`), `seed` that
    of small moves of the inputs.
    """

    graph: Graph
    inputs: Mapping[str, Tensor]
    grad_out: Sequence[Tensor | None]
    masks: Mapping[str, Tensor]
    number: str | int
    seed: int = 0
    failure: str = ""

    def at(self, node: str, entries: Sequence[Entry], gradient: bool) -> list[Any] | None:
        """The true gradient, or the true value, at entries of a node; None where it cannot be evaluated."""
        try:
            with np.errstate(all="ignore"):
                if not gradient:
                    found = self._steps.values[node]
                    return [found[e] for e in entries]
                return list(self._steps.gradient(node, list(entries), list(self.grad_out)))
        except FAILURES as error:
            self.failure = f"{type(error).__name__}: {error}"
            return None

    @cached_property
    def _steps(self) -> ComplexSteps:
        return ComplexSteps(self.graph, self.inputs, self.number, self.masks)

    def finite(self) -> dict[str, Tensor]:
        """Where the true outputs are finite in this arithmetic, by name; nothing where they cannot be evaluated."""
        try:
            with np.errstate(all="ignore"):
                found = self._steps.values
        except FAILURES as error:
            self.failure = f"{type(error).__name__}: {error}"
            return {}
        return {o: _finite(found[o]) for o in self.graph.outputs if self.graph[o].dtype.is_floating_point}

    def moves(
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

        moves = [0.0]
        for _ in range(3):
            near = replace(self, inputs={name: nudged(t) for name, t in self.inputs.items()})
            found = near.at(node, entries, gradient)
            if found is None:
                return float("inf")
            moves += [abs(float(a) - float(b)) for a, b in zip(found, true, strict=True)]
        return max(float("inf") if np.isnan(m) else m for m in moves)


def _finite(a: Any) -> Tensor:
    mask = np.isfinite(np.asarray(a, dtype=np.longdouble))
    return torch.tensor(mask.tolist(), dtype=torch.bool).reshape(mask.shape)


def masks_of(graph: Graph, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has no definition (an argmax, a random mask), as it came out on the side that is compared."""
    known = ("constant", "detach")
    opaque = (n for n in graph.nodes if n.template is None and n.implicit is None and not n.is_input)
    return {n.name: values[n.name] for n in opaque if n.op not in known}


def chosen_entries(shape: Sequence[int], excess: Tensor, count: int, seed: int) -> list[Entry]:
    """At most `count` entries of a tensor at which to evaluate the truth: the worst difference first, then seeded ones."""
    total = excess.numel()
    if total <= count:
        return [tuple(int(i) for i in at) for at in np.ndindex(*shape)]
    worst = torch.topk(excess.flatten(), max(1, count // 2)).indices
    drawn = torch.randint(total, (4 * count,), generator=torch.Generator().manual_seed(seed))
    order = cast("list[int]", torch.cat([worst, drawn]).tolist())  # pyright: ignore[reportUnknownMemberType]
    flat = list(dict.fromkeys(order))[:count]
    return [tuple(int(i) for i in np.unravel_index(k, tuple(shape))) for k in flat]


def errors(side: Tensor, truth: Sequence[Any], entries: Sequence[Entry], number: str | int) -> list[float]:
    """|side - truth| at entries, computed in the truth's own precision; infinite where only one of them is finite."""
    out: list[float] = []
    with mpmath.workdps(number if isinstance(number, int) else 30):
        for at, t in zip(entries, truth, strict=True):
            mine = float(side[at])
            if not np.isfinite(mine) or not np.isfinite(float(t)):
                out.append(0.0 if mine == float(t) else float("inf"))
            else:
                out.append(float(abs(t - mine)))
    return out
