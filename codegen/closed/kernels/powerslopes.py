# pyright: basic
"""Slopes of powers told by the power: with `p = x^y`, the slope in y is `p log x`, and x times the slope in x is `y p`.

torch says what a power of 0 is beside: its slope in y is 0 there where y is not negative, and the slope in x has a case for every
kind of exponent. x times that is `y p` in all of them, as p is 0 for x = 0, and 1 where y is 0 too.
Alone, the slope in x is `y x^(y - 1)`, and 0 where y is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import determined
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import is_monomial, powers
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Equal, LessEqual, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.algebra.algebra import Algebra
    from codegen.closed.regions.cells import Cell

RULE = "the slope of a power is told by the power"


def by_powers(e: Expr, algebra: Algebra) -> Expr:
    """An expression in generators with the slopes of powers that are cells told by these."""
    new = told(e, algebra) if e.has(Where) and e.has(LessEqual) else e
    if new is not e:
        algebra.note(RULE)
    return new


def told(e: Any, algebra: Algebra) -> Any:
    """The same object where there is no such slope."""
    if isinstance(e, Indexed) or not e.args or not e.has(Where):
        return e
    if isinstance(e, Where):
        found = power_of(e, algebra)
        return e if found is None else in_exponent(e, *found, algebra)
    if isinstance(e, Mul):
        for f in e.args:
            found = power_of(f, algebra) if isinstance(f, Where) else None
            new = None if found is None else in_base(f, Mul(*[g for g in e.args if g is not f]), *found, algebra)
            if new is not None:
                return told(new, algebra)
    return rebuilt(e, lambda a: told(a, algebra))


def in_exponent(w: Any, x: Any, y: Any, p: Any, algebra: Algebra) -> Any:
    """The slope in y, 0 where x is and y is not negative, as `p log x`."""
    base, power = algebra.lowered(x), algebra.lowered(y)
    slope = base**power * sp.log(base)
    return Where(w.args[0], 0, p * sp.log(x)) if w.args[1] == 0 and w.args[2] == slope else w


def in_base(w: Any, rest: Any, x: Any, y: Any, p: Any, algebra: Algebra) -> Any:
    """The slope in x beside all that x has as factors, as `y p / x` of these; None for anything else."""
    base, power = algebra.lowered(x), algebra.lowered(y)
    if w.args[2] != base**power * power / base:
        return None
    there = powers(rest)
    if any(there.get(b, sp.S.Zero) < k for b, k in powers(base).items() if k.is_positive):
        return None
    return rest * power * p / base


def power_of(w: Any, algebra: Algebra) -> tuple[Any, Any, Any] | None:
    """x, y and the element of the cell that is x^y, of a choice by whether x is 0 and y is not negative."""
    for cell in algebra.cells.values():
        e: Any = cell.expr
        if not isinstance(e, Where) or not isinstance(e.args[2], sp.Pow):
            continue
        x, y = e.args[2].args
        if not (isinstance(x, Indexed) and isinstance(y, Indexed)) or e.args[0] != Equal(x, 0) * LessEqual(0, y):
            continue
        found = at_condition(w.args[0], x, y, cell.indices)
        if found is not None:
            there = [i.xreplace(found) for i in cell.indices]
            return x.xreplace(found), y.xreplace(found), cell.element(there)
    return None


def at_condition(condition: Any, x: Indexed, y: Indexed, indices: Any) -> dict[Any, Any] | None:
    """The indices at which x and y are compared in a condition; None where they are not."""
    read = sorted(condition.atoms(Indexed), key=str)
    if len(read) != 2:
        return None
    for a, b in (read, read[::-1]):
        if name_of(a) == name_of(x) and name_of(b) == name_of(y):
            one, other = (determined(p, t, [i for i in indices if i in p.indices]) for p, t in ((x, a), (y, b)))
            found = None if one is None or other is None else {**one, **other}
            if found is not None and condition == Equal(a, 0) * LessEqual(0, b):
                return found
    return None


def slopes_alone(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every slope in x that is left as the power that it is, of the tensor that the forward has."""
    if isinstance(e, Indexed) or not e.args or not e.has(LessEqual):
        return e
    new = rebuilt(e, lambda a: slopes_alone(a, cells))
    return slope_alone(new, cells) if isinstance(new, Where) else new


def slope_alone(w: Any, cells: Mapping[str, Cell]) -> Any:
    """A choice as `0 if y = 0 else y x^(y - 1)` where it is that, with a case for x = 0 beside."""
    condition, case, other = w.args
    zero, bound = next((f for f in Mul.make_args(condition) if isinstance(f, Equal)), None), condition.atoms(LessEqual)
    if zero is None or zero.args[1] != 0 or len(bound) != 1:
        return w
    (x, _), (least, y) = zero.args, next(iter(bound)).args
    if condition != Equal(x, 0) * LessEqual(0, y) or least != 0 or not isinstance(case, Where):
        return w
    one = case.args[2]
    if case.args[:2] != (Equal(y, 0), 0) or not isinstance(one, Where) or one.args[:2] != (Equal(y, 1), 1):
        return w
    power = y * x ** (y - 1)
    return Where(Equal(y, 0), 0, power) if same_product(other, power, cells) else w


def same_product(a: Any, b: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether two products of powers are equal, where all that they are made of is positive."""
    both = [in_whole(e, {n: c for n, c in cells.items() if c.expr is not None and is_monomial(c.expr)}) for e in (a, b)]
    positive = {
        i: sp.Dummy(str(i), positive=True) for i in sorted(both[0].atoms(Indexed) | both[1].atoms(Indexed), key=str)
    }
    one, other = (sp.expand_log(sp.log(e.xreplace(positive)), force=True) for e in both)
    return sp.expand(one - other) == 0


def in_whole(e: Any, products: Mapping[str, Cell]) -> Any:
    """An expression with all that is a product of others written out."""
    while any(name_of(a) in products for a in accesses(e)):
        e = substituted(e, products)
    return e


__all__ = ["by_powers", "slopes_alone"]
