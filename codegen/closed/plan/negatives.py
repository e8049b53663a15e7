# pyright: basic
"""Statements that are the negative of an earlier one: `(s - 1) k` beside `(1 - s) k` is minus what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.terms import indices_of
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, base, canonical, element

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.plan.backward import Statement

RULE = "what is minus another cotangent is computed from it"


def by_negatives(statements: list[Statement]) -> list[Statement]:
    """The statements with those that are the negative of one before them, and take more than one operation, as minus that one."""
    known: dict[Any, Statement] = {}
    out: list[Statement] = []
    for s in statements:
        if not is_long(s):
            out.append(s)
            continue
        first = known.get(key_of(s, -1))
        if first is None:
            known.setdefault(key_of(s, 1), s)
            out.append(s)
        else:
            expr = cast("Expr", -element(base(first.name), s.indices))
            out.append(replace(s, expr=expr, rules=(*s.rules, RULE)))
    return out


def key_of(s: Statement, sign: int) -> Any:
    """What is equal for statements of equal values, or for those of opposite signs."""
    own = {i: Index(f"_n{k}") for k, i in enumerate(s.indices) if i != 0}
    return canonical(sp.expand(sign * s.expr).xreplace(own)), s.shape


def is_long(s: Statement) -> bool:
    """Whether a statement takes more than one operation on tensors of its size, and is nothing but these."""
    every = frozenset(i for i in s.indices if i != 0)
    if not every or s.expr.has(Sigma, Delta):
        return False
    whole = [a for a in sp.preorder_traversal(s.expr) if isinstance(a, (Indexed, sp.Add)) and indices_of(a) == every]
    return len(whole) > 1


__all__ = ["by_negatives"]
