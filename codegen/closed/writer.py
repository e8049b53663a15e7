"""A closed program: forward and backward of all regions and contractions in order, as data for the template."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sympy import Add, Expr, Integer, Mul, S, Tuple

from codegen import tensors as tt
from codegen.closed.backward import cot_name, is_local
from codegen.closed.cells import Builder, Cell, is_contraction
from codegen.closed.code import Line, RegionCode, region_code, resized
from codegen.closed.division import lowered_at
from codegen.closed.line import LIKE
from codegen.closed.recentre import PART
from codegen.closed.region import Region, boundary, grouped, normalized
from codegen.closed.samesize import with_equal_sizes
from codegen.derivation import Origin, Proof
from codegen.derive import COT, OUT, pulled_back
from codegen.formula import LETTERS, filled, left_side, lettered, named, text_template
from codegen.lower import Lowered, Lowerer
from codegen.steps import Used, added, kind_of, starts_negative, without_minus, wrapped
from codegen.values import TensorInfo, is_scalar
from engine.indexed import Indexed
from engine.naming import Namer
from engine.notation import Index, Sigma, accesses, base, element, fresh, name_of
from engine.own import reachable
from engine.sizes import evaluate
from engine.table import Definition

ZERO = S.Zero
LONGEST = 16
"""How many terms of a gradient are added up in one statement, or listed in its formula."""

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.backward import Statement
    from codegen.emitfunction import Emission
    from codegen.tensors import T
    from codegen.values import Val
    from engine.graph import Graph


@dataclass(frozen=True, eq=False)
class Unit:
    """What is processed at once: one contraction or call, or a region."""

    cells: tuple[Cell, ...]
    local: bool


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a formula at output `indices`, and what its tensors are called in this graph."""

    indices: tuple[Expr, ...]
    expr: Expr
    names: Mapping[str, str]

    def named(self, at: tuple[Expr, ...]) -> Expr:
        """The part at other indices, with this graph's names."""
        where = {i: j for i, j in zip(self.indices, at, strict=True) if i != 0}
        return named(self.expr.xreplace(where), self.names)


@dataclass(frozen=True)
class Block:
    """The lines of one tensor under its formula."""

    name: str
    comment: tuple[str, ...]
    lines: tuple[str, ...]
    terms: tuple[Term, ...] = ()
    """What the formula adds up, where there is one."""
    avoid: frozenset[str] = frozenset()
    """Letters that are no index here."""

    @cached_property
    def equation(self) -> tuple[Expr, Expr] | None:
        """Left and right side of the formula, where there is one."""
        if not self.terms:
            return None
        at = self.terms[0].indices
        total = Add(*[t.named(at) for t in self.terms])
        right, at = lettered(total, at, self.avoid)
        return left_side(self.name, at), right


def is_part(line: Line, code: RegionCode) -> bool:
    """Whether a gradient fills only slices of its tensor and nothing of the region reads it."""
    low = line.value
    alone = all(line.name not in {name_of(a) for a in accesses(other.expr)} for other in code.backward)
    return alone and low.dense is None and bool(low.scatters) and all(s.covers for s in low.scatters)


def covers(v: Val, shape: tuple[Expr, ...]) -> bool:
    """Whether a tensor has every dimension of a shape in full, so that it needs no expansion."""
    return (
        not v.is_number
        and len(v.axes) == len(shape)
        and all(a is not None or n == 1 for a, n in zip(v.axes, shape, strict=True))
    )


def concatenated(scatters: list[tuple[tuple[Any, ...], T, bool, bool]]) -> T | None:
    """Slices that fill a dimension one after the other as `torch.cat`; None where they do anything else."""
    parts: dict[Any, tuple[Any, T]] = {}
    dims: set[int] = set()
    for items, value, _, covers in scatters:
        cut = [d for d, i in enumerate(items) if i != tt.EVERYTHING]
        if not covers or len(cut) != 1 or items[cut[0]].kind != "slice":
            return None
        start, stop, step = items[cut[0]].args
        if step is not None or start in parts:
            return None
        dims.add(cut[0])
        parts[start] = (stop, value)
    at: Any = None
    values: list[T] = []
    while at in parts and len(values) < len(parts):
        at, value = parts[at]
        values.append(value)
    if len(dims) != 1 or at is not None or len(values) != len(parts) or len(values) < 2:
        return None
    return tt.call("torch.cat", tuple(values), dims.pop())


def disjoint(places: list[tuple[Any, ...]]) -> bool:
    """Whether no two of several places have an element in common: they differ in one dimension's runs, of equal steps."""
    runs: list[tuple[Any, Any, Any]] = []
    dims: set[int] = set()
    for items in places:
        cut = [d for d, i in enumerate(items) if i != tt.EVERYTHING]
        if len(cut) != 1 or not (is_scalar(items[cut[0]]) or items[cut[0]].kind == "slice"):
            return False
        dims.add(cut[0])
        at = items[cut[0]]
        first, last, step = at.args if at.kind == "slice" else (at.args[0] if at.kind == "size" else None, None, None)
        if at.kind != "slice":
            first = Integer(int(at.head)) if at.kind == "number" else first
            last = None if first is None else first + 1
        runs.append((ZERO if first is None else first, last, step or 1))
    return len(dims) == 1 and all(apart(a, b) for k, a in enumerate(runs) for b in runs[:k])


def apart(one: tuple[Any, Any, Any], other: tuple[Any, Any, Any]) -> bool:
    """Whether two runs (start, stop, step) have no place in common: one ends before the other, or they alternate."""
    (a, end, step), (b, stop, pace) = one, other
    if step == pace and step != 1 and (a - b).is_Integer:
        return (a - b) % step != 0
    return any(
        x is not None and x.is_nonnegative is not False and (y - x).is_nonnegative for x, y in ((end, b), (stop, a))
    )


@dataclass
class Piece:
    """A contribution to a cotangent: torch expressions with this graph's names, and the formula."""

    dense: T | None
    full: bool
    scatters: list[tuple[tuple[Any, ...], T, bool, bool]] = field(
        default_factory=list[tuple[tuple[Any, ...], "T", bool, bool]]
    )
    formula: Term | None = None
    name: str | None = None
    number: bool = False


def accumulated(target: str, items: tuple[Any, ...], value: T) -> str:
    """Values added where integer tensors say; what is fixed by a number is selected first, `index_put_` takes tensors only."""
    fixed = [is_scalar(i) for i in items]
    while fixed and not fixed[-1]:
        fixed.pop()
    selected = ", ".join(tt.argument(i) if f else ":" for i, f in zip(items, fixed, strict=False))
    tensors = [tt.argument(i) for i in items if not is_scalar(i)]
    where = f"({', '.join(tensors)}{',' if len(tensors) == 1 else ''})"
    return f"{target}{f'[{selected}]' if selected else ''}.index_put_({where}, {tt.text(value)}, accumulate=True)"


class ClosedWriter:
    """Writes the closed forward and backward of a graph for the gradients of `wanted` inputs."""

    def __init__(self, graph: Graph, wanted: tuple[str, ...]) -> None:
        self.graph = graph = with_equal_sizes(graph)
        self.wanted = wanted
        self.cells = Builder(graph).build()
        self.by_name = {c.name: c for c in self.cells}
        self.namer = Namer([*self.by_name, *(n.name for n in graph.nodes), *map(str, graph.sizes)])
        self.readers: dict[str, list[Cell]] = {}
        for c in self.cells:
            for r in dict.fromkeys(self.reads(c)):
                self.readers.setdefault(r, []).append(c)
        self.live = self._live()
        self.units = self._units()
        self.cots: dict[str, str] = {}
        self.pending: dict[str, list[Piece]] = {}
        self.codes: dict[int, tuple[RegionCode, dict[str, str]]] = {}
        self.sizes: dict[int, dict[Any, Expr]] = {}
        self.forward_blocks: list[Block] = []
        self.blocks: list[Block] = []
        self.proofs: list[Proof] = []
        self.used_forward, self.used_backward = Used(), Used()
        self.made: set[str] = set()
        self.gradients: dict[str, str] = {}
        self.saved: tuple[str, ...] = ()
        self.emitted: tuple[Block, ...] = ()
        """The forward's statements as they stand in the file."""
        self.emission: Emission | None = None
        self.letters = frozenset(LETTERS) & {*self.by_name, *map(str, graph.sizes)}
        self.ranks: dict[str, int] = {c.name: len(c.shape) for c in self.cells}

    # -- structure -------------------------------------------------------------------------------------------------

    def _live(self) -> set[str]:
        """Cells on a path from a wanted input to an output."""
        down: set[str] = set()
        for c in self.cells:
            if c.name in self.wanted or (c.differentiable and any(r in down for r in self.reads(c))):
                down.add(c.name)
        up: set[str] = set(self.graph.outputs)
        for c in reversed(self.cells):
            if c.name in up:
                up.update(self.reads(c))
        return down & up

    def reads(self, c: Cell) -> tuple[str, ...]:
        """What a cell is computed from."""
        return c.node.operands if c.node is not None and c.call else c.reads

    def _units(self) -> list[Unit]:
        """Regions, contractions and calls, each after what it reads."""
        groups = [Unit(tuple(g), True) for g in grouped(self.cells)]
        owner = {c.name: u for u in groups for c in u.cells}
        units = dict.fromkeys(owner.get(c.name) or Unit((c,), False) for c in self.cells)
        of = {c.name: u for u in units for c in u.cells}
        done: dict[Unit, None] = {}
        for unit in units:
            stack: list[tuple[Unit, bool]] = [(unit, False)]
            while stack:
                u, ready = stack.pop()
                if u in done:
                    continue
                if ready:
                    done[u] = None
                    continue
                stack.append((u, True))
                needs = dict.fromkeys(of[r] for c in u.cells for r in (*self.reads(c), *c.after) if of[r] is not u)
                stack.extend((n, False) for n in reversed(list(needs)) if n not in done)
        return list(done)

    # -- forward ---------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Everything."""
        for number, u in enumerate(self.units):
            if u.local:
                self._close(number, u)
        for k, o in enumerate(self.graph.outputs):
            self._seed(o, self._given(k))
        for number, u in reversed(list(enumerate(self.units))):
            if u.local:
                self._region_backward(number)
            elif u.cells[0].name in self.live and u.cells[0].expr is not None and u.cells[0].name in self.pending:
                self._call_backward(u.cells[0])
        for name in self.wanted:
            self._finish_input(name)
        for number, u in enumerate(self.units):
            if u.local:
                self._region_forward(number)
            elif not (u.cells[0].node is not None and u.cells[0].node.is_input):
                self._call_forward(u.cells[0])

    def _close(self, number: int, u: Unit) -> None:
        readers = self._outside(u)
        is_out = set(self.graph.outputs)
        seeds = self._seeds_of(number)
        needed = tuple(c.name for c in u.cells if c.name in is_out or c.name in readers)
        edge = boundary(list(u.cells), self.by_name)
        wanted = tuple(c.name for c in edge if c.name in self.live)
        relations, read = self._relations(seeds, readers)
        edge = [*edge, *[replace(self.by_name[n], expr=None) for n in read if n not in {c.name for c in edge}]]
        summed = tuple((n, axes) for n in wanted for axes in [self._summed(n)] if axes)
        key, region, names, sizes = normalized(Region((*edge, *u.cells), seeds, wanted, needed, relations, summed))
        values = {z: evaluate(n, self.graph.example) for z, n in sizes.items()}
        code = resized(region_code(key, region, values), sizes)
        for c in code.cells:
            if c.name not in names:
                origin = c.name.split("_")[0]
                names[c.name] = self.namer(f"{names.get(origin, origin)}_{c.name.partition('_')[2]}")
                self.ranks[names[c.name]] = len(c.shape)
        self.codes[number], self.sizes[number] = (code, names), sizes

    def _outside(self, u: Unit) -> dict[str, list[Cell]]:
        """The cells of a unit that are read from outside of it, with who reads them."""
        own = {c.name for c in u.cells}
        found = {n: [c for c in self.readers.get(n, []) if c.name not in own] for n in own}
        return {n: cs for n, cs in found.items() if cs}

    def _seeds_of(self, number: int) -> tuple[str, ...]:
        """The cells of a unit whose cotangent comes, in part or as a whole, from outside."""
        u = self.units[number]
        readers = self._outside(u)
        return tuple(
            c.name
            for c in u.cells
            if c.name in self.live
            and (c.name in self.graph.outputs or any(r.name in self.live for r in readers.get(c.name, [])))
        )

    def _summed(self, name: str) -> tuple[tuple[int, ...], ...]:
        """The sets of axes over which a contraction's gradient is summed against a tensor, one for each tensor that gets a gradient."""
        c = self.by_name[name]
        if c.expr is None or not is_contraction(c.expr):
            return ()
        found: dict[tuple[int, ...], None] = {}
        for a in accesses(c.expr):
            if name_of(a) in self.live:
                at = a.free_symbols
                found[tuple(k for k, i in enumerate(c.indices) if i != 0 and i not in at)] = None
        return tuple(axes for axes in found if axes)

    def _relations(
        self, seeds: tuple[str, ...], readers: dict[str, list[Cell]]
    ) -> tuple[tuple[tuple[Expr, Expr], ...], list[str]]:
        """For o = Sum_j p v, the only reader of p: Sum_j p dp = Sum_d o do, over whatever indices o has and p has not.

        It holds because o is linear in p. It is offered where o is at most half as large as p: the sum over p takes the
        rounding of dp with it, which cancels in `dp - Sum_j p dp` where p is nearly one, the one over o is rounded by itself.
        """
        found: list[tuple[Expr, Expr]] = []
        read: list[str] = []
        for name in seeds:
            live = [c for c in readers.get(name, []) if c.name in self.live]
            if len(live) != 1 or name in self.graph.outputs or live[0].expr is None or not is_contraction(live[0].expr):
                continue
            o, p = live[0], self.by_name[name]
            sums = [f for f in Mul.make_args(cast("Expr", o.expr)) if isinstance(f, Sigma)]
            own = accesses(cast("Expr", o.expr), name)
            if (
                len(sums) != 1
                or len(own) != 1
                or own[0] not in Mul.make_args(sums[0].body)
                or 2 * self._count(o) > self._count(p)
            ):
                continue
            at = [i for i in own[0].indices if i != 0]
            summed = [(i, n) for i, n in sums[0].limits]
            if (
                any(not isinstance(i, Index) for i in at)
                or len(set(at)) != len(at)
                or any(i not in at for i, _ in summed)
            ):
                continue
            rest = [(i, n) for i, n in zip(o.indices, o.shape, strict=True) if i != 0 and i not in at]
            order = {i: Index(f"_r{k}") for k, i in enumerate([*at, *[i for i, _ in rest]])}
            left = Sigma(element(base(cot_name(name)), own[0].indices) * own[0], *[Tuple(i, n) for i, n in summed])
            right = Sigma(
                element(base(cot_name(o.name)), o.indices) * element(base(o.name, o.positive), o.indices),
                *[Tuple(i, n) for i, n in rest],
            )
            if rest:
                found.append((left.xreplace(order), right.xreplace(order)))
                read.append(o.name)
        return tuple(found), read

    def _count(self, c: Cell) -> int:
        """The number of elements of a cell at the example's sizes."""
        return evaluate(cast("Expr", Mul(*c.shape)), self.graph.example) if c.shape else 1

    def _region_forward(self, number: int) -> None:
        code, names = self.codes[number]
        sizes = {c.name: c for c in code.cells}
        for line in code.forward:
            name = names[line.name]
            cell = sizes[line.name]
            like, low = self._like(cell), line.value
            if like is None and any(x == tt.name(LIKE) for t in low.texts() for x in tt.walk(t)):
                infos = {c.name: TensorInfo(c.shape, c.kind) for c in code.cells}
                low = Lowerer(infos, {}).lower(line.expr, line.indices, line.shape)
            made = self._made(name, cell, low, names if like is None else {**names, LIKE: like})
            self.forward_blocks.append(self._block(name, made, Term(line.indices, line.expr, names)))

    def _made(self, name: str, cell: Cell, low: Lowered, names: dict[str, str]) -> tuple[str, ...]:
        """The statements of a cell of the forward: an expression, or places of a tensor that are filled."""
        like, used, v = self._input_like(cell.dtype), self.used_forward, low.dense
        if v is None:
            t = self._constant(tt.number(0), cell.shape, cell.dtype, like)
        elif v.is_number:
            t = self._constant(self._rename(v.t, names), cell.shape, cell.dtype, like)
        else:
            t = self._rename(v.t, names)
            if not covers(v, cell.shape):
                t = tt.method(t, "expand", *[tt.size(s) for s in cell.shape])
            if cell.kind != v.kind:  # whole numbers may go through a division, or be the truth of something
                t = tt.method(t, "to", self._dtype_text(cell.dtype, like))
            if low.scatters:
                t = tt.method(t, "clone")
        used.see(t)
        lines = [f"{name} = {tt.text(t)}"]
        for s in low.scatters:
            items, value = tuple(self._rename(i, names) for i in s.items), self._rename(s.value, names)
            if s.kind != cell.kind and not is_scalar(value):
                value = tt.method(value, "to", self._dtype_text(cell.dtype, like))
            alone = v is None and len(low.scatters) == 1
            lines.append(self._scatter(name, items, value, s.accumulate, alone, cell.dtype, like, used))
        return tuple(lines)

    def _dtype_text(self, dtype: Any, like: str) -> T:
        """A dtype: that of the input `like` where it has it, so that the emitted code follows its inputs."""
        return tt.attribute(tt.name(like), "dtype") if self._dtype_of(like) == dtype else tt.name(str(dtype))

    def _constant(self, value: T, shape: tuple[Expr, ...], dtype: Any, like: str) -> T:
        """A number as a tensor: of `shape` and `dtype`, where the tensor `like` is."""
        keywords = {} if self._dtype_of(like) == dtype else {"dtype": tt.name(str(dtype))}
        sizes = tuple(tt.size(n) for n in shape)
        if value == tt.number(0):
            return tt.method(tt.name(like), "new_zeros", sizes, **keywords)
        return tt.method(tt.name(like), "new_full", sizes, value, **keywords)

    def _dtype_of(self, like: str) -> Any:
        """The dtype of an input, or of the result that a given cotangent belongs to."""
        given = {self._given(k): o for k, o in enumerate(self.graph.outputs)}
        return self.graph[given.get(like, like)].dtype

    def _given(self, k: int) -> str:
        """What the caller's cotangent of a result is called."""
        return "grad_out" if self.graph.single else f"grad_out_{k}"

    def _input_like(self, dtype: Any) -> str:
        """The input that constants of the forward are made from: of the same dtype if there is one."""
        inputs = self.graph.inputs
        return next((n for n in inputs if self.graph[n].dtype == dtype), inputs[0])

    def _given_like(self, dtype: Any) -> str:
        """The cotangent that constants of the backward are made from: of the same dtype if there is one."""
        live = [k for k, o in enumerate(self.graph.outputs) if o in self.live]
        return self._given(next((k for k in live if self.graph[self.graph.outputs[k]].dtype == dtype), live[0]))

    def _like(self, cell: Cell) -> str | None:
        """An input that has the precision of a cell."""
        return next((i for i in self.graph.inputs if self.graph[i].dtype == cell.dtype and cell.kind == "float"), None)

    def _call_forward(self, c: Cell) -> None:
        from codegen.steps import forward_text

        node = c.node
        if c.expr is not None and (
            not c.call or node is None or node.call is None or not reachable(node.call.function)
        ):
            low = Lowerer(self._infos(), {}, self._like(c)).lower(c.expr, c.indices, c.shape)
            made = self._made(c.name, c, low, {})
            self.forward_blocks.append(Block(c.name, (), made, (Term(c.indices, c.expr, {}),), self.letters))
            return
        assert node is not None
        assert node.call is not None
        self.used_forward.see_size(node.call.args)
        self.used_forward.see_size(dict(node.call.kwargs))
        text = forward_text(self.graph, node)
        if node.output is not None:
            text = f"{self._shared(text)}[{node.output}]"
        terms = () if c.expr is None else (Term(c.indices, c.expr, {}),)
        self.forward_blocks.append(Block(c.name, (), (f"{c.name} = {text}",), terms, self.letters))

    def _shared(self, text: str) -> str:
        """The name of a call's several outputs together, which is made once."""
        known = next((b.name for b in self.forward_blocks if b.lines[0].partition(" = ")[2] == text), None)
        if known is None:
            known = self.namer("outputs")
            self.forward_blocks.append(Block(known, (), (f"{known} = {text}",)))
        return known

    def _infos(self) -> dict[str, TensorInfo]:
        return {c.name: TensorInfo(c.shape, c.kind) for c in self.cells}

    # -- backward --------------------------------------------------------------------------------------------------

    def _seed(self, name: str, given: str) -> None:
        """What the caller gives for a result is a part of its cotangent."""
        if name in self.live:
            self.pending.setdefault(name, []).insert(0, Piece(tt.name(given), True, name=given))
            self.ranks[given] = len(self.by_name[name].shape)

    def cot(self, name: str) -> str:
        """The name of a cell's cotangent."""
        if name not in self.cots:
            self.cots[name] = self.namer(f"d{name}")
            self.ranks[self.cots[name]] = len(self.by_name[name].shape)
        return self.cots[name]

    def _finish(self, name: str, wanted_name: str | None = None) -> str:
        """The cotangent of a cell as one tensor: the statement that adds up what its readers passed back."""
        pieces = self.pending[name]
        c = self.by_name[name]
        if len(pieces) == 1 and pieces[0].name is not None:
            self.cots.setdefault(name, pieces[0].name)
            return pieces[0].name
        target = wanted_name or self.cot(name)
        self.ranks[target] = len(c.shape)
        lines: list[str] = []
        dense = [p.dense for p in pieces if p.dense is not None]
        full = any(p.full for p in pieces if p.dense is not None)
        scatters = [s for p in pieces for s in p.scatters]
        joined = concatenated(scatters)
        if joined is not None:
            dense, full, scatters = [*dense, joined], True, []
        if dense:
            while len(dense) > LONGEST:
                t = added(dense[:LONGEST])
                self.used_backward.see(t)
                lines.append(f"{target} = {tt.text(t)}")
                dense = [tt.name(target), *dense[LONGEST:]]
            t = added(dense)
            if joined is None and all(p.number for p in pieces if p.dense is not None):
                t = self._constant(t, c.shape, c.dtype, self._given_like(c.dtype))
            elif not full and c.shape:
                t = tt.method(t, "expand", *[tt.size(s) for s in c.shape])
                if scatters:
                    t = tt.method(t, "clone")
            elif scatters and t.kind in ("name", "method", "attribute", "item"):
                t = tt.method(t, "clone")
            self.used_backward.see(t)
            lines.append(f"{target} = {tt.text(t)}")
        else:
            t = self._zeros(c, [v for _, v, _, _ in scatters])
            lines.append(f"{target} = {tt.text(t)}")
        apart = not dense and disjoint([items for items, _, _, _ in scatters])
        for k, (items, value, accumulate, _) in enumerate(scatters):
            alone = not dense and (k == 0 or apart)
            lines.append(self._scatter(target, items, value, accumulate, alone, c.dtype))
        terms = tuple(p.formula for p in pieces if p.formula is not None)
        if len(terms) == len(pieces):
            self.blocks.append(self._block(target, tuple(lines), *terms))
        else:
            names = [p.name for p in pieces if p.name]
            comment = (f"{target} = " + " + ".join(names),) if len(names) == len(pieces) > 1 else ()
            self.blocks.append(Block(target, comment, tuple(lines)))
        self.made.add(target)
        return target

    def _zeros(self, c: Cell, like: list[T]) -> T:
        """Zeros of a cell's shape, with the dtype of a tensor that is there."""
        if c.node is not None and c.node.is_input:
            self.used_backward.names.add(c.name)
            return tt.call("torch.zeros_like", tt.name(c.name))
        first = next((x for v in like for x in tt.walk(v) if self._floats(x)), tt.name(self._given_like(c.dtype)))
        self.used_backward.see(first)
        t = tt.method(first, "new_zeros", tuple(tt.size(s) for s in c.shape))
        self.used_backward.see(t)
        return t

    def _floats(self, t: T) -> bool:
        """Whether an expression is the name of a floating-point tensor: a cotangent, or a cell of that kind."""
        cell = self.by_name.get(str(t.head))
        return t.kind == "name" and t.head in self.ranks and (cell is None or cell.kind == "float")

    def _scatter(
        self,
        target: str,
        items: tuple[Any, ...],
        value: T,
        accumulate: bool,
        alone: bool,
        dtype: Any,
        like: str | None = None,
        used: Used | None = None,
    ) -> str:
        """One statement that puts or adds values into places of `target`; in the backward unless told otherwise."""
        used, like = used or self.used_backward, like or self._given_like(dtype)
        for i in (*items, value):
            used.see(i)
        inside = ", ".join(tt.argument(i) for i in items)
        if accumulate:
            if is_scalar(value):
                value = self._constant(value, (), dtype, like)
                used.see(value)
            return accumulated(target, items, value)
        if alone:
            return f"{target}[{inside or '...'}] = {tt.text(value)}"
        minus = starts_negative(value)
        added_value = tt.text(without_minus(value) if minus else value)
        if all(is_scalar(i) or i.kind == "slice" for i in items):  # a view: `+=` would copy it onto itself
            return f"{target}[{inside or '...'}].{'sub_' if minus else 'add_'}({added_value})"
        return f"{target}[{inside or '...'}] {'-' if minus else '+'}= {added_value}"

    def _call_backward(self, c: Cell) -> None:
        """What a contraction, a view or another call passes back."""
        cot = self._finish(c.name)
        names = {c.name: c.name}
        for x in dict.fromkeys(self.reads(c)):
            if x not in self.live:
                continue
            low, names, formula = self._pulled(c, x, cot)
            piece = Piece(None, False, formula=formula)
            if low.dense is not None:
                v = low.dense
                t = self._rename(v.t, names, c)
                if self.by_name[x].dtype != c.dtype and not v.is_number:
                    t = tt.method(t, "to", tt.name(str(self.by_name[x].dtype)))
                piece.dense, piece.number = t, v.is_number
                piece.full = covers(v, self.by_name[x].shape)
            for s in low.scatters:
                piece.scatters.append(
                    (
                        tuple(self._rename(i, names, c) for i in s.items),
                        self._rename(s.value, names, c),
                        s.accumulate,
                        s.covers,
                    )
                )
            self.pending.setdefault(x, []).append(piece)

    def _pulled(self, c: Cell, x: str, cot: str) -> tuple[Lowered, dict[str, str], Term]:
        node = c.node
        if node is not None and c.call and node.template is not None:
            position = node.operands.index(x)
            kinds = tuple(kind_of(self.graph[o].dtype) for o in node.operands)
            low = lowered_at(self.graph, node, position, kinds)
            names = {f"_{k}": o for k, o in enumerate(node.operands)}
            names.update({COT: cot, OUT: c.name})
            from codegen.derive import vjp

            part = vjp(node.template, position, node.operand_shapes[position])
            return low, names, Term(part.indices, part.expr.xreplace(dict(node.sizes)), names)
        part = pulled_back(Definition(c.shape, c.indices, cast("Expr", c.expr)), x, self.by_name[x].shape)
        infos = {**self._infos(), COT: TensorInfo(c.shape), OUT: TensorInfo(c.shape)}
        low = Lowerer(infos, {}).lower(part.expr, part.indices, part.shape)
        names = {COT: cot, OUT: c.name}
        return low, names, Term(part.indices, part.expr, names)

    def _region_backward(self, number: int) -> None:
        code, names = self.codes[number]
        own = {c.name for c in self.units[number].cells}
        seeds = [c for c in self._seeds_of(number) if c not in self.pending]
        if not code.backward or not own & set(self.pending):
            return
        for name in seeds:  # what its readers passed back is provably zero
            self.pending[name] = [Piece(tt.number(0), False, number=True)]
        dtype = self.by_name[self._root(number)].dtype
        local = {**names, LIKE: self._given_like(dtype)}
        for c in code.cells:
            actual = names[c.name]
            if actual in self.cots:
                local[cot_name(c.name)] = self.cots[actual]
            if actual in self.pending and actual in own:
                has_readers = any(
                    c.name in d.reads for d in code.cells if d.expr is not None and names.get(d.name) in self.live
                )
                final = self._finish(
                    actual, self.namer(f"d{actual}_out") if has_readers and len(self.pending[actual]) > 1 else None
                )
                local[cot_name(c.name)] = local[f"{cot_name(c.name)}_out"] = final
        ends = {stmt: names[cell] for cell, stmt in code.gradients}
        for line in code.backward:
            zero, others = line.expr == 0, False
            if (
                line.name in ends
                and isinstance(line.expr, Indexed)
                and name_of(line.expr) in local
                and line.expr.indices == line.indices
                and cast("Any", line.value.dense).t.kind == "name"
            ):
                passed = local[name_of(line.expr)]
                local[line.name] = passed
                self.pending.setdefault(ends[line.name], []).append(Piece(tt.name(passed), True, name=passed))
                continue
            if line.name in ends:
                actual = ends[line.name]
                if zero:
                    self.proofs.extend(self._proof(number, line, self.cots.get(actual, f"d{actual}"), local))
                    continue
                others = self._other_sources(actual, number)
                label = self.cot(actual) if not others else self.namer(f"d{actual}_{self._root(number)}")
            elif line.name.startswith("d_") and names.get(line.name.removeprefix("d_")) not in self.by_name:
                actual = ""  # of a cell that only this region has
                label = self.namer(f"d{names[line.name.removeprefix('d_')]}")
            elif line.name.startswith("d_"):
                actual = names[line.name.removeprefix("d_")]
                if self.cots.get(actual) in {p.name for p in self.pending.get(actual, []) if p.name}:
                    del self.cots[actual]  # what was passed back so far keeps its name: it may be read again
                label = self.cot(actual)
            else:
                actual = ""
                label = self.namer(self._part_name(line, names, local))
            local[line.name] = label
            self.ranks[label] = len(line.shape)
            if line.name in ends and others and is_part(line, code):
                piece = Piece(None, False, formula=Term(line.indices, line.expr, dict(local)))
                for s in line.value.scatters:
                    piece.scatters.append(
                        (
                            tuple(self._rename(i, local) for i in s.items),
                            self._rename(s.value, local),
                            s.accumulate,
                            s.covers,
                        )
                    )
                self.pending.setdefault(actual, []).append(piece)
                self.proofs.extend(self._proof(number, line, label, local))
                continue
            self._region_line(number, line, label, names, local, actual)
            self.proofs.extend(self._proof(number, line, label, local))
            if line.name in ends:
                self.pending.setdefault(ends[line.name], []).append(Piece(tt.name(label), True, name=label))

    def _part_name(self, line: Line, names: dict[str, str], local: dict[str, str]) -> str:
        """What is no cotangent: one before it is centred, and a shared sum, which is named after the cotangent it sums."""
        if line.name.startswith(PART):
            return f"{self.cot(names[line.name.removeprefix(PART)])}_uncentred"
        dense = () if line.value.dense is None else (line.value.dense.t,)
        read = {x.head for x in tt.walk((*dense, *[s.value for s in line.value.scatters])) if x.kind == "name"}
        cots = sorted(label for n, label in local.items() if n.startswith("d_") and n in read)
        return f"{cots[0]}_sum" if cots else "sum_0"

    def _root(self, number: int) -> str:
        return self.units[number].cells[-1].name

    def _other_sources(self, name: str, number: int) -> bool:
        """Whether a cell gets cotangents from elsewhere than this region as well."""
        own = {c.name for c in self.units[number].cells}
        return name in self.graph.outputs or any(
            c.name not in own and c.name in self.live for c in self.readers.get(name, [])
        )

    def _region_line(
        self, number: int, line: Line, label: str, names: dict[str, str], local: dict[str, str], actual: str
    ) -> None:
        low = line.value
        lines: list[str] = []
        dtype_of = self.by_name.get(actual)
        if low.dense is not None:
            t = self._rename(low.dense.t, local)
            if low.dense.is_number:
                dtype = dtype_of.dtype if dtype_of is not None else self.by_name[self._root(number)].dtype
                t = self._constant(t, line.shape, dtype, self._given_like(dtype))
            elif not covers(low.dense, line.shape):
                t = tt.method(t, "expand", *[tt.size(s) for s in line.shape])
                if low.scatters:
                    t = tt.method(t, "clone")
            elif low.scatters and t.kind in ("name", "attribute", "item"):
                t = tt.method(t, "clone")
            if (
                dtype_of is not None
                and not low.dense.is_number
                and names
                and any(
                    self.by_name[n].dtype != dtype_of.dtype
                    for n in names.values()
                    if n in self.live and n in self.by_name
                )
            ):
                t = tt.method(t, "to", tt.name(str(dtype_of.dtype)))
            self.used_backward.see(t)
            lines.append(f"{label} = {tt.text(t)}")
        else:
            values = [self._rename(s.value, local) for s in low.scatters]
            if actual in self.by_name:
                t = self._zeros(self.by_name[actual], values)
            else:
                like = tt.name(local[LIKE])
                first = next((x for v in values for x in tt.walk(v) if self._floats(x)), like)
                t = tt.method(first, "new_zeros", tuple(tt.size(s) for s in line.shape))
            self.used_backward.see(t)
            lines.append(f"{label} = {tt.text(t)}")
        separate = low.dense is None and disjoint([s.items for s in low.scatters])
        for k, s in enumerate(low.scatters):
            items = tuple(self._rename(i, local) for i in s.items)
            lines.append(
                self._scatter(
                    label,
                    items,
                    self._rename(s.value, local),
                    s.accumulate,
                    low.dense is None and (k == 0 or separate),
                    dtype_of.dtype if dtype_of is not None else self.by_name[self._root(number)].dtype,
                )
            )
        self.blocks.append(self._block(label, tuple(lines), Term(line.indices, line.expr, dict(local))))
        self.made.add(label)

    def _proof(self, number: int, line: Line, label: str, local: dict[str, str]) -> list[Proof]:
        code, names = self.codes[number]
        statement: Statement | None = next((s for s in code.statements if s.name == line.name), None)
        if statement is None:
            return []
        where = {**names, **local}
        return [
            Proof(
                label,
                names.get(statement.cell, ""),
                line.indices,
                line.shape,
                (statement.naive, line.expr),
                where,
                tuple(self._rule(r, names) for r in statement.rules),
                Origin(code.origin or code, line.name, where, self.sizes[number]),
            )
        ]

    @property
    def refused(self) -> list[str]:
        """Why simpler forms were not taken, in this graph's names."""
        return [self._rule(r, names) for code, names in self.codes.values() for r in code.refused]

    def _rule(self, rule: str, names: dict[str, str]) -> str:
        return " ".join(names.get(word, word) for word in rule.split(" "))

    def _finish_input(self, name: str) -> None:
        """The gradient of a wanted input."""
        if name not in self.pending:
            target = self.cot(name)
            self.used_backward.names.add(name)
            at = tuple(ZERO if n == 1 else fresh() for n in self.by_name[name].shape)
            self.blocks.append(
                Block(
                    target,
                    (f"{target} = 0: {name} has no influence on the result",),
                    (f"{target} = torch.zeros_like({name})",),
                    (Term(at, ZERO, {}),),
                    self.letters,
                )
            )
            self.made.add(target)
            self.gradients[name] = target
            return
        self.gradients[name] = self._finish(name)

    # -- text ------------------------------------------------------------------------------------------------------

    def _rename(self, t: Any, names: dict[str, str], c: Cell | None = None) -> Any:
        sizes = dict(c.node.sizes) if c is not None and c.node is not None and c.call else {}
        return tt.rename(t, names, sizes)

    def _block(self, name: str, lines: tuple[str, ...], *terms: Term) -> Block:
        """The statements of a tensor under the formula that adds up the terms."""
        return Block(name, self._text(name, terms), lines, terms, self.letters)

    def _text(self, name: str, terms: tuple[Term, ...]) -> tuple[str, ...]:
        """`name[i,j] = a + b` with letters for the indices, broken into lines."""
        at, texts = "", list[str]()
        for term in terms:
            used = {name_of(a) for a in accesses(term.expr)}
            scalars = frozenset(n for n in used if self.ranks.get(term.names.get(n, n)) == 0)
            at, text = text_template(term.expr, term.indices, scalars, self.letters)
            texts.append(filled(text, term.names))
        if len(texts) > LONGEST:
            texts = [*texts[:3], "...", texts[-1]]
        left = f"{name}[{at}]" if at and self.ranks.get(name) != 0 else name
        return tuple(wrapped(f"{left} = {' + '.join(texts).replace(' + -', ' - ')}", 112))


__all__ = ["Block", "ClosedWriter", "Proof", "is_local"]
