"""Counts what reaches torch's dispatcher: operations, and the elements of all tensors that they read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.program import Program
    from tests.closed.forms.form import Form

FREE = ("detach", "empty", "new_empty", "lift_fresh", "is_same_size", "_unsafe_view", "_reshape_alias", "alias")


class Counter(TorchDispatchMode):
    """`ops` and `elements` of everything that runs inside. Views are free; an expanded tensor is as large as its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.elements = 0, 0
        self.log: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it."""
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if not func.is_view and name not in FREE:
            tensors = [t for t in pytree.tree_leaves([args, kwargs or {}, out]) if isinstance(t, torch.Tensor)]
            moved = sum(memory(t) for t in tensors)
            self.ops += 1
            self.elements += moved
            self.log.append((name, moved))
        return out


def memory(t: torch.Tensor) -> int:
    """The elements that a tensor occupies."""
    return t.untyped_storage().nbytes() // t.element_size() if 0 in t.stride() else t.numel()


def count(run: Callable[[], Any]) -> Counter:
    """What `run()` dispatches."""
    with torch.no_grad(), Counter() as counter:
        run()
    return counter


def measured(form: Form, program: Program) -> tuple[Counter, Counter | None]:
    """The counts of the emitted forward and backward of a form's program, and of the hand-derived ones."""
    from tests.closed.forms.form import Draw

    inputs = form.inputs(Draw(0), form.large)
    grad_out = torch.ones_like(program.forward(*inputs)[0])

    def emitted() -> None:
        _, saved = program.module.forward(*inputs)
        program.module.backward(saved, grad_out)

    hand = form.hand
    return count(emitted), None if hand is None else count(lambda: hand(*inputs, grad_out))
