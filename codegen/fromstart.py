"""Places that a derivation takes for counted from the start: the values of integer inputs, looked at where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import InputError
from engine.fromstart import WRITTEN, places_from_start
from engine.ops.classification import NOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from engine.fromstart import Place
    from engine.graph import Graph

core: Any = torch._C  # pyright: ignore[reportPrivateUsage]  # it says what torch.func put around a tensor


@dataclass(frozen=True)
class Refused:
    """What is said of places below the `least`, and of those that are not below `size`, where it is known."""

    reason: str
    least: int = 0
    size: int | None = None

    def check(self, t: Tensor) -> None:
        """Refuse an integer tensor with such a number, also inside of `torch.func` and `torch.compile`.

        Raises:
            InputError: it has one; where a compiler traces, the compiled code raises a RuntimeError when it is run.
        """
        if torch.compiler.is_compiling():
            torch.ops.aten._assert_async.msg(self.inside(t).all(), self.reason)
            return
        while core._functorch.is_functorch_wrapped_tensor(t):
            t = core._functorch.get_unwrapped(t)
        if not t.is_meta and not bool(self.inside(t).all()):
            raise InputError(self.reason)

    def inside(self, t: Tensor) -> Tensor:
        """Where it has none."""
        return t >= self.least if self.size is None else (t >= self.least) & (t < self.size)


def refused(graph: Graph, tensors: Sequence[Tensor], closed: bool) -> dict[str, Refused]:
    """The integer inputs that are looked at before they are used: torch refuses some of their values, and what is derived may not.

    In steps mode an op's own call refuses them.
    """
    found = dict[str, Refused]()
    places = places_from_start(graph)
    for name, p in places.inputs.items() if closed else ():
        if name not in places.alone or p.node.op in WRITTEN:  # what is read at others is refused by the emitted call
            found[name] = outside(graph, name, p)
    for name, where in written_from_start(graph, tensors).items():
        found[name] = Refused(
            f"{graph.name}: {name} has places below zero, which count from the end; the example had none, and "
            f"what is written at {where} was derived without: generate again with an example that has one.",
        )
    return found


def outside(graph: Graph, name: str, p: Place) -> Refused:
    """What is said of an input with places that a node refuses."""
    size, least = int(p.size) if p.size.is_Integer else None, p.least or 0
    places = f"places below {least}" if size is None else f"places that are not from {least} to {size - 1}"
    return Refused(f"{graph.name}: {name} has {places}, which {p.node.op} at {p.node.source} refuses", least, size)


def of_data(graph: Graph) -> dict[str, Refused]:
    """What is said of data with places that a training loop, which reads them in brackets, would count from the end."""
    return {name: outside(graph, name, p) for name, p in places_from_start(graph).inputs.items()}


def written_from_start(graph: Graph, tensors: Sequence[Tensor]) -> dict[str, str]:
    """The integer inputs without a number below zero that tell where something is written, and where that is.

    What is written there hides what was there before, by a comparison with these numbers. A gather's derivative is a scatter
    by torch, which counts from the end as the gather does.
    """
    whole = {n: t for n, t in zip(graph.inputs, tensors, strict=True) if not (t.is_floating_point() or t.is_meta)}
    found: dict[str, str] = {}
    for put in (n for n in graph.nodes if n.op in ("index_put", "index_fill")):
        stack = [o for o in put.operands if not graph[o].dtype.is_floating_point]
        while stack:
            name = stack.pop()
            if name in whole and whole[name].dtype != torch.bool and not bool((whole[name] < 0).any()):
                found.setdefault(name, str(put.source))
            stack.extend(o for o in graph[name].operands if not graph[o].dtype.is_floating_point)
    return found


def ignored(graph: Graph, tensors: Sequence[Tensor]) -> str:
    """Which input holds what torch's losses leave out, though none did in the trace; "" if none does."""
    losses = [n for n in graph.nodes if n.op in ("cross_entropy", "nll_loss")]
    for name, t in zip(graph.inputs, tensors, strict=True):
        if losses and t.dtype == torch.int64 and name in places_from_start(graph).alone and bool((t == NOTHING).any()):
            return (
                f"{graph.name}: {name} holds {NOTHING}, which {losses[0].op} at {losses[0].source} ignores; the example held none, "
                f"and the gradient was derived without: generate again with an example that does"
            )
    return ""
