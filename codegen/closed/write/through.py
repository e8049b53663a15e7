"""The backward through one closed region: its lines as statements of this graph, and what it passes back to its boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from codegen.closed.plan.apart import WITHOUT
from codegen.closed.plan.backward import cot_name
from codegen.closed.plan.productsonce import PRODUCT
from codegen.closed.plan.recentre import PART
from codegen.closed.plan.rowsonce import ROWS
from codegen.closed.plan.scatters import PLACED
from codegen.closed.plan.sharedsigns import SIGN
from codegen.closed.regions.symmetric import is_symmetric, symmetric_among
from codegen.closed.write.blocks import Term
from codegen.closed.write.cotangents import Piece, is_product, named_piece
from codegen.closed.write.likes import covers, expanded, may_be_view
from codegen.closed.write.line import LIKE, Line
from codegen.closed.write.places import begun, disjoint
from codegen.derivation import Origin, Proof
from codegen.lowering import tensors as tt
from engine.indexed import Indexed
from engine.notation import Index, accesses, base, element, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.closing import Closed
    from codegen.closed.plan.backward import Statement
    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.code import RegionCode
    from codegen.closed.regions.structure import Unit
    from codegen.closed.write.cotangents import Cotangents


class Through:
    """Writes the backward of one region; `proofs` are its simplifications under the names that their tensors got."""

    def __init__(self, unit: Unit, closed: Closed, cots: Cotangents) -> None:
        self.unit, self.closed, self.cots = unit, closed, cots
        self.code, self.names = closed.code, closed.names
        self.labels, self.likes, self.by_name = cots.labels, cots.likes, cots.by_name
        self.live = cots.structure.live
        self.ends = {stmt: self.names[cell] for cell, stmt in self.code.gradients}
        """The lines that pass something back, and the cells of the boundary that get it."""
        self.local = dict(self.names)
        """What everything that a line may read is called in this graph."""
        self.proofs: list[Proof] = []

    def write(self) -> None:
        """All lines, where anything was passed back to the region."""
        pending = self.cots.pending
        if not self.code.backward or not any(n in pending for n in self.unit.names):
            return
        self.local[LIKE] = self.likes.from_cotangents(self.unit.root.dtype)
        for name in self.cots.structure.seeds(self.unit):
            if name not in pending:  # what its readers passed back is provably zero
                pending[name] = [Piece(tt.number(0), False, number=True)]
        self.seed()
        given = {c.name for c in self.code.cells if self.names[c.name] in self.cots.structure.symmetric}
        symmetric = symmetric_among(self.code.cells, given)
        for line in self.code.backward:
            if is_symmetric(line.expr, line.indices, line.shape, symmetric):
                symmetric.add(line.name)
                end = self.ends.get(line.name)
                if end is not None and not self.cots.structure.has_source_outside(end, self.unit):
                    self.cots.symmetric.add(end)
            self.line(line)

    def seed(self) -> None:
        """The cotangents that are known before: finished where all of them comes from outside."""
        read = {
            r for d in self.code.cells if d.expr is not None and self.names.get(d.name) in self.live for r in d.reads
        }
        for c in self.code.cells:
            actual, cot = self.names[c.name], cot_name(c.name)
            if actual in self.cots.names:
                self.local[cot] = self.cots.names[actual]
            if actual in self.cots.pending and actual in self.unit.names:
                partial = c.name in read and len(self.cots.pending[actual]) > 1
                final = self.cots.finish(actual, self.labels.namer(f"d{actual}_out") if partial else None)
                self.local[cot] = self.local[f"{cot}_out"] = final

    def line(self, line: Line) -> None:
        """One line: a tensor, a part of one, a proof that there is nothing to compute, or a cotangent passed on."""
        end = self.ends.get(line.name)
        passed = self.passed_on(line) if end is not None else None
        if end is not None and passed is not None:
            self.local[line.name] = passed
            self.cots.add(end, named_piece(passed))
            readers = [
                c for c in self.code.cells if c.differentiable and cot_name(c.name) != line.name and is_read(line, c)
            ]
            if len(readers) > 1:  # what others pass back is nothing, or cancels
                self.prove(line, self.cots.names.get(end, f"d{end}"))
            return
        if end is not None and line.expr == 0:
            self.prove(line, self.cots.names.get(end, f"d{end}"))
            return
        others = end is not None and self.cots.structure.has_source_outside(end, self.unit)
        product = end is not None and not others and is_product(self.by_name[end])
        multiple = self.multiple(line) if product else None
        if end is not None and multiple is not None:
            self.cots.add(end, Piece(self.dense(line, end), True, formula=self.term(line), multiple=multiple))
            self.prove(line, self.cots.name(end))
            return
        actual, label = self.target(line, others)
        self.local[line.name] = label
        self.labels.note(label, line.shape, line.value.kind)
        if end is not None and others and is_part(line, self.code):
            scatters = tuple(s.renamed(self.local) for s in line.value.scatters)
            self.cots.add(end, Piece(None, False, scatters, self.term(line)))
        elif end is not None and others and is_put(line, self.code):
            self.cots.add(end, Piece(self.dense(line, end), True, formula=self.term(line)))
        else:
            self.cots.write(self.labels.block(label, tuple(self.statements(line, label, actual)), self.term(line)))
            if end is not None:
                self.cots.add(end, named_piece(label))
        self.prove(line, label)

    def passed_on(self, line: Line) -> str | None:
        """The tensor that a line passes on as it is; None where it computes something."""
        e, dense = line.expr, line.value.dense
        if not isinstance(e, Indexed) or name_of(e) not in self.local or dense is None or dense.t.kind != "name":
            return None
        label = self.local[name_of(e)]
        same = self.labels.ranks.get(label, len(line.shape)) == len(line.shape)
        return label if same and e.indices == element(base(name_of(e)), line.indices).indices else None

    def multiple(self, line: Line) -> tuple[str, Expr] | None:
        """The tensor that a line passes on times a number, and the number; None where it is something else, or is read again."""
        number, rest = cast("Any", line.expr).as_independent(Indexed, as_Add=False)
        if number == 1 or not isinstance(rest, Indexed) or any(isinstance(i, Index) for i in number.free_symbols):
            return None
        label = self.local.get(name_of(rest), "")
        whole = rest.indices == element(base(name_of(rest)), line.indices).indices
        read = any(name_of(a) == line.name for other in self.code.backward for a in accesses(other.expr))
        same = self.labels.floats.get(label) == line.shape and bool(line.shape)
        if not whole or not same or read or line.value.scatters:
            return None
        converted = self.dense(line, self.ends[line.name]) != tt.rename(cast("Any", line.value.dense).t, self.local, {})
        return None if converted else (label, number)

    def target(self, line: Line, others: bool) -> tuple[str, str]:
        """The cell whose cotangent a line is ("" for none of this graph's), and what its tensor is called."""
        names, cots = self.names, self.cots
        if line.name in self.ends:
            actual = self.ends[line.name]
            part = f"d{actual}_{self.unit.root.name}"
            return actual, self.labels.namer(part) if others else cots.name(actual)
        if not line.name.startswith("d_"):
            return "", self.labels.namer(self.part_name(line))
        actual = names.get(line.name.removeprefix("d_"))
        if actual not in self.by_name:  # of a cell that only this region has
            return "", self.labels.namer(f"d{names[line.name.removeprefix('d_')]}")
        if cots.names.get(actual) in {p.name for p in cots.pending.get(actual, []) if p.name}:
            del cots.names[actual]  # what was passed back so far keeps its name: it may be read again
        return actual, cots.name(actual)

    def part_name(self, line: Line) -> str:
        """What is no cotangent: one before it is centred, and a shared sum, which is named after the cotangent it sums."""
        if line.name.startswith(PART):
            return f"{self.cots.name(self.names[line.name.removeprefix(PART)])}_uncentred"
        read = {x.head for t in line.value.texts() for x in tt.walk(t) if x.kind == "name"}
        first = min((self.local[n] for n in read if n in self.local), default="")
        if line.name.startswith(WITHOUT):
            return f"{first or 'weights'}_off"
        if line.name.startswith(SIGN):
            return f"{first or 'difference'}_sign"
        if line.name.startswith(ROWS):
            cot = min((label for n, label in self.local.items() if n.startswith("d_") and n in read), default=first)
            return f"{cot}_rows"
        if line.name.startswith(PRODUCT):
            factors = sorted((n.startswith("d_"), self.local[n]) for n in read if n in self.local)
            return "_".join(label for _, label in factors)
        if line.name.startswith(PLACED) and not any(n.startswith("d_") for n in read):
            return f"{first}_sum" if first else "counts"
        cots = sorted(label for n, label in self.local.items() if n.startswith("d_") and n in read)
        return f"{cots[0]}_sum" if cots else "sum_0"

    def statements(self, line: Line, label: str, actual: str) -> list[str]:
        """The statements of a line: an expression or zeros, and the places that are filled."""
        low, cell = line.value, self.by_name.get(actual)
        t = self.dense(line, actual) if low.dense is not None else self.zeros(line, actual)
        t, scatters = begun(t, [s.renamed(self.local) for s in low.scatters])
        self.cots.used.see(t)
        lines = [f"{label} = {tt.text(t)}"]
        dtype = cell.dtype if cell is not None else self.unit.root.dtype
        separate = low.dense is None and disjoint([s.items for s in low.scatters])
        like = self.likes.from_cotangents(dtype)
        for k, s in enumerate(scatters):
            alone = low.dense is None and (k == 0 or separate)
            lines.append(self.likes.put(label, s, alone, dtype, like, self.cots.used))
        return lines

    def dense(self, line: Line, actual: str) -> Any:
        """The part of a line that fills its tensor, in the shape and dtype that it needs to have."""
        low, cell = line.value, self.by_name.get(actual)
        dense = cast("Any", low.dense)
        t = tt.rename(dense.t, self.local, {})
        if dense.is_number:
            dtype = cell.dtype if cell is not None else self.unit.root.dtype
            return self.likes.constant(t, line.shape, dtype, self.likes.from_cotangents(dtype))
        if not covers(dense, line.shape):
            t = expanded(t, line.shape)
            if low.scatters:
                t = tt.method(t, "clone")
        elif low.scatters and may_be_view(t):
            t = tt.method(t, "clone")
        known = [self.by_name[n] for n in self.names.values() if n in self.live and n in self.by_name]
        if cell is not None and any(c.dtype != cell.dtype for c in known):
            t = tt.method(t, "to", tt.name(str(cell.dtype)))
        return t

    def zeros(self, line: Line, actual: str) -> Any:
        """Zeros that a line fills places of."""
        values = [tt.rename(s.value, self.local, {}) for s in line.value.scatters]
        if actual in self.by_name:
            return self.likes.zero_cotangent(self.by_name[actual], values)
        return self.likes.zeros(line.shape, values, self.local[LIKE])

    def term(self, line: Line) -> Term:
        """A line's formula with the names so far."""
        return Term(line.indices, line.expr, dict(self.local))

    def prove(self, line: Line, label: str) -> None:
        """Remember how a line follows, where it is a statement of the derivation."""
        statement: Statement | None = next((s for s in self.code.statements if s.name == line.name), None)
        if statement is None:
            return
        where = {**self.names, **self.local}
        self.proofs.append(
            Proof(
                label,
                self.names.get(statement.cell, ""),
                line.indices,
                line.shape,
                (statement.naive, line.expr),
                where,
                tuple(self.closed.rule(r) for r in statement.rules),
                Origin(self.code.origin or self.code, line.name, where, self.closed.sizes),
            )
        )


def is_read(line: Line, c: Cell) -> bool:
    """Whether a cell reads the one whose cotangent a line is."""
    return line.name.removeprefix("d_") in c.reads


def is_part(line: Line, code: RegionCode) -> bool:
    """Whether a gradient fills only slices of its tensor and nothing of the region reads it."""
    low = line.value
    return read_by_none(line, code) and low.dense is None and bool(low.scatters) and all(s.covers for s in low.scatters)


def is_put(line: Line, code: RegionCode) -> bool:
    """Whether a gradient is values put into zeros and nothing of the region reads it: they may be put into the rest of it."""
    low = line.value
    return low.dense is not None and not low.scatters and tt.puts_into_zeros(low.dense.t) and read_by_none(line, code)


def read_by_none(line: Line, code: RegionCode) -> bool:
    """Whether no line of a region reads another one."""
    return all(line.name not in {name_of(a) for a in accesses(other.expr)} for other in code.backward)


__all__ = ["Through"]
