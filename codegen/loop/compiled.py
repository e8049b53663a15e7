# pyright: basic
"""Several steps of the closed form in one call of torch.compile; the text has no autograd, so the compiler sees plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.make import inputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from torch import Generator, Tensor

    from codegen.loop.make import Plan

STEPS = 10
"""How many steps a call takes. The rest of a run goes through the emitted loop."""
CHUNK_BYTES = 16 << 20


def compiled(
    module: ModuleType,
    values: Mapping[str, Tensor],
    velocities: Mapping[str, Tensor],
    batch: Sequence[str],
    size: int,
    momentum: float,
    plan: Plan,
) -> Callable[[Sequence[Tensor], int, float, Generator | None], Tensor]:
    """A function (data, calls, lr, generator) -> losses that takes `calls * STEPS` steps on `values`, in place."""
    names = inputs_of(module)
    held = [n for n in names if n not in batch]
    trained = [n for n in held if n in velocities]

    def several(
        now: list[Tensor], speeds: list[Tensor], rows: list[Tensor], rate: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        state, moving = dict(zip(held, now, strict=True)), dict(zip(trained, speeds, strict=True))
        losses: list[Tensor] = []
        for k in range(STEPS):
            at = dict(zip(batch, [r[k] for r in rows], strict=True))
            before = dict(state)
            out, saved = module.forward(*[at[n] if n in at else state[n] for n in names])
            first = out if plan.outputs == 1 else out[0]
            given = None if plan.outputs == 1 else [torch.ones_like(first), *[None] * (plan.outputs - 1)]
            grads = module.backward(saved, given)
            losses.append(first.reshape(()))
            for n in trained:
                gradient = grads[plan.key(n)]
                if momentum:
                    gradient = moving[n] = momentum * moving[n] + gradient
                state[n] = state[n] - rate * gradient
            if plan.renew is not None:
                state.update(plan.renew([at[n] if n in at else before[n] for n in names]))
        return [state[n] for n in held], [moving[n] for n in trained], torch.stack(losses)

    call = cast("Any", torch.compile(several, dynamic=False))

    def run(data: Sequence[Tensor], calls: int, lr: float, generator: Generator | None) -> Tensor:
        now, speeds = [values[n] for n in held], [velocities[n] for n in trained]
        rate = torch.tensor(lr, dtype=now[0].dtype if now[0].is_floating_point() else None)
        found: list[Tensor] = []
        with torch.no_grad():
            for _ in range(calls):
                rows = torch.randint(0, len(data[0]), (STEPS * size,), generator=generator)
                picked = [t[rows].view(STEPS, size, *t.shape[1:]) for t in data]
                now, speeds, losses = call(now, speeds, picked, rate)
                found.append(losses)
            for n, value in zip(held, now, strict=True):
                if value is not values[n]:
                    values[n].copy_(value)
            for n, value in zip(trained, speeds, strict=True):
                if value is not velocities[n]:
                    velocities[n].copy_(value)
        return torch.cat(found)

    return run


__all__ = ["STEPS", "compiled"]
