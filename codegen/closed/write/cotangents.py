"""Cotangents as they come together: what readers pass back, and the statements that add it up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Add, Expr, Mul, S

from codegen.closed.algebra.together import moves, together, written
from codegen.closed.plan.backward import passed_back
from codegen.closed.regions.cells import is_contraction
from codegen.closed.regions.structure import reads
from codegen.closed.regions.symmetric import joined as with_symmetric
from codegen.closed.regroup.products import terms
from codegen.closed.write.blocks import LONGEST, Block, Term
from codegen.closed.write.likes import covers, expanded
from codegen.closed.write.places import begun, concatenated, disjoint, put_into
from codegen.closed.write.sidebyside import side_by_side
from codegen.derive import COT, vjp
from codegen.formula import equation_text, lettered_sides
from codegen.implicit import helper_of, law_of, passed
from codegen.lowering import tensors as tt
from codegen.lowering.lower import Lowerer
from codegen.lowering.values import TensorInfo
from codegen.ownoutput import OUT
from codegen.steps import Used, added, kind_of, lowered, mixes, wrapped
from engine.notation import Less, accesses, base, element, fresh
from engine.sizes import evaluate
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.structure import Structure
    from codegen.closed.regroup.products import Product
    from codegen.closed.write.blocks import Labels
    from codegen.closed.write.likes import Likes
    from codegen.lowering.lower import Lowered, Scatter
    from codegen.lowering.tensors import T
    from engine.graph import Node


@dataclass(frozen=True, eq=False)
class Piece:
    """A contribution to a cotangent: torch expressions with this graph's names, and the formula."""

    dense: T | None
    full: bool
    scatters: tuple[Scatter, ...] = ()
    formula: Term | None = None
    name: str | None = None
    number: bool = False
    product: bool = False
    """Whether it is a sum of products, of this graph's tensors and dtypes."""
    multiple: tuple[str, Expr] | None = None
    """The tensor that it is a multiple of, and the number, where it is such a one."""


def named_piece(name: str) -> Piece:
    """A tensor of the cotangent's own shape, passed back as it is."""
    return Piece(tt.name(name), True, name=name)


def named_term(name: str | None, c: Cell) -> Term:
    """A tensor of a cotangent's shape as a formula."""
    at = tuple(S.Zero if n == 1 else fresh() for n in c.shape)
    return Term(at, element(base(cast("str", name)), at), {})


def is_product(c: Cell) -> bool:
    """Whether a cell is a product of matrices."""
    return c.expr is not None and is_contraction(c.expr)


def counted(c: Cell, node: Node, x: str) -> bool:
    """Whether the derivative of a node's own definition counts what a tensor of its own has counted for the cell."""
    if node.template is None or {*c.reads} <= {*node.operands}:
        return False
    at = node.operands.index(x)
    return bool(vjp(node.template, at, node.operand_shapes[at]).expr.has(Less))


class Cotangents:
    """The cotangents of a program: `pending` ones by the pieces they have so far, `blocks` of what is written."""

    def __init__(self, structure: Structure, labels: Labels, likes: Likes) -> None:
        self.structure, self.labels, self.likes = structure, labels, likes
        self.by_name = structure.by_name
        self.names: dict[str, str] = {}
        """What the cotangent of each cell is called."""
        self.pending: dict[str, list[Piece]] = {}
        self.blocks: list[Block] = []
        self.made: set[str] = set()
        self.sums: dict[str, int] = {}
        """What adds up tensors that readers passed back, and how many of its terms have the whole shape."""
        self.symmetric: set[str] = set()
        """Cells whose cotangent is a symmetric matrix."""
        self.used = Used()

    def name(self, cell: str) -> str:
        """The name of a cell's cotangent."""
        if cell not in self.names:
            self.names[cell] = self.labels.namer(f"d{cell}")
            self.labels.note(self.names[cell], self.by_name[cell].shape)
        return self.names[cell]

    def add(self, cell: str, piece: Piece) -> None:
        """One more contribution to a cell's cotangent."""
        self.pending.setdefault(cell, []).append(piece)

    def seed(self, cell: str, given: str) -> None:
        """What the caller gives for a result is a part of its cotangent."""
        if cell in self.structure.live:
            self.pending.setdefault(cell, []).insert(0, named_piece(given))
            self.labels.note(given, self.by_name[cell].shape)

    def write(self, block: Block) -> None:
        """A finished tensor."""
        self.blocks.append(block)
        self.made.add(block.name)

    # -- what calls pass back --------------------------------------------------------------------------------------

    def call(self, c: Cell) -> None:
        """What a contraction, a view or another call passes back."""
        cot, number = self.multiple(c) or (self.finish(c.name), S.One)
        known = self.helper(c, cot)
        sizes = dict(c.node.sizes) if c.node is not None and c.call else {}
        for x in dict.fromkeys(reads(c)):
            if x not in self.structure.live:
                continue
            low, names, formula = self.pulled(c, x, {COT: cot, **known}, number)
            scatters = tuple(s.renamed(names, sizes) for s in low.scatters)
            v = low.dense
            if v is None or (v.is_number and v.t == tt.number(0)):
                if scatters:
                    self.add(x, Piece(None, False, scatters, formula))
                continue
            t = tt.rename(v.t, names, sizes)
            other = self.by_name[x].dtype != c.dtype or (c.node is not None and mixes(c.node, self.structure.graph))
            if other and not v.is_number:
                t = tt.method(t, "to", tt.name(str(self.by_name[x].dtype)))
            full = covers(v, self.by_name[x].shape)
            if (
                full and not scatters and not other and t.kind == "name" and t.head in (cot, *known.values())
            ):  # as it is, so that it needs no name of its own
                self.add(x, named_piece(t.head))
                continue
            product = full and not scatters and not other and is_product(c)
            self.add(x, Piece(t, full, scatters, formula, number=v.is_number, product=product))

    def multiple(self, c: Cell) -> tuple[str, Expr] | None:
        """The tensor that a contraction's cotangent is a multiple of, and the number, where that is multiplied with later for less.

        `-dy @ w` is `-(dy @ w)`: what is passed back then has fewer elements than the cotangent.
        """
        pieces = self.pending[c.name]
        found = pieces[0].multiple if len(pieces) == 1 else None
        if found is None or c.name in self.symmetric:
            return None
        back = [self.by_name[x] for x in dict.fromkeys(reads(c)) if x in self.structure.live]
        if any(x.dtype != c.dtype for x in back) or self.elements(*back) >= self.elements(c):
            return None
        return found

    def elements(self, *cells: Cell) -> int:
        """How many elements cells have together at the sizes of the example."""
        return evaluate(cast("Expr", Add(*[Mul(*x.shape) for x in cells])), self.structure.graph.example)

    def helper(self, c: Cell, cot: str) -> dict[str, str]:
        """The tensor that the backward through an equation computes first, as placeholder and name; {} where there is none."""
        found = None if c.node is None else helper_of(self.structure.graph, c.node, cot, self.labels.namer)
        if found is None:
            return {}
        sizes = {} if c.node is None else dict(c.node.sizes)
        shape = tuple(n.xreplace(sizes) for n in found.auxiliary.shape)
        for name, t in found.statements:
            self.used.see(t)
            self.labels.note(name, shape)
        if found.statements:
            text = equation_text(*found.formula, self.labels.ranks, self.labels.letters)
            lines = tuple(f"{name} = {tt.text(t)}" for name, t in found.statements)
            comment = tuple(wrapped(f"{found.name} solves {text}", 112))
            left, right, _ = lettered_sides(*found.formula, self.labels.letters)
            self.write(Block(found.name, comment, lines, solves=(left, right)))
            self.made |= {name for name, _ in found.statements}
        return {found.auxiliary.name: found.name}

    def pulled(
        self, c: Cell, x: str, known: dict[str, str], number: Expr = S.One
    ) -> tuple[Lowered, dict[str, str], Term]:
        """The part of x's cotangent that comes through c, times a number: in torch, the names it uses, and its formula."""
        node = c.node
        alike = c.name in self.symmetric and c.expr is not None and len(accesses(c.expr, x)) > 1
        plain = number == 1 and not alike
        if plain and node is not None and c.call and law_of(node) is not None and not counted(c, node, x):
            return self.pulled_by_template(node, x, known)
        part = passed_back(Definition(c.shape, c.indices, cast("Expr", c.expr)), x, self.by_name[x].shape)
        if alike:
            part = replace(part, expr=with_symmetric(part.expr, COT))
        infos = {**self.structure.infos, COT: TensorInfo(c.shape), OUT: TensorInfo(c.shape)}
        whole = number * part.expr
        minus = number == -1  # of the product, not of its first factor
        low = Lowerer(infos, {}).lower(part.expr if minus else whole, part.indices, part.shape)
        if minus and low.dense is not None:
            low = replace(low, dense=replace(low.dense, t=tt.unary("neg", low.dense.t)))
        names = {**known, OUT: c.name}
        return low, names, Term(part.indices, whole, names)

    def pulled_by_template(self, node: Node, x: str, known: dict[str, str]) -> tuple[Lowered, dict[str, str], Term]:
        """The same by the definition that all calls of a node's kind share."""
        position = node.operands.index(x)
        graph = self.structure.graph
        kinds = tuple(kind_of(graph[o].dtype) for o in node.operands)
        law = cast("Definition", law_of(node))
        low = lowered(law, position, node.operand_shapes, kinds)
        names = {**{f"_{k}": o for k, o in enumerate(node.operands)}, **known, OUT: node.name}
        part = passed(law, position, node.operand_shapes[position])
        return low, names, Term(part.indices, part.expr.xreplace(dict(node.sizes)), names)

    # -- sums of pieces --------------------------------------------------------------------------------------------

    def finish(self, cell: str, wanted_name: str | None = None) -> str:
        """The cotangent of a cell as one tensor: the statement that adds up what its readers passed back."""
        c = self.by_name[cell]
        pieces = self.together(self.pending[cell], c)
        if len(pieces) == 1 and pieces[0].name is not None:
            self.names.setdefault(cell, pieces[0].name)
            return pieces[0].name
        target = wanted_name or self.name(cell)
        self.labels.note(target, c.shape)
        lines = tuple(self.summed(target, c, pieces))
        if any(p.name is not None for p in pieces) and len(pieces) > 1:
            self.sums[target] = sum(p.full and p.dense is not None for p in pieces)
        terms = [p.formula or named_term(p.name, c) for p in pieces if p.formula is not None or p.name is not None]
        whole = len(terms) == len(pieces)
        apart = [p.formula for p in pieces if p.formula is not None and p.scatters]
        joined = side_by_side(apart) if whole and len(apart) > 1 else None
        terms = terms if joined is None else [*[t for t in terms if t not in apart], joined]
        self.write(self.labels.block(target, lines, *terms) if whole else Block(target, (), lines))
        return target

    def together(self, pieces: list[Piece], c: Cell) -> list[Piece]:
        """The pieces, with those products as one that cost less so."""
        at = tuple(S.Zero if n == 1 else fresh() for n in c.shape)
        ranges = {i: n for i, n in zip(at, c.shape, strict=True) if i != 0}
        left: list[Piece] = []
        products: list[Product] = []
        for p in pieces:
            plain = p.formula is not None and p.product
            found = terms(p.formula.named(at)) if plain and p.formula is not None else None
            if found is None or not all(q.limits and len(q.factors) > 1 for q in found):
                left.append(p)
            else:
                products.extend(found)

        def elements(indices: Iterable[Any]) -> float:
            sizes = {**ranges, **{i: n for q in products for i, n in q.limits}}
            return float(evaluate(cast("Expr", Mul(*[sizes[i] for i in indices])), self.structure.graph.example))

        out = elements(ranges)
        joined = together(products, out, elements)
        if len(joined) == len(products) and not any(moves(q, out, elements) for q in products):
            return pieces
        cots = {n: TensorInfo(self.by_name[x].shape) for x, n in self.names.items()}
        lowerer = Lowerer({**self.structure.infos, **cots}, {}, example=self.structure.graph.example)
        expr = cast("Expr", Add(*[written(q, out, elements) for q in joined]))
        low = lowerer.lower(expr, at, c.shape)
        return [*left, Piece(cast("Any", low.dense).t, True, formula=Term(at, expr, {}))]

    def summed(self, target: str, c: Cell, pieces: list[Piece]) -> list[str]:
        """The statements that add up the pieces of a cell's cotangent: dense ones first, then places."""
        lines: list[str] = []
        dense = put_into([(p.dense, p.full and not p.number) for p in pieces if p.dense is not None])
        full = any(p.full for p in pieces if p.dense is not None)
        scatters = [s for p in pieces for s in p.scatters]
        joined = concatenated(scatters)
        if joined is not None:
            dense, full, scatters = [*dense, joined], True, []
        like = self.likes.from_cotangents(c.dtype)
        if dense:
            while len(dense) > LONGEST:
                t = added(dense[:LONGEST])
                self.used.see(t)
                lines.append(f"{target} = {tt.text(t)}")
                dense = [tt.name(target), *dense[LONGEST:]]
            t = added(dense)
            if joined is None and all(p.number for p in pieces if p.dense is not None):
                t = self.likes.constant(t, c.shape, c.dtype, like)
            elif not full and c.shape:
                t = expanded(t, c.shape)
                if scatters:
                    t = tt.method(t, "clone")
            elif scatters and t.kind in ("name", "method", "attribute", "item"):
                t = tt.method(t, "clone")
        else:
            t = self.likes.zero_cotangent(c, [s.value for s in scatters])
        t, scatters = begun(t, scatters)
        self.used.see(t)
        lines.append(f"{target} = {tt.text(t)}")
        apart = not dense and disjoint([s.items for s in scatters])
        for k, s in enumerate(scatters):
            alone = not dense and (k == 0 or apart)
            lines.append(self.likes.put(target, s, alone, c.dtype, like, self.used))
        return lines

    def finish_input(self, name: str) -> str:
        """The gradient of a wanted input."""
        if name in self.pending:
            return self.finish(name)
        target = self.name(name)
        self.used.names.add(name)
        at = tuple(S.Zero if n == 1 else fresh() for n in self.by_name[name].shape)
        comment = (f"{target} = 0: {name} has no influence on the result",)
        lines = (f"{target} = torch.zeros_like({name})",)
        self.write(Block(target, comment, lines, (Term(at, S.Zero, {}),), self.labels.letters))
        return target


__all__ = ["Cotangents", "Piece", "is_product", "named_piece"]
