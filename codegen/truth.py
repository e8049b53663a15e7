# pyright: basic
"""The truth that both sides are measured against: complex steps through the index notation, at chosen entries.

It uses neither autograd nor the derivation. In longdoubles where the machine has them, else and on request by mpmath.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
import torch

from engine.errors import SymgradError
from engine.evaluate import evaluate, truth_gradient

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
    """True values and gradients of one graph at one set of inputs. What cannot be evaluated is remembered in `failure`."""

    graph: Graph
    inputs: Mapping[str, Tensor]
    grad_out: Sequence[Tensor | None]
    masks: Mapping[str, Tensor]
    number: str | int
    failure: str = ""

    def gradient(self, node: str, entries: Sequence[Entry]) -> list[Any] | None:
        """The true gradient at entries of a node, or None (see `failure`)."""
        try:
            with np.errstate(all="ignore"):
                found = truth_gradient(
                    self.graph, self.inputs, node, list(entries), list(self.grad_out), self.number, self.masks
                )
        except FAILURES as error:
            self.failure = f"{type(error).__name__}: {error}"
            return None
        return list(found)

    def value(self, node: str, entries: Sequence[Entry]) -> list[Any] | None:
        """The true value at entries of a node, or None (see `failure`)."""
        number = "longdouble" if self.number == "complex" else self.number
        try:
            with np.errstate(all="ignore"):
                found = evaluate(self.graph, self.inputs, number, self.masks)[node]
        except FAILURES as error:
            self.failure = f"{type(error).__name__}: {error}"
            return None
        return [found[e] for e in entries]

    def finite(self) -> dict[str, Tensor]:
        """Where the true outputs are finite, in this arithmetic; nothing where it cannot be evaluated."""
        try:
            with np.errstate(all="ignore"):
                found = evaluate(
                    self.graph, self.inputs, "longdouble" if self.number == "complex" else self.number, self.masks
                )
        except FAILURES as error:
            self.failure = f"{type(error).__name__}: {error}"
            return {}
        outputs = [o for o in self.graph.outputs if self.graph[o].dtype.is_floating_point]
        return {o: _finite(found[o]) for o in outputs}


def _finite(a: Any) -> Tensor:
    mask = np.isfinite(np.asarray(a, dtype=np.longdouble))
    return torch.tensor(mask.tolist(), dtype=torch.bool).reshape(mask.shape)


def masks_of(graph: Graph, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has no definition (an argmax, a random mask), as it came out on the side that is compared."""
    opaque = [
        n.name for n in graph.nodes if n.template is None and not n.is_input and n.op not in ("constant", "detach")
    ]
    return {name: values[name] for name in opaque}


def chosen_entries(shape: Sequence[int], excess: Tensor, count: int, seed: int) -> list[Entry]:
    """At most `count` entries of a tensor at which to evaluate the truth: the worst difference first, then seeded ones."""
    total = excess.numel()
    if total <= count:
        return [tuple(int(i) for i in at) for at in np.ndindex(*shape)]
    worst = torch.topk(excess.flatten(), max(1, count // 2)).indices.tolist()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(total, (4 * count,), generator=generator).tolist()
    flat = list(dict.fromkeys([*worst, *drawn]))[:count]
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
