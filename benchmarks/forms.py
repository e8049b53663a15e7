"""Operations and elements moved by closed programs, against the best hand-derived versions of the same forwards.

Run from the repository's root: `python benchmarks/forms.py [NAME...]`. Every tensor operation that reaches the dispatcher is
counted with the elements it reads and writes; views are free. A ratio above 1.25 is marked.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent.parent))

import codegen
from tests.closed.forms import FORMS, Draw, Form

LIMIT = 1.25
FREE = ("detach", "empty", "new_empty", "lift_fresh", "is_same_size", "_unsafe_view", "_reshape_alias", "alias")


class Counter(TorchDispatchMode):
    """Counts operations, and the elements of all tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.elements = 0, 0
        self.log: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if not func.is_view and name not in FREE:
            tensors = [t for t in pytree.tree_leaves([args, kwargs or {}, out]) if isinstance(t, torch.Tensor)]
            moved = sum(t.untyped_storage().nbytes() // t.element_size() if 0 in t.stride() else t.numel() for t in tensors)
            self.ops += 1
            self.elements += moved
            self.log.append((name, moved))
        return out


def count(run: Any) -> Counter:
    """What `run()` dispatches."""
    with torch.no_grad(), Counter() as counter:
        run()
    return counter


def measured(form: Form) -> tuple[Counter, Counter | None]:
    """The counts of the emitted forward and backward, and of the hand-derived ones."""
    inputs = form.inputs(Draw(0), form.large)
    program = codegen.generate(form.forward, *inputs, wrt=form.wrt or None)
    grad_out = torch.ones_like(program.forward(*inputs)[0])

    def emitted() -> None:
        _, saved = program.module.forward(*inputs)
        program.module.backward(saved, grad_out)

    hand = form.hand
    return count(emitted), None if hand is None else count(lambda: hand(*inputs, grad_out))


def main(names: list[str]) -> None:
    """Print the table."""
    torch.set_default_dtype(torch.float64)
    print(f"{'form':<28} {'ops':>5} {'hand':>5} {'elements':>10} {'hand':>10} {'ratio':>6}")
    over = 0
    for form in FORMS:
        if names and not any(n in form.name for n in names):
            continue
        ours, hand = measured(form)
        if hand is None:
            print(f"{form.name:<28} {ours.ops:>5} {'':>5} {ours.elements:>10}")
            continue
        ratio = ours.elements / hand.elements
        over += ratio > LIMIT
        print(f"{form.name:<28} {ours.ops:>5} {hand.ops:>5} {ours.elements:>10} {hand.elements:>10} {ratio:>6.2f}{' *' * (ratio > LIMIT)}")
    print(f"{over} above {LIMIT}")


if __name__ == "__main__":
    main(sys.argv[1:])
