"""The forward's statements: those of closed regions, and of the contractions and calls between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.closed.write.blocks import Block, Term
from codegen.closed.write.likes import covers, expanded, may_be_view
from codegen.closed.write.line import LIKE
from codegen.closed.write.places import begun
from codegen.lowering import tensors as tt
from codegen.lowering.lower import Lowered, Lowerer
from codegen.lowering.values import is_scalar
from codegen.steps import Used, forward_text
from engine.own import reachable

if TYPE_CHECKING:
    from codegen.closed.closing import Closed
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.structure import Structure
    from codegen.closed.write.blocks import Labels
    from codegen.closed.write.likes import Likes
    from codegen.lowering.lower import Scatter


class Forward:
    """Writes the forward, unit by unit."""

    def __init__(self, structure: Structure, labels: Labels, likes: Likes) -> None:
        self.structure, self.labels, self.likes = structure, labels, likes
        self.blocks: list[Block] = []
        self.used = Used()
        self.several: dict[str, int] = {}
        """How many tensors the calls make that make more than one, by the name that these have together."""

    def region(self, closed: Closed) -> None:
        """The statements of a closed region."""
        code, names = closed.code, closed.names
        cells = {c.name: c for c in code.cells}
        for line in code.forward:
            name, cell, low = names[line.name], cells[line.name], line.value
            call = self.taken_from_call(name, Term(line.indices, line.expr, names))
            if call is not None:
                self.blocks.append(self.labels.block(name, (call,), Term(line.indices, line.expr, names)))
                continue
            like = self.likes.precision(cell)
            if like is None and any(x == tt.name(LIKE) for t in low.texts() for x in tt.walk(t)):
                infos = {c.name: c.info for c in code.cells}
                low = Lowerer(infos, {}).lower(line.expr, line.indices, line.shape)
            made = self.made(name, cell, low, names if like is None else {**names, LIKE: like})
            self.blocks.append(self.labels.block(name, made, Term(line.indices, line.expr, names)))

    def call(self, c: Cell) -> None:
        """The statement of a contraction or of another call: by its definition where it has one, else the forward's own."""
        node, avoid = c.node, self.labels.letters
        terms = () if c.expr is None else (Term(c.indices, c.expr, {}),)
        if c.expr is not None and (
            not c.call or node is None or node.call is None or not reachable(node.call.function)
        ):
            low = Lowerer(self.structure.infos, {}, self.likes.precision(c)).lower(c.expr, c.indices, c.shape)
            self.blocks.append(Block(c.name, (), self.made(c.name, c, low, {}), terms, avoid))
            return
        assert node is not None
        assert node.call is not None
        product = self.product(c) if node.op == "einsum" else None
        if product is not None:
            self.blocks.append(Block(c.name, (), self.made(c.name, c, product, {}), terms, avoid))
            return
        self.used.see_size(node.call.args)
        self.used.see_size(dict(node.call.kwargs))
        text = forward_text(self.structure.graph, node)
        if node.output is not None:
            text = f"{self.shared(text, node.outputs)}[{node.output}]"
        self.blocks.append(Block(c.name, (), (f"{c.name} = {text}",), terms, avoid))

    def taken_from_call(self, name: str, term: Term) -> str | None:
        """The statement of what a call makes beside what is there of it, as the values that stand at the places of a maximum.

        None where nothing of the call is there, or the tensor is defined in another way by now.
        """
        c = self.structure.by_name.get(name)
        node = None if c is None else c.node
        if c is None or node is None or node.output is None or node.call is None or term.named(c.indices) != c.expr:
            return None
        text = forward_text(self.structure.graph, node)
        if all(b.lines[0].partition(" = ")[2] != text for b in self.blocks):
            return None
        return f"{name} = {self.shared(text, node.outputs)}[{node.output}]"

    def product(self, c: Cell) -> Lowered | None:
        """An einsum as the matrix product that it is, which copies no tensor; None where it is something else."""
        if c.expr is None:
            return None
        low = Lowerer(self.structure.infos, {}, self.likes.precision(c)).lower(c.expr, c.indices, c.shape)
        parts = [] if low.dense is None or low.scatters else list(tt.walk(low.dense.t))
        plain = all(t.kind != "call" for t in parts) and any(t.kind == "binary" and t.head == "@" for t in parts)
        return low if plain and low.dense is not None and covers(low.dense, c.shape) else None

    def shared(self, text: str, count: int) -> str:
        """The name of a call's `count` outputs together, which is made once."""
        known = next((b.name for b in self.blocks if b.lines[0].partition(" = ")[2] == text), None)
        if known is None:
            known = self.labels.namer("outputs")
            self.several[known] = count
            self.blocks.append(Block(known, (), (f"{known} = {text}",)))
        return known

    def made(self, name: str, cell: Cell, low: Lowered, names: dict[str, str]) -> tuple[str, ...]:
        """The statements of a cell of the forward: an expression, or places of a tensor that are filled."""
        likes, v = self.likes, low.dense
        like = likes.from_inputs(cell.dtype)
        if v is None:
            t = likes.constant(tt.number(0), cell.shape, cell.dtype, like)
        elif v.is_number:
            t = likes.constant(tt.rename(v.t, names, {}), cell.shape, cell.dtype, like)
        else:
            t = tt.rename(v.t, names, {})
            if not covers(v, cell.shape):
                t = expanded(t, cell.shape)
            if cell.kind != v.kind:  # whole numbers may go through a division, or be the truth of something
                t = tt.method(t, "to", likes.dtype_text(cell.dtype, like))
            if low.scatters and may_be_view(t):
                t = tt.method(t, "clone")
        scatters: list[Scatter] = []
        for s in low.scatters:
            own = s.renamed(names)
            if s.kind != cell.kind and not is_scalar(own.value) and not s.fills:
                own = replace(own, value=tt.method(own.value, "to", likes.dtype_text(cell.dtype, like)))
            scatters.append(own)
        t, scatters = begun(t, scatters)
        self.used.see(t)
        lines = [f"{name} = {tt.text(t)}"]
        for own in scatters:
            alone = v is None and len(low.scatters) == 1
            lines.append(likes.put(name, own, alone, cell.dtype, like, self.used))
        return tuple(lines)


__all__ = ["Forward"]
