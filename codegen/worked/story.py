"""A closed program told in the order of its emitted file: every tensor with its formula, its lines and how it follows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.closed.write.emit import saved_shape, shape_of_saved
from codegen.formula import left_side, lettered
from codegen.reference import values_of
from codegen.worked.rewritten import alike, forward_stages
from codegen.worked.told import ToldStage, definitions, told
from engine.sizes import evaluate
from engine.spelling import shape_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sympy import Expr

    from codegen.closed.regions.cells import Cell
    from codegen.closed.write.blocks import Block
    from codegen.closed.write.writer import ClosedWriter
    from codegen.derivation import Proof
    from codegen.worked.told import Equation
    from engine.graph import Graph


WHOLE, SHARE = "the cotangent of", "a part of the cotangent of"


@dataclass(frozen=True)
class Part:
    """One tensor of the emitted file.

    Attributes:
        name: what it is called; `cell` the node whose cotangent it is, "" for others.
        equation: its formula; None where the lines say all.
        stages: how it follows from the chain rule, or a tensor of the forward from its traced definition; () where that is all.
        like: the part before it that follows by the same steps with other names, "" if there is none; then `stages` is ().
        lines: the emitted torch statements.
        ranks: the number of dimensions of what the formula names.
        role: what it is of its cell: the cotangent, or a part of it that a later statement adds to others.
    """

    name: str
    cell: str
    equation: Equation | None
    stages: tuple[ToldStage, ...]
    like: str
    lines: tuple[str, ...]
    ranks: dict[str, int] = field(repr=False)
    role: str = WHOLE


@dataclass(frozen=True)
class Kept:
    """A tensor that is kept for the backward, and its number of elements at the example's sizes."""

    name: str
    shape: str
    count: int


@dataclass(frozen=True)
class Memory:
    """What the emitted forward saves, inputs apart, and what autograd keeps of the same forward."""

    inputs: tuple[Kept, ...]
    saved: tuple[Kept, ...]
    autograd: tuple[Kept, ...]

    @property
    def total(self) -> int:
        """Elements saved, inputs left out."""
        return sum(k.count for k in self.saved)

    @property
    def autograd_total(self) -> int:
        """Elements that autograd keeps, inputs left out."""
        return sum(k.count for k in self.autograd)


def forward_story(writer: ClosedWriter) -> tuple[Part, ...]:
    """Every tensor that the derivation names, by its definition; one without lines is not computed or written inside of another."""
    avoid = {*writer.by_name, *map(str, writer.graph.sizes)}
    known: dict[str, Equation | None] = {}
    for unit in writer.units:
        if unit in writer.regions:
            region = writer.regions[unit]
            known |= definitions(region.code, region.names, avoid)
            continue
        for c in unit.cells:
            if c.expr is not None:
                known[c.name] = left_and_right(c, avoid)
    lines = {b.name: b.lines for b in writer.emitted}
    ranks = ranks_of(writer)
    stages = forward_stages(writer, avoid, ranks)
    traced = [c.name for c in writer.structure.traced if c.name in stages]
    keys, first = alike(writer), dict[Any, str]()
    out: list[Part] = []
    for n in dict.fromkeys([*known, *lines, *traced]):
        own = stages.get(n, ())
        like = first.setdefault((keys.get(n, n), tuple(re.sub("`.*`", "", s.rule) for s in own)), n) if own else n
        told_here = own if like == n else ()
        out.append(Part(n, "", known.get(n), told_here, "" if like == n else like, lines.get(n, ()), ranks))
    return tuple(out)


def left_and_right(c: Cell, avoid: set[str]) -> Equation:
    """A cell's definition with letters for its indices."""
    right, at = lettered(cast("Expr", c.expr), c.indices, avoid)
    return left_side(c.name, at), right


def backward_story(writer: ClosedWriter) -> tuple[Part, ...]:
    """The tensors of the emitted backward. What follows by the same steps as a part before it refers to that one."""
    ranks, avoid = ranks_of(writer), {*writer.by_name, *map(str, writer.graph.sizes)}
    proofs = {p.name: p for p in writer.proofs}
    names = {b.name for b in writer.backward.blocks}
    loose = [p for p in writer.proofs if p.name not in names]
    cells = {b.name: _cell(writer, b, proofs.get(b.name)) for b in writer.backward.blocks}
    nameless = nameless_after(writer.proofs, names, {*cells.values()})
    first: dict[Any, str] = {}
    out: list[Part] = []
    for b in writer.backward.blocks:
        cell = cells[b.name]
        for p in [p for p in loose if p.cell == cell]:
            loose.remove(p)
            out.append(_proven(p, p.cell, (), ranks, first, avoid))
        if b.name in proofs:
            out.append(_proven(proofs[b.name], cell, b.lines, ranks, first, avoid))
        else:
            out.append(Part(b.name, cell, b.equation, (), "", b.lines, ranks))
        for p in nameless.get(b.name, ()):
            loose.remove(p)
            out.append(_proven(p, p.cell, (), ranks, first, avoid))
    parts = (*out, *[_proven(p, p.cell, (), ranks, first, avoid) for p in loose])
    return tuple(replace(p, role=SHARE) if is_share(p, writer) else p for p in parts)


def nameless_after(proofs: Sequence[Proof], names: Collection[str], cells: Collection[str]) -> dict[str, list[Proof]]:
    """What is proven of cotangents that no statement computes, by the tensor among `names` after which it was found."""
    found: dict[str, list[Proof]] = {}
    before = ""
    for p in proofs:
        if p.name in names:
            before = p.name
        elif before and p.cell not in cells:
            found.setdefault(before, []).append(p)
    return found


def is_share(part: Part, writer: ClosedWriter) -> bool:
    """Whether a tensor is one of several that together are a cotangent."""
    return bool(part.cell) and writer.backward.names.get(part.cell, part.name) != part.name


def _proven(
    p: Proof, cell: str, lines: tuple[str, ...], ranks: dict[str, int], first: dict[Any, str], avoid: set[str]
) -> Part:
    key = (id(p.origin.code), p.origin.statement) if p.origin is not None else p.name
    like = first.setdefault(key, p.name)
    stages = told(p, avoid) if like == p.name else ()
    known = {**ranks, **(stages[-1].ranks if stages else p.ranks)}
    equation = stages[-1].equation if stages else p.equation(avoid=avoid)
    return Part(p.name, cell, equation, stages, "" if like == p.name else like, lines, known)


def _cell(writer: ClosedWriter, block: Block, proof: Proof | None) -> str:
    """The node whose cotangent a block computes."""
    if proof is not None:
        return proof.cell
    return next((cell for cell, cot in writer.backward.names.items() if cot == block.name), "")


def ranks_of(writer: ClosedWriter) -> dict[str, int]:
    """The number of dimensions of what the formulas of a program name."""
    outputs = writer.graph.outputs
    seeds = {"grad_out" if writer.graph.single else f"grad_out_{k}": o for k, o in enumerate(outputs)}
    return {**writer.ranks, **{s: len(writer.graph[o].shape) for s, o in seeds.items()}}


def memory(writer: ClosedWriter) -> Memory:
    """What is kept between forward and backward, by the emitted code and by autograd."""
    graph = writer.graph
    kept = [Kept(n, saved_shape(writer, n), elements(writer, n)) for n in writer.saved]
    return Memory(
        tuple(k for k in kept if k.name in graph.inputs),
        tuple(k for k in kept if k.name not in graph.inputs),
        kept_by_autograd(graph),
    )


def elements(writer: ClosedWriter, name: str) -> int:
    """The number of elements of a saved tensor at the example's sizes."""
    count = 1
    for s in shape_of_saved(writer, name):
        count *= evaluate(s, writer.graph.example)
    return count


def kept_by_autograd(graph: Graph) -> tuple[Kept, ...]:
    """The tensors that autograd saves for the same forward at the example's sizes, inputs left out.

    Memory that several of them share counts once, with the node that owns it; what belongs to no node is an op's own.
    """
    inputs = [regular(graph, name).requires_grad_(graph[name].differentiable) for name in graph.inputs]
    own = {t.untyped_storage().data_ptr() for t in inputs}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        pointer = t.untyped_storage().data_ptr()
        if pointer not in own:
            count = t.untyped_storage().nbytes() // t.element_size()
            kept[pointer] = max(kept.get(pointer, (0, t)), (count, t), key=lambda k: k[0])
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        values = values_of(graph, inputs, keep_gradients=True)
    owners: dict[int, str] = {}
    for name, v in values.items():
        owners.setdefault(v.untyped_storage().data_ptr(), name)
    order = {n.name: k for k, n in enumerate(graph.nodes)}
    found = [
        Kept(owners[p], shape_text(graph[owners[p]].shape), count)
        if p in owners
        else Kept("", str(tuple(t.shape)), count)
        for p, (count, t) in kept.items()
        if owners.get(p) not in graph.inputs
    ]
    return tuple(sorted(found, key=lambda k: (order.get(k.name, len(order)), k.shape)))


def regular(graph: Graph, name: str) -> torch.Tensor:
    """An input at which everything can be computed: positive numbers, and positive definite ones where they are square matrices."""
    node = graph[name]
    shape = [evaluate(s, graph.example) for s in node.shape]
    if not node.dtype.is_floating_point:
        return torch.zeros(shape, dtype=node.dtype)
    if len(shape) < 2:
        return torch.ones(shape, dtype=node.dtype)
    return torch.ones(shape, dtype=node.dtype) + torch.eye(*shape[-2:], dtype=node.dtype)


__all__ = ["Kept", "Memory", "Part", "backward_story", "forward_story", "memory"]
