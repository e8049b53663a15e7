"""The states of a closed form with the names, sizes and index letters that a reader knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sympy import Tuple

from codegen.formula import left_side, lettered, named
from codegen.worked.walk import walked
from engine.indexed import Indexed
from engine.notation import base, element

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from sympy import Expr

    from codegen.closed.regions.code import RegionCode
    from codegen.derivation import Origin, Proof

Equation = tuple[Any, Any]


@dataclass(frozen=True)
class ToldStage:
    """What was done (tensors in backticks), the equations it used, and the cotangent after it, all as (left, right)."""

    rule: str
    facts: tuple[Equation, ...]
    equation: Equation
    ranks: dict[str, int]
    """The number of dimensions of what the formulas name; a tensor of rank 0 is printed without its index."""


def told(proof: Proof, others: AbstractSet[str] = frozenset()) -> tuple[ToldStage, ...]:
    """How a closed form follows from the chain rule, state by state, the closed form last; () where it is not known.

    `others` are names that index letters must not be taken for.
    """
    origin = proof.origin
    if origin is None:
        return ()
    names = _names(origin)
    ranks = {names[c.name]: len(c.shape) for c in origin.code.cells}
    ranks |= {names[n]: len(c.shape) for c in origin.code.cells for n in _cots(c.name) if n in names}
    ranks |= {names.get(s.name, s.name): len(s.shape) for s in origin.code.statements}
    ranks |= proof.ranks
    avoid = {*others, *names.values(), *(str(x) for n in origin.sizes.values() for x in n.free_symbols)}
    stages: list[ToldStage] = []
    for s in walked(origin.code, origin.statement):
        right, at = lettered(_renamed(s.expr, origin, names), proof.indices, avoid)
        facts = tuple(_equation(_renamed(a, origin, names), _renamed(b, origin, names), avoid) for a, b in s.facts)
        rule = re.sub(r"\{(\w+)\}", lambda m: f"`{names.get(m[1], m[1])}`", s.rule)
        stages.append(ToldStage(rule[0].upper() + rule[1:], facts, (left_side(proof.name, at), right), ranks))
    return tuple(stages)


def _cots(cell: str) -> tuple[str, str]:
    return f"d_{cell}", f"d_{cell}_out"


def _names(origin: Origin) -> dict[str, str]:
    """What everything in a region is called in the emitted file, or would be: a cotangent without a statement is `d<name>`."""
    names = dict(origin.names)
    taken = set(names.values())
    for c in origin.code.cells:
        for n in _cots(c.name):
            if n not in names:
                names[n] = f"d{names.get(c.name, c.name)}"
                while names[n] in taken and n == f"d_{c.name}":
                    names[n] += "_"
        taken.add(names[f"d_{c.name}"])
    return names


def _renamed(e: Expr, origin: Origin, names: dict[str, str]) -> Expr:
    return named(e.xreplace(origin.sizes), names)


def _equation(left: Any, right: Any, avoid: set[str]) -> Equation:
    """An equation with letters for its indices, those of its left side first."""
    both, _ = lettered(cast("Any", Tuple(left, right)), left.indices if isinstance(left, Indexed) else (), avoid)
    return both.args[0], both.args[1]


def definitions(code: RegionCode, names: dict[str, str], avoid: set[str]) -> dict[str, Equation]:
    """What the cells of a region are, by the names they have in the emitted file."""
    found: dict[str, Equation] = {}
    for c in code.cells:
        if c.expr is not None:
            left = element(base(names[c.name]), c.indices)
            found[names[c.name]] = _equation(left, named(c.expr, names), avoid)
    return found


__all__ = ["Equation", "ToldStage", "definitions", "told"]
