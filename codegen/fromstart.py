"""Places that a derivation takes for counted from the start: the values of integer inputs, looked at where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

core: Any = torch._C  # pyright: ignore[reportPrivateUsage]  # it says what torch.func put around a tensor


def refuse_below_zero(t: Tensor, reason: str) -> None:
    """Refuse an integer tensor with a number below zero, also inside of `torch.func` and `torch.compile`.

    Raises:
        InputError: it has one; where a compiler traces, the compiled code raises a RuntimeError when it is run.
    """
    if torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg((t >= 0).all(), reason)
        return
    while core._functorch.is_functorch_wrapped_tensor(t):
        t = core._functorch.get_unwrapped(t)
    if not t.is_meta and bool((t < 0).any()):
        raise InputError(reason)
