"""Steps one at a time through the closed backward, for a forward of which no loop can be made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codegen.frames import call_with_locals
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from torch import Generator

    from codegen.loop.plan import Plan

FAILURES = (SymgradError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What may go wrong where a closed program is recorded, or rewritten, in a way that nobody foresaw."""


def stepwise(
    module: ModuleType, names: Sequence[str], batch: Sequence[str], rows: int, plan: Plan, trained: Sequence[str]
) -> Callable[..., Any]:
    """`trainer` of an emitted loop, with the same arguments and results, by `forward` and `backward` of the closed module.

    Args:
        module: the closed module.
        names: its inputs.
        batch: those that are rows of the data.
        rows: how many are drawn for a step.
        plan: see `Plan`.
        trained: the inputs that move.
    """
    forward: Any = partial(call_with_locals, module.forward) if plan.keep else module.forward
    backward: Any = module.backward

    def trainer(
        params: Mapping[str, Tensor], velocities: Mapping[str, Tensor] | None = None, momentum: float = 0.0
    ) -> Callable[..., Tensor]:
        def run(
            data: Sequence[Tensor], steps: int, lr: float, generator: Generator | None = None, watch: Any = None
        ) -> Tensor:
            losses: list[Tensor] = []
            for _ in range(steps):
                drawn = torch.randint(0, len(data[0]), (rows,), generator=generator)
                given = {**params, **dict(zip(batch, [t[drawn] for t in data], strict=True))}
                inputs = [given[n] for n in names]
                result, seen = forward(*inputs) if plan.keep else (forward(*inputs), dict[str, Tensor]())
                out, saved = result
                first = out if plan.outputs == 1 else out[0]
                one = None if plan.outputs == 1 else [torch.ones_like(first), *[None] * (plan.outputs - 1)]
                grads = backward(saved, one)
                after: Mapping[str, Tensor] = plan.renew(inputs) if plan.renew is not None else {}
                losses.append(first.detach().clone().reshape(()))
                if watch is not None:
                    watch(1, {k: seen[k][None] for k in plan.keep})
                for n in trained:
                    step = grads.get(plan.key(n))
                    if step is None:
                        continue
                    if velocities is not None:
                        step = velocities[n].mul_(momentum).add_(step)
                    params[n].sub_(step, alpha=lr)
                for n, value in after.items():
                    params[n].copy_(value)
            return torch.stack(losses)

        return run

    return trainer
