# pyright: basic
"""Statements that are the negative of an earlier one: `(s - 1) k` beside `(1 - s) k` is minus what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.terms import indices_of
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, accesses, base, canonical, element, name_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from sympy import Expr

    from codegen.closed.plan.backward import Statement

RULE = "what is minus another cotangent is computed from it"
TURNED = "a product that is only read is computed with the sign of the gradient that is minus it"


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


def turned_round(statements: list[Statement], wanted: Collection[str]) -> list[Statement]:
    """The statements without a product that is nobody's gradient beside its negative: the negative takes its place.

    In a product a minus costs nothing, as it goes to the smallest factor; a tensor of its own costs a pass. Not where a
    reader of the product would need one.
    """
    out = list(statements)
    for name in [s.name for s in statements]:
        s = next(x for x in out if x.name == name)
        t = next((x for x in out if is_product_beside(x, s, wanted)), None)
        if t is None or not all(takes_minus(x.expr, t) for x in out if x.name != s.name):
            continue
        own = dict(zip([i for i in t.indices if i != 0], [i for i in s.indices if i != 0], strict=True))
        rules = (*t.rules, *s.rules, TURNED)
        turned = replace(s, expr=-t.expr.xreplace(own), naive=-t.naive.xreplace(own), rules=rules)
        rest = (turned if x is t else x for x in out if x is not s)
        out = [replace(x, expr=reading(x.expr, t, s), naive=reading(x.naive, t, s)) for x in rest]
    return out


def is_product_beside(t: Statement, s: Statement, wanted: Collection[str]) -> bool:
    """Whether t is a product of tensors, some smaller, that nobody asks for, and s is minus t."""
    if t.name in wanted or t.name == s.name or t.shape != s.shape or s.expr != -element(base(t.name), s.indices):
        return False
    sizes = [len(indices_of(f)) for f in sp.Mul.make_args(t.expr)]
    return isinstance(t.expr, sp.Mul) and min(sizes) < max(sizes)


def takes_minus(e: Expr, t: Statement) -> bool:
    """Whether an expression costs no more where it reads minus t: another term comes before it, or a smaller factor has the sign."""
    if not any(name_of(a) == t.name for a in accesses(e)):
        return True
    terms = sp.Add.make_args(e)
    if len(terms) > 1:
        kept = [x for x in terms if not any(name_of(a) == t.name for a in accesses(x))]
        return any(not x.could_extract_minus_sign() for x in kept)
    sizes = [len(indices_of(f)) for f in sp.Mul.make_args(e) if not f.is_number]
    return e.could_extract_minus_sign() or min(sizes) < max(sizes)


def reading(e: Expr, t: Statement, s: Statement) -> Expr:
    """An expression that reads minus s where it read t."""
    return e.xreplace({a: -element(base(s.name), a.indices) for a in accesses(e, t.name)})


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


__all__ = ["by_negatives", "turned_round"]
