"""The states of a closed form with the names, sizes and index letters that a reader knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.formula import left_side, lettered, named
from codegen.worked.walk import walked
from engine.notation import name_of

if TYPE_CHECKING:
    from sympy import Expr, Indexed

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


def told(proof: Proof) -> tuple[ToldStage, ...]:
    """How a closed form follows from the chain rule, state by state, the closed form last; () where it is not known."""
    origin = proof.origin
    if origin is None:
        return ()
    names = _names(origin)
    ranks = {names[c.name]: len(c.shape) for c in origin.code.cells}
    ranks |= {names[n]: len(c.shape) for c in origin.code.cells for n in _cots(c.name) if n in names}
    ranks |= {names.get(s.name, s.name): len(s.shape) for s in origin.code.statements}
    ranks |= proof.ranks
    stages: list[ToldStage] = []
    for s in walked(origin.code, origin.statement):
        right, at = lettered(_renamed(s.expr, origin, names), proof.indices)
        facts = tuple(_equation(_renamed(a, origin, names), _renamed(b, origin, names)) for a, b in s.facts)
        rule = re.sub(r"\{(\w+)\}", lambda m: f"`{names.get(m[1], m[1])}`", s.rule)
        stages.append(ToldStage(rule, facts, (left_side(proof.name, at), right), ranks))
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


def _equation(left: Expr, right: Expr) -> Equation:
    """An equation with letters for its indices, those of its left side first."""
    indices: tuple[Any, ...] = left.indices if hasattr(left, "indices") else ()
    both, _ = lettered(_pair(left, right), indices)
    return both.args[0], both.args[1]


def _pair(left: Expr, right: Expr) -> Any:
    from sympy import Tuple

    return Tuple(left, right)


def reads(e: Indexed) -> str:
    """The tensor that an access reads."""
    return name_of(e)


__all__ = ["Equation", "ToldStage", "told"]
