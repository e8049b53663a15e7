"""What is to be told about each node of a derivation: where it comes from, what it is, how its cotangent follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

from codegen.derive import COT, partials
from codegen.formula import latex_formula, left_side, lettered, named, text_formula
from codegen.ownoutput import by_output
from codegen.steps import StepsWriter
from engine.implicit import Expansion
from engine.notation import accesses, base, element
from engine.spelling import size_text
from engine.table import Definition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from sympy import Expr

    from codegen.derivation import Derivation, Law, Part
    from engine.graph import Graph, Node
    from engine.indexed import Indexed, IndexedBase


@dataclass(frozen=True, eq=False)
class Formula:
    """One formula, as a line of text and as LaTeX, each printed when it is asked for."""

    as_text: Callable[[], str]
    as_latex: Callable[[], str]

    @cached_property
    def text(self) -> str:
        """One line of text."""
        return self.as_text()

    @cached_property
    def latex(self) -> str:
        """LaTeX."""
        return self.as_latex()


@dataclass(frozen=True)
class Path:
    """One way from a node to the result: through a consumer, with the derivative of the consumer's element by the node's."""

    consumer: str
    derivative: Formula
    scattered: bool
    parts: tuple[Any, Any, Any]
    """The consumer's element, the node's, and the derivative of the one by the other."""


@dataclass(frozen=True)
class Explanation:
    """One node.

    Attributes:
        name: the node's name; `shape` and `dtype` as text.
        forward: the torch call that made it, as `name = call`; empty for an input.
        line: the user's own line, and `place` its file and line; empty for an input.
        definition: its index notation; None for inputs and what has none.
        cotangent: the derived gradient; None where the result does not depend on it.
        paths: what the cotangent is summed from.
        rules: the other rules that were used.
        statements: the emitted lines.
        laws: what it follows from where that is no definition, each with a caption.
        adjoint: the equation of what its backward computes from the cotangent, with a caption and the lines.
    """

    name: str
    shape: str
    dtype: str
    forward: str
    line: str
    place: str
    definition: Formula | None
    cotangent: Formula | None
    paths: tuple[Path, ...]
    rules: tuple[str, ...]
    statements: tuple[str, ...]
    laws: tuple[tuple[str, Formula], ...] = ()
    adjoint: tuple[str, Formula, tuple[str, ...]] | None = None


def explanations(derivation: Derivation) -> dict[str, Explanation]:
    """Every node by name: those with a cotangent in backward order, then the rest in order of execution."""
    statements = {b.name: b.lines for b in StepsWriter(derivation).blocks()}
    rest = [n.name for n in derivation.graph.nodes if n.name not in derivation.cotangents]
    return {name: _explained(derivation, name, statements) for name in (*derivation.nodes, *rest)}


def shape_of(node: Node) -> str:
    """`(n, 27)`: a node's shape."""
    return "(" + ", ".join(size_text(s) for s in node.shape) + ("," if len(node.shape) == 1 else "") + ")"


def _explained(derivation: Derivation, name: str, statements: Mapping[str, tuple[str, ...]]) -> Explanation:
    graph = derivation.graph
    node = graph[name]
    known = derivation.cotangents.get(name)
    definition = Formula(
        lambda: derivation.definition_text(name) or "", lambda: derivation.definition_latex(name) or ""
    )
    cotangent = Formula(lambda: derivation.text(name), lambda: derivation.latex(name))
    return Explanation(
        name=name,
        shape=shape_of(node),
        dtype=str(node.dtype).removeprefix("torch."),
        forward="" if node.is_input else _forward(graph, node),
        line=node.source.text if node.source else "",
        place=str(node.source) if node.source else "",
        definition=None if node.definition is None else definition,
        cotangent=None if known is None else cotangent,
        paths=() if known is None else tuple(p for part in known.parts for p in _paths(derivation, part)),
        rules=() if known is None else tuple(_rules(derivation, name)),
        statements=statements.get(name, ()),
        laws=tuple((law.caption, formula_of(law, derivation.ranks)) for law in derivation.laws(name)),
        adjoint=_adjoint(derivation, name, statements),
    )


def formula_of(law: Law, ranks: Mapping[str, int]) -> Formula:
    """Both sides of an equation."""
    left, right = law.left, law.right
    return Formula(
        lambda: f"{text_formula(left, ranks)} = {text_formula(right, ranks)}",
        lambda: f"{latex_formula(left, ranks)} = {latex_formula(right, ranks)}",
    )


def _adjoint(
    derivation: Derivation, name: str, statements: Mapping[str, tuple[str, ...]]
) -> tuple[str, Formula, tuple[str, ...]] | None:
    law, c = derivation.adjoint(name), derivation.cotangents.get(name)
    if law is None or c is None or c.helper is None:
        return None
    lines = statements.get(c.helper.name, ()) if c.helper.statements else ()
    return law.caption, formula_of(law, derivation.ranks), lines


def _forward(graph: Graph, node: Node) -> str:
    return f"{node.name} = {node.forward_text()}" + (f"[{node.output}]" if node.output is not None else "")


def _rules(derivation: Derivation, name: str) -> list[str]:
    """The trail of a node, without the chain rule, which the paths tell."""
    seeded = ["the result itself: its cotangent is given"] if derivation.cotangents[name].seeded else []
    told = [r for r in derivation.rules.get(name, ()) if not r.startswith("chain rule through")]
    return [*seeded, *told]


def _paths(derivation: Derivation, part: Part) -> list[Path]:
    """The derivatives of a consumer's element by each access that it makes to the node."""
    if isinstance(part.consumer.implicit, Expansion):
        return [_of_expansion(derivation, part)]
    equation = part.consumer.implicit
    template = part.consumer.template
    if equation is not None:  # what its left side less its right one moves by
        template = Definition(equation.shape, equation.indices, equation.expr)
    found = next((a.base for a in accesses(template.expr, f"_{part.position}")), None) if template is not None else None
    if template is None or found is None:
        return []
    sizes: dict[Any, Any] = dict(part.consumer.sizes)
    names = derivation.names(part)
    scattered = any("scattered" in rule for rule in part.template.rules)
    paths: list[Path] = []
    name = part.consumer.name if equation is None else f"{part.consumer.name}_equation"
    for local, access in local_derivatives(template, found):
        output = left_side(name, template.indices)
        bottom = named(access.xreplace(sizes), names)
        right = named(local.xreplace(sizes), names)
        parts, _ = _lettered([output, bottom, right], template.indices, derivation.taken)
        paths.append(Path(part.consumer.name, _partial(parts, derivation.ranks), scattered, parts))
    return paths


def _of_expansion(derivation: Derivation, part: Part) -> Path:
    """The derivative of a function of determinants by an entry of the matrix."""
    names, at = derivation.names(part), part.template.indices
    lead = at[: len(part.consumer.shape)]
    slope = part.template.expr / element(base(COT), lead)
    exprs = [left_side(part.consumer.name, lead), left_side(names[f"_{part.position}"], at), named(slope, names)]
    parts, _ = _lettered(exprs, at, derivation.taken)
    return Path(part.consumer.name, _partial(parts, derivation.ranks), False, parts)


@lru_cache(maxsize=4096)
def local_derivatives(template: Definition, operand: IndexedBase) -> tuple[tuple[Expr, Indexed], ...]:
    """The derivatives of a definition by each of its accesses to an operand, over its own output where that is shorter."""
    return tuple(
        (by_output(coefficient, template) if not limits else coefficient, access)
        for coefficient, access, limits in partials(template.expr, operand)
    )


def _partial(parts: tuple[Any, Any, Any], ranks: Mapping[str, int]) -> Formula:
    """`∂top/∂under = value`."""

    def text() -> str:
        top, under, value = (text_formula(e, ranks) for e in parts)
        return f"∂{top}/∂{under} = {value}"

    def latex() -> str:
        top, under, value = (latex_formula(e, ranks) for e in parts)
        return rf"\frac{{\partial\, {top}}}{{\partial\, {under}}} = {value}"

    return Formula(text, latex)


def _lettered(parts: list[Any], indices: tuple[Any, ...], avoid: AbstractSet[str]) -> tuple[Any, tuple[Any, ...]]:
    """Several expressions with the same letters for the same indices."""
    from sympy import Tuple

    joined, at = lettered(cast("Any", Tuple(*parts)), indices, avoid)
    return tuple(joined.args), at


__all__ = ["Explanation", "Formula", "Path", "explanations", "shape_of"]
