"""A tensor's statements under its formula, as the template shows them, and what the tensors of a program are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from sympy import Add, Expr

from codegen.formula import bare, filled, left_side, lettered, named, text_template
from codegen.steps import wrapped
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.naming import Namer

LONGEST = 16
"""How many terms of a gradient are added up in one statement, or listed in its formula."""


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
    solves: tuple[Expr, Expr] | None = None
    """The equation that defines the tensor, where there is one instead of a formula."""

    @cached_property
    def equation(self) -> tuple[Expr, Expr] | None:
        """Left and right side of the formula, where there is one."""
        if not self.terms:
            return self.solves
        at = self.terms[0].indices
        total = Add(*[t.named(at) for t in self.terms])
        right, at = lettered(total, at, self.avoid)
        return left_side(self.name, at), right


@dataclass(frozen=True, eq=False)
class Labels:
    """The names of a program's tensors: how new ones are made, and what formulas must know of them."""

    namer: Namer
    ranks: dict[str, int]
    """The number of dimensions of every tensor by its name."""
    letters: frozenset[str]
    """Letters that name a tensor or a size, and so no index."""
    floats: dict[str, tuple[Expr, ...]] = field(default_factory=dict[str, "tuple[Expr, ...]"])
    """The shapes of the tensors that hold floats, by their names."""

    def note(self, name: str, shape: tuple[Expr, ...], kind: str = "float") -> None:
        """What a tensor of some name is."""
        self.ranks[name] = len(shape)
        if kind == "float":
            self.floats[name] = shape

    def block(self, name: str, lines: tuple[str, ...], *terms: Term) -> Block:
        """The statements of a tensor under the formula that adds up the terms."""
        return Block(name, self.text(name, terms), lines, terms, self.letters)

    def text(self, name: str, terms: tuple[Term, ...]) -> tuple[str, ...]:
        """`name[i,j] = a + b` with letters for the indices, broken into lines."""
        at, texts = "", list[str]()
        for term in terms:
            used = {name_of(a) for a in accesses(term.expr)}
            scalars = frozenset(n for n in used if self.ranks.get(term.names.get(n, n)) == 0)
            at, text = text_template(term.expr, term.indices, scalars, self.letters)
            texts.append(filled(text, term.names))
        if len(texts) > LONGEST:
            texts = [*texts[:3], "...", texts[-1]]
        texts = [bare(texts[0])] if len(texts) == 1 else texts
        left = f"{name}[{at}]" if at and self.ranks.get(name) != 0 else name
        return tuple(wrapped(f"{left} = {' + '.join(texts).replace(' + -', ' - ')}", 112))


__all__ = ["LONGEST", "Block", "Labels", "Term"]
