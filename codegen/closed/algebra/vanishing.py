# pyright: basic
"""Choices that are none: `(0 if [p = 0] else p f)` is `p f`, where f does not depend on p."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Equal, Less, Where, accesses

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.algebra.algebra import Algebra

RULE = "what is zero by itself needs no choice"


def without_choices(e: Expr, algebra: Algebra) -> Expr:
    """An expression in which what vanishes where a choice makes it zero is not chosen."""
    new = opened(e) if e.has(Where) else e
    if new is not e:
        algebra.note(RULE)
    return new


def opened(e: Any) -> Any:
    """The same object where no choice is needless."""
    if isinstance(e, Indexed) or not e.args:
        return e
    new = rebuilt(e, opened)
    if isinstance(new, Mul):
        return beside(new)
    if not isinstance(new, Where):
        return new
    condition, chosen, other = new.args
    if chosen == 0 and any(vanishes(other, t) for t in zeros(condition)):
        return other
    if other == 0 and isinstance(condition, Less) and condition.args[0] == 0 and condition.args[1].is_positive:
        return chosen if vanishes(chosen, condition.args[1]) else new
    return new


def beside(e: Any) -> Any:
    """A product of a tensor and a choice that makes it zero where the tensor is: of the tensor and what is chosen elsewhere."""
    for f in e.args:
        if isinstance(f, Where):
            rest = Mul(*[x for x in e.args if x is not f])
            for k in (1, 2):
                whole = f.func(f.args[0], *[rest * a if k == j and a != 0 else a for j, a in enumerate(f.args) if j])
                new = opened(whole) if f.args[3 - k] == 0 else whole
                if f.args[3 - k] == 0 and not isinstance(new, Where):
                    return new
    return e


def zeros(condition: Any) -> list[Any]:
    """The tensors' elements that are zero where a condition holds."""
    found = [f.args for f in Mul.make_args(condition) if isinstance(f, Equal)]
    return [a if b == 0 else b for a, b in found if 0 in (a, b)]


def vanishes(e: Any, t: Any) -> bool:
    """Whether a product is zero with one of its factors: the others do not read it."""
    factors = Mul.make_args(e)
    powers = [f for f in factors if f == t or (isinstance(f, sp.Pow) and f.base == t and f.exp.is_positive)]
    return bool(powers) and not any(t in accesses(f) for f in factors if f not in powers)
