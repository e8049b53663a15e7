"""Steps mode: a backward with one statement per node, as data for the template."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from sympy import Add, Expr, Symbol
from torch.utils import _pytree as pytree

from codegen.derive import COT
from codegen.devices import on_device, tensor_in
from codegen.exact import ExactLowerer, is_elementwise
from codegen.formula import equation_text
from codegen.implicit import ADJOINT, INVERSE, law_of, passed
from codegen.lowering import tensors as tt
from codegen.lowering.lower import Lowered, Lowerer, Scatter
from codegen.lowering.repeats import Repeats
from codegen.lowering.values import TensorInfo
from codegen.ownoutput import OUT
from codegen.stops import without_gradient
from codegen.wrapping import WIDTH, broken
from engine.bounds import checked
from engine.errors import DerivationError
from engine.notation import Quo, in_wholes, sizes_in
from engine.own import reachable
from engine.spelling import Ref, SizeArg, is_slice, listed, operand, quoted, render_call, size_text
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from codegen.derivation import Cotangent, Derivation, Part
    from codegen.implicit import Helper
    from codegen.lowering.tensors import T
    from engine.graph import Graph, Node
    from engine.implicit import Implicit


def kind_of(dtype: torch.dtype) -> str:
    """float, int or bool."""
    return "float" if dtype.is_floating_point else "bool" if dtype == torch.bool else "int"


MOST_TERMS = 32
"""Terms of one statement: what is read ten thousand times is summed by several."""


@cache
def lowered(
    law: Definition | Implicit, position: int, shapes: tuple[tuple[Expr, ...], ...], kinds: tuple[str, ...]
) -> Lowered:
    """The torch form of what one op passes back to one operand, over placeholders; made once per structure."""
    contribution = passed(law, position, shapes[position])
    tensors = {f"_{k}": TensorInfo(s, kind) for k, (s, kind) in enumerate(zip(shapes, kinds, strict=True))}
    tensors[OUT] = tensors[COT] = tensors[ADJOINT] = TensorInfo(law.shape)
    tensors[INVERSE] = TensorInfo(shapes[position])
    lowerer = ExactLowerer if isinstance(law, Definition) and is_elementwise(law) else Lowerer
    with checked(law.bounds if isinstance(law, Definition) else ()):
        return lowerer(tensors, {}).lower(contribution.expr, contribution.indices, contribution.shape)


@dataclass(frozen=True)
class Block:
    """The statements of one cotangent, under the formula they compute."""

    name: str
    heading: str
    comment: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass
class Used:
    """What the emitted statements read: tensors by name, and sizes."""

    names: set[str] = field(default_factory=set[str])
    sizes: set[Symbol] = field(default_factory=set["Symbol"])

    def see(self, t: Any) -> None:
        """Note everything that an expression reads."""
        for x in tt.walk(t):
            if x.kind == "name":
                self.names.add(x.head)
            for a in (*x.args, *[v for _, v in x.keywords]):
                self.see_size(a)

    def see_size(self, a: Any) -> None:
        """Note the sizes of an argument."""
        if isinstance(a, SizeArg):
            a = a.expr
        if isinstance(a, Expr):
            self.sizes |= sizes_in(a)
        elif is_slice(a):
            for p in (a.start, a.stop, a.step):
                self.see_size(p)
        elif isinstance(a, (tuple, list)):
            for p in cast("tuple[Any, ...]", a):
                self.see_size(p)
        elif isinstance(a, dict):
            for p in cast("dict[Any, Any]", a).values():
                self.see_size(p)


class StepsWriter:
    """Writes the statements of a derivation."""

    def __init__(self, derivation: Derivation) -> None:
        self.derivation = derivation
        self.graph: Graph = derivation.graph
        self.used = Used()
        self.made = {c.name for c in derivation.cotangents.values()}
        cotangents = (c.name for c in derivation.cotangents.values())
        self.sizes = frozenset(map(str, self.graph.sizes))
        self.repeats = Repeats((*self.graph.by_name, *self.sizes, *cotangents))

    def blocks(self) -> list[Block]:
        """One block per cotangent, in backward order."""
        out: list[Block] = []
        place: Any = None
        for name, c in self.derivation.cotangents.items():
            source = c.parts[0].consumer.source if c.parts else None
            heading = ""
            if source is not None and source.text and source != place:
                heading = f"{source.text}  (line {source.line})"
                place = source
            out.append(Block(name, heading, tuple(wrapped(self.derivation.text(name))), self._lines(c)))
            if c.helper is not None and c.helper.statements:
                out.append(self._helper(c.helper))
        return out

    def _helper(self, helper: Helper) -> Block:
        """The statements of a tensor that solves an equation, under that equation."""
        for name, t in helper.statements:
            self.used.see(t)
            self.made.add(name)
        text = equation_text(*helper.formula, self.derivation.ranks, self.derivation.taken)
        lines = tuple(f"{name} = {tt.text(t)}" for name, t in helper.statements)
        return Block(helper.name, "", tuple(wrapped(f"{helper.name} solves {text}")), lines)

    def _lines(self, c: Cotangent) -> tuple[str, ...]:
        """The statements as they stand in the file, where they are indented once."""
        placed = (self._on_device(s, c) for s in self._statements(c))
        return tuple(line for s in placed for line in (broken(s, WIDTH - 4) if len(s) > WIDTH - 4 else [s]))

    def _on_device(self, line: str, c: Cotangent) -> str:
        """A statement that makes what it makes of nothing where the first tensor is that it reads, else where the node is."""
        like = tensor_in(line, self.sizes) or c.node.name
        placed = on_device(line, like, self.sizes)
        if placed != line and like == c.node.name:
            self.used.names.add(like)
        return placed

    def _statements(self, c: Cotangent) -> list[str]:
        dense: list[T] = []
        full = False
        scatters: list[tuple[Part, Scatter]] = []
        target = c.node
        for part in c.parts:
            low = self._lowered(part)
            if low.dense is not None:
                t = self._filled(low.dense.t, part)
                t = self._cast(t, part, target)
                dense.append(t)
                full = full or (not low.dense.is_number and self._covers(low.dense.axes, part))
            scatters.extend((part, s) for s in low.scatters)
        lines = self._seed(c) if c.seeded else []
        if dense or c.seeded:
            dense = sorted(dense, key=starts_negative)
            later = [dense[k : k + MOST_TERMS] for k in range(MOST_TERMS, len(dense), MOST_TERMS)]
            dense = dense[:MOST_TERMS]
            t = added([tt.name(c.name), *dense] if c.seeded else dense)
            self.used.see(t)
            parts, t = self.repeats.named(t, c.name)
            lines.extend(f"{n} = {tt.text(p)}" for n, p in parts)
            if not full and target.shape and not c.seeded:
                self.used.names.add(target.name)
                if any(x.kind == "name" for x in tt.walk(t)):
                    t = tt.method(t, "expand_as", tt.name(target.name))
                else:
                    t = tt.call("torch.full_like", tt.name(target.name), t)
            if scatters and t.kind in ("name", "method", "attribute", "item"):
                t = tt.method(t, "clone")
            if t != tt.name(c.name):
                lines.append(f"{c.name} = {tt.text(t)}")
            for terms in later:
                more = added([tt.name(c.name), *terms])
                self.used.see(more)
                lines.append(f"{c.name} = {tt.text(more)}")
        else:
            self.used.names.add(target.name)
            lines.append(f"{c.name} = torch.zeros_like({target.name})")
        alone = not dense and not c.seeded and len(scatters) == 1
        lines.extend(self._scatter(c.name, part, s, alone, target) for part, s in scatters)
        return lines

    def _seed(self, c: Cotangent) -> list[str]:
        """The cotangent that the caller gives for a result; ones by default."""
        node = c.node.name
        self.used.names.add(node)
        if self.graph.single:
            return [f"{c.name} = torch.ones_like({node}) if grad_out is None else grad_out"]
        first, *again = (f"grad_out[{k}]" for k, output in enumerate(self.graph.outputs) if output == node)
        return [
            f"{c.name} = torch.ones_like({node}) if grad_out is None else {first}",
            f"{c.name} = torch.zeros_like({node}) if {c.name} is None else {c.name}",
            *(f"{c.name} = {c.name} + (1 if grad_out is None else 0 if {g} is None else {g})" for g in again),
        ]

    def _lowered(self, part: Part) -> Lowered:
        consumer = part.consumer
        kinds = tuple(kind_of(self.graph[o].dtype) for o in consumer.operands)
        law = law_of(consumer)
        assert law is not None
        return lowered(law, part.position, consumer.operand_shapes, kinds)

    def _filled(self, t: Any, part: Part) -> Any:
        return tt.rename(t, self.derivation.names(part), dict(part.consumer.sizes))

    def _covers(self, axes: Any, part: Part) -> bool:
        shape = part.template.shape
        return len(axes) == len(shape) and all(a is not None or n == 1 for a, n in zip(axes, shape, strict=True))

    def _cast(self, t: T, part: Part, target: Node) -> T:
        if part.consumer.dtype == target.dtype and not mixes(part.consumer, self.graph):
            return t
        self.used.names.add(target.name)
        return tt.method(t, "to", tt.attribute(tt.name(target.name), "dtype"))

    def _scatter(self, name: str, part: Part, s: Scatter, alone: bool, target: Node) -> str:
        items = tuple(self._filled(i, part) for i in s.items)
        value = self._cast(self._filled(s.value, part), part, target)
        for i in (*items, value):
            self.used.see(i)
        if s.accumulate:
            places = [tt.call("torch.tensor", i) if i.kind in ("number", "size") else i for i in items]
            inside = ", ".join(tt.argument(i) for i in places) + ("," if len(items) == 1 else "")
            return f"{name}.index_put_(({inside}), {tt.text(value)}, accumulate=True)"
        inside = ", ".join(tt.argument(i) for i in items)
        return f"{name}[{inside or '...'}] {'=' if alone else '+='} {tt.text(value)}"


def mixes(n: Node, graph: Graph) -> bool:
    """Whether what a node passes back has a dtype of its own, that of what is multiplied: it reads tensors of several, and is
    a single number, which yields to them, or of less precision than one, as torch's loss of logits.
    """
    read = {graph[o].dtype for o in n.operands if graph[o].dtype.is_floating_point and graph[o].shape}
    return len(read) > 1 and (not n.shape or any(torch.promote_types(x, n.dtype) != n.dtype for x in read))


def added(terms: list[T]) -> T:
    """Terms added from left to right; a leading minus becomes a subtraction."""
    ordered = sorted(terms, key=starts_negative)
    total = ordered[0]
    for t in ordered[1:]:
        total = tt.binary("-", total, without_minus(t)) if starts_negative(t) else tt.binary("+", total, t)
    return total


def starts_negative(t: T) -> bool:
    """Whether an expression is written with a leading minus, or is divided by what is."""
    if t.kind == "unary":
        return t.head == "neg"
    if t.kind == "number":
        return t.head.startswith("-")
    if t.kind != "binary" or t.head not in ("*", "/", "@"):
        return False
    return starts_negative(t.args[0]) or (t.head == "/" and starts_negative(t.args[1]))


def without_minus(t: T) -> T:
    """An expression without the minus that it starts with, or that what divides it starts with."""
    if t.kind == "number":
        return tt.number(int(t.head[1:])) if t.head[1:].isdigit() else tt.number(float(t.head[1:]))
    if t.kind == "unary":
        return t.args[0]
    left, right = t.args
    return (
        tt.binary(t.head, without_minus(left), right)
        if starts_negative(left)
        else tt.binary(t.head, left, without_minus(right))
    )


def wrapped(line: str, width: int = 108) -> list[str]:
    """A formula over several lines, broken before what is added or chosen, as far outside of brackets as that is possible."""
    out: list[str] = []
    rest = line
    while len(rest) > width:
        at = best_break(rest, width)
        if at <= 0:
            break
        out.append(rest[:at])
        rest = "    " + rest[at + 1 :]
    return [*out, rest]


def best_break(line: str, width: int) -> int:
    """Where a line is broken: the last place of those with the fewest brackets around them; 0 where there is none."""
    depth = 0
    found: dict[int, int] = {}
    for k, c in enumerate(line[: width + 1]):
        depth += (c in "([{") - (c in ")]}")
        if c == " " and k > 20:
            operator = line.startswith((" + ", " - ", " if ", " else ", " and "), k)
            early = 4 * (k <= width // 3)
            found[2 * depth + (not operator) + early] = k
    return found[min(found)] if found else 0


def size_lines(
    graph: Graph,
    wanted: set[Symbol],
    readable: list[str],
    keep: list[str],
    others: Mapping[str, tuple[Expr, ...]] | None = None,
) -> list[str]:
    """`n, d = x.shape`-like statements that read sizes from tensors in `readable` (nodes by name).

    Otherwise they are read from nodes in `keep`, or from `others`, which are no nodes and given by their shapes.
    """
    lines: list[str] = []
    order = list(graph.sizes)
    for s in sorted(wanted, key=lambda s: (order.index(s) if s in order else -1, str(s))):
        source = graph.sizes.get(s)
        if source is not None and source[0] in readable:
            lines.append(f"{s} = {source[0]}.shape[{source[1]}]")
            continue
        shapes: dict[str, tuple[Expr, ...]] = {**{n: graph[n].shape for n in keep}, **(others or {})}
        found = next(((n, d) for n, own in shapes.items() for d, size in enumerate(own) if in_wholes(size) == s), None)
        if found is not None:
            lines.append(f"{s} = {found[0]}.shape[{found[1]}]")
        elif source is not None:
            lines.append(f"{s} = {source[0]}.shape[{source[1]}]")
    return lines


def forward_text(graph: Graph, n: Node) -> str:
    """A node's torch call. A dtype that is an input's is that input's, a float factory's without a dtype is the inputs' too:
    one file serves float32 and float64.
    """
    assert n.call is not None
    if not reachable(n.call.function):
        return definition_text(graph, n)
    owners = {graph[i].dtype: i for i in reversed(graph.inputs) if graph[i].differentiable}
    names = [*n.operands, *[f"{i}.dtype" for i in owners.values()]]
    places = {dtype: Ref(len(n.operands) + k) for k, dtype in enumerate(owners)}
    args, kwargs = pytree.tree_map_only(torch.dtype, lambda d: places.get(d, d), (n.call.args, dict(n.call.kwargs)))
    text = render_call(n.call.function, args, kwargs, names)
    like = next((i for i in graph.inputs if graph[i].differentiable), None)
    is_factory = not n.operands and n.op != "constant" and n.dtype.is_floating_point
    if is_factory and like is not None and "dtype" not in dict(n.call.kwargs) and graph[like].dtype == n.dtype:
        return f"{text[:-1]}, dtype={like}.dtype)"
    return text


def definition_text(graph: Graph, n: Node) -> str:
    """What a function of the user's own computes, from its row's index notation: emitted code imports only torch.

    Raises DerivationError where no single expression computes it.
    """
    known = n.definition
    if known is None or n.output is not None:
        raise DerivationError(f"{n.op} ({n.source}) is no function of torch and has no definition to write it from")
    infos = {o: TensorInfo(graph[o].shape, kind_of(graph[o].dtype)) for o in n.operands}
    low = Lowerer(infos, {}).lower(known[1], known[0], n.shape)
    if low.dense is None or low.scatters:
        raise DerivationError(f"{n.op} ({n.source}) has no dense form: {known[1]}")
    value = low.dense
    whole = len(value.axes) == len(n.shape) and all(
        a is not None or s == 1 for a, s in zip(value.axes, n.shape, strict=True)
    )
    return tt.text(value.t if whole else tt.method(value.t, "expand", tuple(tt.size(s) for s in n.shape)))


def forward_lines(
    graph: Graph, used: Used, nodes: Iterable[Node] | None = None, drawn: tuple[str, ...] = ()
) -> list[str]:
    """The forward's torch calls, one per node; the outputs of one call are unpacked together.

    What was computed without a gradient from what has one is detached.

    Args:
        graph: the traced forward.
        used: notes the sizes that the calls read.
        nodes: those that are computed, all by default.
        drawn: random tensors that are taken from a tuple of this name where it is not None.
    """
    lines: list[str] = []
    done: set[int] = set()
    made: dict[int, list[str]] = {}
    chosen = graph.nodes if nodes is None else tuple(nodes)
    for n in chosen:
        if n.call is not None and n.output is not None:
            made.setdefault(id(n.call), ["_"] * n.outputs)[n.output] = n.name
    for n in chosen:
        if n.call is None:
            continue
        text = forward_text(graph, n)
        held = without_gradient(graph, n)
        used.see_size(n.call.args)
        used.see_size(dict(n.call.kwargs))
        if not reachable(n.call.function):
            used.see_size(n.shape)
            used.sizes |= {s for o in n.operands for size in graph[o].shape for s in sizes_in(size)}
        if n.name in drawn:
            text = f"{text} if drawn is None else drawn[{drawn.index(n.name)}]"
        if n.output is None:
            lines.append(f"{n.name} = {f'{operand(text)}.detach()' if held else text}")
            continue
        if id(n.call) not in done:
            done.add(id(n.call))
            names = made[id(n.call)]
            lines.append(f"{listed(names)} = {text}")
        if held:
            lines.append(f"{n.name} = {n.name}.detach()")
    return lines


def guard_rows(graph: Graph) -> list[dict[str, str]]:
    """Checks of what the trace took for granted: sizes of one, those that the forward used as numbers, its slices and comparisons."""
    rows: list[dict[str, str]] = []
    for g in graph.guards:
        if g.equal is not None:
            a, b = map(size_text, g.equal)
            rows.append({"test": f"{a} != {b}", "message": f'f"{a} = {{{a}}} and {b} = {{{b}}} must be equal"'})
            continue
        sources = [graph.sizes.get(s) for s in sorted(g.expr.free_symbols, key=str)]
        reads = [f"{source[0]}.shape[{source[1]}]" for source in sources if source is not None]
        if len(reads) != len(sources) or not reads:
            continue
        marks = {s: Symbol(f"⟦{k}⟧") for k, s in enumerate(sorted(g.expr.free_symbols, key=str))}
        test, message = fixed_texts(g.expr.xreplace(marks), g.value)
        for k, text in enumerate(reads):
            test, message = (side.replace(f"⟦{k}⟧", text) for side in (test, message))
        message = f"the forward fixed {message}" + (f" at {g.where}" if g.where else "")
        rows.append({"test": test, "message": quoted(message)})
    return [*one_rows(graph), *rows, *bound_rows(graph)]


def fixed_texts(expr: Expr, value: int) -> tuple[str, str]:
    """What is true where a size is not the number that the forward took it for, and what it was taken for."""
    for part in expr.atoms(Quo):
        whole, divisor = part.args
        if expr - value in (whole - divisor * part, divisor * part - whole):
            size, number = (size_text(e) if e.is_Atom else f"({size_text(e)})" for e in (whole, divisor))
            return f"{size} % {number} != 0", f"{size} as a multiple of {number}"
    terms = Add.make_args(expr)
    less = [t for t in terms if len(terms) > 1 and t.could_extract_minus_sign()]  # stands on the right
    left, right = (size_text(e) for e in (Add(*[t for t in terms if t not in less]), value - Add(*less)))
    return f"{left} != {right}", f"{left} = {right}"


def one_rows(graph: Graph) -> list[dict[str, str]]:
    """Checks of the sizes that were one in the trace, one of each input that has any: they may have been broadcast."""
    rows: list[dict[str, str]] = []
    for name in graph.inputs:
        ones = [f"{name}.shape[{d}]" for d, size in enumerate(graph[name].shape) if size == 1]
        if ones:
            message = f"the trace had {' = '.join(ones)} = 1, and sizes of one are broadcast"
            rows.append({"test": " or ".join(f"{n} != 1" for n in ones), "message": quoted(message)})
    return rows


def bound_rows(graph: Graph) -> list[dict[str, str]]:
    """Checks of sizes that a slice or a comparison took for at least, or at most, others."""
    rows: list[dict[str, str]] = []
    for bound in graph.bounds:
        whole = in_wholes(bound.expr)
        places = {s: graph.sizes.get(s) for s in sorted(whole.free_symbols, key=str)}
        reads = {s: Symbol(f"{at[0]}.shape[{at[1]}]") for s, at in places.items() if at is not None}
        if len(reads) != len(places):
            continue
        terms = Add.make_args(whole.xreplace(reads))
        less = [t for t in terms if t.could_extract_minus_sign()]
        more, least = size_text(Add(*[t for t in terms if t not in less])), size_text(-Add(*less))
        if more.isdigit():  # what is bounded is named first
            test, said = f"{least} > {more}", f"{least} is at most {more}"
        else:
            test, said = f"{more} < {least}", f"{more} is at least {least}"
        rows.append({"test": test, "message": quoted(f"the trace holds where {said}, for {bound.of} at {bound.where}")})
    return rows
