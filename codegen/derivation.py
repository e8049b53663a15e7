"""The derivation of a graph: every node's cotangent, the terms it is made of, and the rules that produced them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from codegen.derive import COT, Contribution
from codegen.formula import latex_formula, left_side, lettered, lettered_sides, named, text_formula
from codegen.implicit import helper_of, law_of, moved, passed
from codegen.ownoutput import OUT
from engine.errors import InputError
from engine.implicit import DETERMINANT, Expansion
from engine.naming import Namer
from engine.notation import Delta, accesses, base, element, fresh, sigma

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from codegen.closed.regions.code import RegionCode
    from codegen.implicit import Helper
    from engine.graph import Graph, Node


@dataclass(frozen=True)
class Step:
    """One line of the trail: what was done to which node, by which rule, and what came out."""

    node: str
    rule: str
    proof: Proof | Rewritten | None = None

    @property
    def result(self) -> str:
        """The closed form, or the definition in the forward, where the rule led to one."""
        return "" if self.proof is None else self.proof.text()


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A tensor's definition in the emitted forward after a rule, printed when it is asked for."""

    as_text: Callable[[], str]

    def text(self) -> str:
        """One line of text."""
        return self.as_text()


@dataclass(frozen=True)
class Origin:
    """Where a closed form comes from: the code of its region and the statement there, with what its names and sizes stand for."""

    code: RegionCode
    statement: str
    names: dict[str, str]
    sizes: dict[Any, Expr]


@dataclass(frozen=True)
class Proof:
    """One simplification of closed mode: what it was, what it became (`forms`, in the names of its region), by which rules.

    `name` is the emitted tensor, `cell` the node whose cotangent it is ("" for a shared sum). Both sides were found equal at
    random points in 50-digit arithmetic, and what is emitted for them as accurate in float32 as autograd.
    """

    name: str
    cell: str
    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    forms: tuple[Expr, Expr]
    names: Mapping[str, str]
    rules: tuple[str, ...]
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @cached_property
    def naive(self) -> Expr:
        """The cotangent as the chain rule gives it."""
        return named(self.forms[0], self.names)

    @cached_property
    def expr(self) -> Expr:
        """What became of it."""
        return named(self.forms[1], self.names)

    def equation(self, naive: bool = False, avoid: Iterable[str] = ()) -> tuple[Expr, Expr]:
        """Left and right side with readable indices, before or after simplification."""
        right, at = lettered(self.naive if naive else self.expr, self.indices, avoid)
        return left_side(self.name, at), right

    def text(self, naive: bool = False) -> str:
        """One line of text."""
        left, right = self.equation(naive)
        return f"{text_formula(left, self.ranks)} = {text_formula(right, self.ranks)}"

    def latex(self, naive: bool = False) -> str:
        """LaTeX."""
        left, right = self.equation(naive)
        return f"{latex_formula(left, self.ranks)} = {latex_formula(right, self.ranks)}"

    @property
    def ranks(self) -> dict[str, int]:
        """A tensor of rank 0 is printed without its index."""
        return {self.name: len(self.shape), "grad_out": 1 if self.indices_of_seed else 0}

    @property
    def indices_of_seed(self) -> bool:
        """Whether `grad_out` is read at indices at all."""
        reads = [a for e in (self.naive, self.expr) for a in accesses(e, "grad_out")]
        return any(i != 0 for a in reads for i in a.indices)


def steps_of(proofs: Iterable[Proof]) -> tuple[Step, ...]:
    """The trail of closed mode: every rule that led from the naive chain to a closed form, and the form."""
    return tuple(Step(p.cell or p.name, rule, p) for p in proofs for rule in (*p.rules, "common factors in front"))


@dataclass(frozen=True)
class Law:
    """An equation between tensors, at indices, and what it is in words."""

    caption: str
    left: Expr
    right: Expr
    indices: tuple[Expr, ...]

    def lettered(self, avoid: Iterable[str]) -> Law:
        """The same with readable indices."""
        return Law(self.caption, *lettered_sides(self.left, self.right, self.indices, avoid))


@dataclass(frozen=True, eq=False)
class Part:
    """What one consumer adds to a node's cotangent: a template over the consumer's operands, shared by equal nodes."""

    consumer: Node
    position: int
    template: Contribution


@dataclass(frozen=True, eq=False)
class Cotangent:
    """The cotangent of one node: `d<name>` and the parts that add up to it. A result of the forward is `seeded`.

    A node that an equation defines has a `helper`, which is computed from the cotangent and passed back in its place.
    """

    node: Node
    name: str
    parts: tuple[Part, ...]
    seeded: bool = False
    helper: Helper | None = None


@dataclass(frozen=True, eq=False)
class Derivation:
    """All cotangents of a graph, in backward order, with the trail of rules."""

    graph: Graph
    cotangents: dict[str, Cotangent]
    trail: tuple[Step, ...] = field(default=())
    proofs: tuple[Proof, ...] = field(default=())

    def closed(self, name: str) -> Proof | None:
        """The closed form of a node's cotangent, where closed mode found one."""
        return self._closed.get(name)

    @cached_property
    def _closed(self) -> dict[str, Proof]:
        return {p.cell: p for p in reversed(self.proofs)}

    @cached_property
    def rules(self) -> dict[str, tuple[str, ...]]:
        """The rules that gave each node's cotangent over those of its consumers, in order."""
        found: dict[str, list[str]] = {}
        for s in self.trail:
            if not s.result:  # what has one led to a closed form
                found.setdefault(s.node, []).append(s.rule)
        return {n: tuple(r) for n, r in found.items()}

    @cached_property
    def taken(self) -> frozenset[str]:
        """The names that no index letter may have: tensors and sizes."""
        return frozenset(n.name for n in self.graph.nodes) | {str(s) for s in self.graph.sizes}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that have a cotangent, in backward order."""
        return tuple(self.cotangents)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The number of dimensions of every tensor a formula may name."""
        ranks = {n.name: len(n.shape) for n in self.graph.nodes}
        ranks.update({c.name: len(c.node.shape) for c in self.cotangents.values()})
        helpers = [c.helper for c in self.cotangents.values() if c.helper is not None]
        ranks.update({h.name: len(h.auxiliary.shape) for h in helpers})
        expansions = [(n, n.implicit) for n in self.graph.nodes if isinstance(n.implicit, Expansion)]
        ranks.update({f"det_{n.operands[law.matrix]}": len(n.shape) for n, law in expansions})
        return ranks

    def names(self, part: Part) -> dict[str, str]:
        """What a template's placeholders stand for."""
        names = {f"_{k}": o for k, o in enumerate(part.consumer.operands)}
        names[OUT] = part.consumer.name
        through = self.cotangents[part.consumer.name]
        names[COT] = through.name
        return names if through.helper is None else {**names, through.helper.auxiliary.name: through.helper.name}

    def part_expr(self, part: Part, at: Sequence[Expr]) -> Expr:
        """A part with this graph's names and sizes, at the given indices."""
        mapping: dict[Any, Any] = dict(part.consumer.sizes)
        mapping.update({i: j for i, j in zip(part.template.indices, at, strict=True) if i != 0})
        return named(part.template.expr.xreplace(mapping), self.names(part))

    def expression(self, name: str) -> tuple[tuple[Expr, ...], Expr]:
        """Indices and cotangent of a node, over the cotangents of its consumers."""
        c = self.cotangents[name]
        if not c.parts:
            indices = next((p.template.indices for p in c.parts), tuple(sp.Integer(0) for _ in c.node.shape))
            return indices, sp.S.Zero
        at = c.parts[0].template.indices
        return at, sp.Add(*[self.part_expr(p, at) for p in c.parts])

    def equation(self, name: str) -> tuple[Expr, Expr]:
        """Left and right side with readable indices."""
        c = self.cotangents[name]
        at, e = self.expression(name)
        right, indices = lettered(e, at, self.taken)
        return left_side(c.name, indices), right

    def definition(self, name: str) -> tuple[Expr, Expr] | None:
        """A node's own index notation with readable indices; None for inputs and opaque nodes."""
        known = self.graph[name].definition
        if known is None:
            return None
        right, indices = lettered(known[1], known[0], self.taken)
        return left_side(name, indices), right

    def cotangent(self, name: str) -> Cotangent:
        """The cotangent of a node. Raises InputError for a name that has none."""
        if name not in self.cotangents:
            raise InputError(f"{name!r} has no cotangent; those that have one are {', '.join(self.cotangents)}")
        return self.cotangents[name]

    def text(self, name: str) -> str:
        """The cotangent of a node as one line: `dw1[i,j] = Σ_k emb[k,i] dhpreact[k,j]`."""
        proof = self.closed(name)
        if proof is not None:
            return proof.text()
        c = self.cotangent(name)
        if c.seeded and not c.parts:
            return f"{c.name} = grad_out"
        left, right = self.equation(name)
        seed = "grad_out + " if c.seeded else ""
        return f"{text_formula(left, self.ranks)} = {seed}{text_formula(right, self.ranks)}"

    def latex(self, name: str) -> str:
        """The cotangent of a node as LaTeX."""
        proof = self.closed(name)
        if proof is not None:
            return proof.latex()
        c = self.cotangent(name)
        if c.seeded and not c.parts:
            return rf"{latex_formula(left_side(c.name, ()), {c.name: 0})} = \mathrm{{grad\_out}}"
        left, right = self.equation(name)
        seed = r"\mathrm{grad\_out} + " if c.seeded else ""
        return f"{latex_formula(left, self.ranks)} = {seed}{latex_formula(right, self.ranks)}"

    def laws(self, name: str) -> tuple[Law, ...]:
        """What a node follows from that has no index notation; () for every other one.

        For the output of an equation that is the equation, and how the output moves with what the equation reads (δ): both
        sides stay equal. For a function of determinants these are the expansions along the rows.
        """
        node = self.graph[name]
        e = node.equation
        if e is not None:
            steps = {o: f"δ{o}" for o in (name, *node.operands) if o == name or self.graph[o].differentiable}
            found = [
                Law(f"`{name}` solves:", e.left, e.right, e.indices),
                Law("Both sides stay equal as its tensors move:", moved(e, steps), sp.S.Zero, e.indices),
            ]
        else:
            found = expansion_of(node, node.implicit) if isinstance(node.implicit, Expansion) else []
        return tuple(law.lettered(self.taken) for law in found)

    def adjoint(self, name: str) -> Law | None:
        """The equation of the tensor that a node's backward computes from its cotangent, where there is one."""
        c = self.cotangents.get(name)
        if c is None or c.helper is None:
            return None
        rule = c.helper.auxiliary.rule
        return Law(f"{rule[0].upper()}{rule[1:]}:", *c.helper.formula).lettered(self.taken)

    def definition_text(self, name: str) -> str | None:
        """A node's index notation as one line."""
        known = self.definition(name)
        return None if known is None else f"{text_formula(known[0], self.ranks)} = {text_formula(known[1], self.ranks)}"

    def definition_latex(self, name: str) -> str | None:
        """A node's index notation as LaTeX."""
        known = self.definition(name)
        return (
            None if known is None else f"{latex_formula(known[0], self.ranks)} = {latex_formula(known[1], self.ranks)}"
        )


def expansion_of(node: Node, law: Expansion) -> list[Law]:
    """What is known of a determinant: it is the sum along any row i, and zero with the cofactors of another row k."""
    matrix, sizes = node.operands[law.matrix], dict(node.sizes)
    lead = tuple(sp.S.Zero if n == 1 else fresh() for n in node.shape)
    i, j, k = fresh(), fresh(), fresh()
    value = element(base(f"det_{matrix}"), lead)
    row = element(base(matrix), [*lead, i, j]) * element(base(f"cofactor_{matrix}"), [*lead, k, j])
    own = element(base(node.name), lead)
    return [
        Law(f"`{node.name}` is:", own, law.expr.xreplace({DETERMINANT: value}), lead),
        Law(
            "The expansions of a determinant, whose cofactors do not read their row:",
            sigma(row, (j, law.size.xreplace(sizes))),
            value * Delta(i, k),
            (*lead, i, k),
        ),
    ]


def derive(graph: Graph) -> Derivation:
    """The cotangents of every differentiable node and input that the result depends on, last node first.

    Fan-out adds up: a node's cotangent has one part per consumer.
    """
    namer = Namer([*(n.name for n in graph.nodes), *map(str, graph.sizes)])
    consumers: dict[str, list[tuple[Node, int]]] = {}
    for n in graph.nodes:
        if law_of(n) is not None and n.differentiable:
            for k, o in enumerate(n.operands):
                consumers.setdefault(o, []).append((n, k))
    cotangents: dict[str, Cotangent] = {}
    trail: list[Step] = []
    for n in reversed(graph.nodes):
        if not n.differentiable:
            continue
        parts: list[Part] = []
        for consumer, k in reversed(consumers.get(n.name, [])):
            law = law_of(consumer)
            if consumer.name not in cotangents or law is None:
                continue
            template = passed(law, k, consumer.operand_shapes[k])
            if template.expr != 0:
                parts.append(Part(consumer, k, template))
        seeded = n.name in graph.outputs
        if not parts and not seeded and not n.is_input:
            continue
        label = namer(f"d{n.name}")
        helper = helper_of(graph, n, label, namer)
        cotangents[n.name] = Cotangent(n, label, tuple(parts), seeded, helper)
        rules = [f"chain rule through {p.consumer.name}" for p in parts]
        if len(parts) > 1:
            rules.append(f"fan-out: {len(parts)} paths add up")
        if helper is not None:
            rules.append(helper.auxiliary.rule)
        trail.extend(Step(n.name, r) for r in rules)
    return Derivation(graph, scheduled(graph, cotangents, consumers), tuple(trail))


def scheduled(
    graph: Graph, cotangents: dict[str, Cotangent], consumers: dict[str, list[tuple[Node, int]]]
) -> dict[str, Cotangent]:
    """Backward order, with an input's cotangent right after the last path to it is complete."""
    place = {n.name: float(k) for k, n in enumerate(graph.nodes)}

    def key(name: str) -> float:
        if not graph[name].is_input:
            return place[name]
        return min((place[c.name] for c, _ in consumers.get(name, []) if c.name in cotangents), default=-1.0) - 0.5

    return {name: cotangents[name] for name in sorted(cotangents, key=key, reverse=True)}
