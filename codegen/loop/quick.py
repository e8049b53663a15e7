"""Value and gradients at sizes that come again and again: the closed program by the kernels that are cheapest there.

What `codegen.loop` makes of a training step, without the step: intermediate values have their memory once, results are new
tensors every time. Equal to the closed program to rounding; every kernel is proven as in the loop.
"""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from codegen.loop.emit import OPERATORS, Writer
from codegen.loop.kernels import RULES
from codegen.loop.layout import Layout, root, workspace
from codegen.loop.record import recorded
from codegen.loop.rules import apply
from codegen.loop.stepwise import FAILURES
from codegen.loop.tidy import tidied
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from codegen.loop.graph import Node, Step
    from codegen.program import Program

OFTEN = 10
"""Calls with the same sizes before kernels are selected for them, which takes about as long as a few hundred calls."""
LARGEST = 1 << 18
"""Elements of the largest value: beyond it calls cost little beside what they compute."""
core: Any = importlib.import_module("torch._C")
PLAIN = frozenset([Tensor, nn.Parameter])


class NotQuickError(SymgradError):
    """A program whose calls are not selected anew."""


class Selection:
    """The functions of a program by the sizes they are for."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.calls: dict[Any, int] = {}
        self.made: dict[Any, Any] = {}
        self.lock = threading.Lock()

    def __call__(self, inputs: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The result and gradients; None where the closed program itself is to be run."""
        key = signature(inputs)
        if key is None or not self.lock.acquire(blocking=False):
            return None
        try:
            run = self.made.get(key)
            if run is None:
                if key in self.made:
                    return None
                self.calls[key] = self.calls.get(key, 0) + 1
                if self.calls[key] < OFTEN:
                    return None
                run = self.made[key] = quick(self.program, inputs)
                if run is None:
                    return None
            with core._AutoDispatchBelowAutograd():  # as no_grad, and nothing is noted at every call
                return run(*inputs)
        finally:
            self.lock.release()


def signature(inputs: Sequence[Any]) -> Any:
    """What a selection depends on; None for inputs that are more than tensors, or are looked at by somebody else."""
    key: list[Any] = [torch.get_default_dtype()]
    for t in inputs:
        if type(t) not in PLAIN or not t.is_cpu or not t.is_contiguous():
            return None
        key.append((t.shape, t.dtype))
    watched = (
        core._len_torch_dispatch_stack()
        or core._len_torch_function_stack()
        or core._functorch.peek_interpreter_stack() is not None
        or torch.compiler.is_compiling()
    )
    return None if watched else tuple(key)


def quick(program: Program, inputs: Sequence[Tensor]) -> Any:
    """The function for inputs of these sizes; None where there is none."""
    from codegen.program import load

    graph = program.graph
    if not graph.single or graph.buffers or len(inputs) != len(graph.inputs):
        return None
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            keys = {n: graph.key(n) for n in graph.inputs}
            wanted = [n for n in graph.inputs if program.wrt is None or keys[n] in program.wrt]
            source = quick_source(program.module, list(graph.inputs), inputs, keys, wanted)
            run = load(source, f"{graph.name}_quick").value_and_grad()
            return run if alike(run(*inputs), program, inputs) else None
    except FAILURES:
        return None


def alike(found: tuple[Tensor, dict[str, Tensor]], program: Program, inputs: Sequence[Tensor]) -> bool:
    """Whether a result and its gradients are those of the closed program itself."""
    out, saved = program.forward(*inputs)
    grads = program.backward(saved)
    pairs = [(found[0], out), *[(found[1][k], g) for k, g in grads.items()]]
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True) for a, b in pairs)


def quick_source(
    module: ModuleType, names: Sequence[str], inputs: Sequence[Tensor], keys: dict[str, str], wanted: Sequence[str]
) -> str:
    """The text of the function. Raises NotQuickError."""
    step = recorded(module, names, {}, dict(zip(names, inputs, strict=True)), 1, 1, keys.__getitem__, None, ())
    largest = max((n.numel for n in step.order if n.dtype is not None), default=0)
    if largest > LARGEST:
        raise NotQuickError(f"a value has {largest:,} elements")
    step.results = {k: n for k, n in step.results.items() if k == "loss" or k.removeprefix("grad.") in wanted}
    step.batch = tuple(n for n, t in zip(names, inputs, strict=True) if not t.is_floating_point())  # indices
    tidied(step)
    apply(step, tuple(r for r in RULES if not r.ahead))  # there is one step, with nothing drawn for others before it
    results = list(step.results.values())
    order = soonest([n for n in step.order if n.constant is None and n.op != "input"])
    layout = Layout(step, list(order), [], [], [], [], kept=frozenset(map(root, results)))
    workspace(layout)
    return written(step, layout, keys)


def soonest(order: Sequence[Node]) -> list[Node]:
    """What nothing reads stands right behind what it reads, while that is in the cache, and lets go of its memory."""
    read = {r for n in order for r in n.reads}
    place = {n: k for k, n in enumerate(order)}
    at = {
        n: (k, 0) if n in read else (max((place.get(r, -1) for r in n.reads), default=-1), k + 1)
        for n, k in place.items()
    }
    return sorted(order, key=at.__getitem__)


def written(step: Step, layout: Layout, keys: dict[str, str]) -> str:
    """The file: memory of intermediate values, and a function of the inputs."""
    writer = Writer(layout, (), False)
    writer.varying = True
    writer.workspace()
    for x in layout.body:
        writer.statement(x)
    given: set[Node] = set()
    texts: dict[str, str] = {}
    for key, n in step.results.items():
        again = n.constant is not None or root(n).op == "input" or root(n) in given
        given.add(root(n))
        texts[key] = f"{writer.ready(n)}{'.clone()' if again else ''}"
    gradients = ", ".join(f'"{keys[k.removeprefix("grad.")]}": {t}' for k, t in texts.items() if k != "loss")
    text = writer.text
    lines = ["import torch", "", *[f"{op} = {OPERATORS[op]}" for op in text.operators], "", "", "def value_and_grad():"]
    lines += [f"    {line}" for line in text.setup if line]
    lines += ["", f"    def run({', '.join(step.inputs)}):", *[f"        {line}" for line in text.body]]
    lines += [f"        return {texts['loss']}, {{{gradients}}}", "", "    return run", ""]
    return "\n".join(lines)


__all__ = ["Selection", "quick_source"]
