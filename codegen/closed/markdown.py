"""The closed forms of a program as Markdown, and what is saved against what autograd keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.closed.emit import saved_shape, shape_of_saved
from codegen.emit import render
from codegen.reference import values_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from codegen.closed.writer import ClosedWriter
    from engine.graph import Graph


def closed_markdown(writer: ClosedWriter) -> str:
    """The section of `derivation.md` that leads from the chain to the closed forms."""
    graph = writer.graph
    proofs: list[dict[str, Any]] = []
    for p in writer.proofs:
        naive, latex = p.latex(naive=True), p.latex()
        rules = ", ".join(rule_text(r) for r in p.rules)
        proofs.append(
            {"name": p.name, "cell": p.cell, "naive": naive if naive != latex else "", "latex": latex, "rules": rules}
        )
    saved = [{"name": n, "shape": saved_shape(writer, n), "count": elements(writer, n)} for n in writer.saved]
    own = sum(elements(writer, n) for n in writer.saved if n not in graph.inputs)
    refused = [r for code, _ in writer.codes.values() for r in code.refused]
    return render(
        "closed.md.j2", proofs=proofs, saved=saved, total=own, autograd=kept_by_autograd(graph), refused=refused
    )


def rule_text(rule: str) -> str:
    """A rule with the tensors it names as code."""
    words = rule.split(" ")
    return " ".join([*words[:-1], f"`{words[-1]}`"]) if rule.startswith("definition of ") else rule


def elements(writer: ClosedWriter, name: str) -> int:
    """The number of elements of a saved tensor at the example's sizes."""
    count = 1
    for s in shape_of_saved(writer, name):
        count *= evaluate(s, writer.graph.example)
    return count


def kept_by_autograd(graph: Graph) -> int:
    """Elements of the tensors that autograd saves for the same forward at the example's sizes, inputs left out."""
    inputs: list[torch.Tensor] = []
    for name in graph.inputs:
        node = graph[name]
        shape = [evaluate(s, graph.example) for s in node.shape]
        made = (
            torch.ones(shape, dtype=node.dtype)
            if node.dtype.is_floating_point
            else torch.zeros(shape, dtype=node.dtype)
        )
        inputs.append(made.requires_grad_(node.differentiable))
    own = {t.untyped_storage().data_ptr() for t in inputs}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        pointer = t.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = max(kept.get(pointer, 0), t.untyped_storage().nbytes() // t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        values = values_of(graph, inputs, keep_gradients=True)
    del values
    return sum(kept.values())
