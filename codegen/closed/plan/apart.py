# pyright: basic
"""Sums over all rows but one: what they add up is made once without its diagonal, however many sums read it.

`Sum_k [i ≠ k] w_ik x_kd` and `Sum_k [i ≠ k] w_ik` read one matrix whose diagonal is filled with zeros. Where w is a cotangent
that nothing else reads, its own diagonal is left out, and where that is zero already, nothing is to be done.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Mul

from codegen.closed.algebra.matching import determined
from codegen.closed.algebra.terms import indices_of
from codegen.closed.plan.backward import Statement
from codegen.closed.plan.prices import sums_of
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, base, element, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sympy import Expr

RULE = "a diagonal that counts for nothing is left out once"
WITHOUT = "without_diagonal_"
"""What the names of statements begin with that are a matrix without its diagonal."""


def without_diagonals(
    statements: list[Statement], gradients: Collection[str], shape: Callable[[Expr, Statement], dict[Any, Expr]]
) -> list[Statement]:
    """Statements whose sums over all rows but one read matrices without their diagonals.

    `gradients` are statements that are read from elsewhere, `shape` gives the sizes of the indices of an expression in one.
    """
    if not any(masks_of(x) for s in statements for x in sums_of(s.expr)):
        return statements
    statements = by_zeros(left_out(statements, gradients))
    made: list[Statement] = []
    out: list[Statement] = []
    for s in statements:
        before = len(made)
        sizes = shape(s.expr, s)
        change = {x: read(x, made, sizes) for x in sums_of(s.expr) if masks_of(x)}
        out += [*made[before:], changed(s, change)]
    return out


def masks_of(total: Sigma) -> list[Expr]:
    """The factors `1 - [i = k]` of what is summed."""
    return [f for f in Mul.make_args(total.body) if is_mask(f)]


def is_mask(f: Any) -> bool:
    """Whether a factor is zero on a diagonal and else one."""
    delta = 1 - f
    return isinstance(delta, Delta) and all(isinstance(i, Index) for i in delta.args)


def changed(s: Statement, change: dict[Any, Any]) -> Statement:
    """A statement with sums replaced, and the rule."""
    expr = cast("Expr", s.expr.xreplace(change))
    return s if expr == s.expr else replace(s, expr=expr, rules=(*s.rules, RULE))


def left_out(statements: list[Statement], gradients: Collection[str]) -> list[Statement]:
    """Cotangents without their diagonals, where nothing reads these."""
    out: list[Statement] = []
    for s in statements:
        masks = {m for r in statements for m in readers(r.expr, s)} if s.name not in gradients else set[Any]()
        mask = next(iter(masks)) if len(masks) == 1 else None
        if mask is None or has_mask(s.expr, mask):
            out.append(s)
        else:
            out.append(replace(s, expr=mask * s.expr, rules=(*s.rules, RULE)))
    return out


def readers(e: Any, s: Statement) -> Iterable[Any]:
    """The masks, at a statement's own indices, under which an expression reads it; None where it does so without any."""
    if isinstance(e, Indexed):
        return [None] if name_of(e) == s.name else []
    if isinstance(e, Sigma):
        masks, factors = masks_of(e), Mul.make_args(e.body)
        mine = [f for f in factors if isinstance(f, Indexed) and name_of(f) == s.name]
        found = [mask_at(a, s, masks) for a in mine]
        return [*found, *(m for f in factors if f not in mine for m in readers(f, s))]
    return [m for a in e.args for m in readers(a, s)]


def mask_at(a: Indexed, s: Statement, masks: list[Any]) -> Any:
    """The one of the masks that is on a diagonal of an access, at the statement's own indices."""
    own = dict(zip(a.indices, s.indices, strict=True))
    return next((m.xreplace(own) for m in masks if indices_of(m) <= own.keys()), None)


def has_mask(e: Any, mask: Any) -> bool:
    """Whether an expression is zero where a mask is."""
    return mask in Mul.make_args(e)


def by_zeros(statements: list[Statement]) -> list[Statement]:
    """Sums without the masks of cotangents that are zero there."""
    by_name = {s.name: s for s in statements}

    def without(total: Sigma) -> Any:
        factors = list(Mul.make_args(total.body))
        for a in [f for f in factors if isinstance(f, Indexed) and name_of(f) in by_name]:
            s = by_name[name_of(a)]
            there = dict(zip(s.indices, a.indices, strict=True))
            zero = {f.xreplace(there) for f in Mul.make_args(s.expr) if is_mask(f)}
            factors = [f for f in factors if f not in zero]
        whole = Mul(*factors)
        return total if whole == total.body else total.func(whole, *total.args[1:])

    return [changed(s, {x: without(x) for x in sums_of(s.expr) if masks_of(x)}) for s in statements]


def read(total: Sigma, made: list[Statement], sizes: dict[Any, Expr]) -> Any:
    """A sum by a matrix without its diagonal; where that is not among those `made`, it is added to them."""
    for mask in masks_of(total):
        factors = Mul.make_args(total.body)
        near = [f for f in factors if f != mask and indices_of(f) >= indices_of(mask)]
        whole = Mul(*near)
        free = [i for i in dict.fromkeys(order_of(whole)) if i in indices_of(whole)]
        if not near or not all(i in sizes for i in free):
            continue
        known = next((e for s in made for e in [element_of(s, whole)] if e is not None), None)
        if known is None:
            name = f"{WITHOUT}{len(made)}"
            made.append(
                Statement(name, tuple(free), tuple(sizes[i] for i in free), mask * whole, "", mask * whole, (RULE,))
            )
            known = element(base(name), free)
        rest = Mul(*[f for f in factors if f != mask and f not in near])
        total = total.func(known * rest, *total.args[1:])
    return total


def element_of(s: Statement, whole: Expr) -> Indexed | None:
    """The element of a matrix without its diagonal that is a product without it; None if there is none."""
    pattern = Mul(*[f for f in Mul.make_args(s.expr) if not is_mask(f)])
    there = determined(pattern, whole, s.indices)
    return None if there is None else element(base(s.name), [i.xreplace(there) for i in s.indices])


def order_of(e: Expr) -> list[Any]:
    """The indices of an expression in the order in which its largest tensor has them."""
    largest = max(e.atoms(Indexed), key=lambda a: (len(a.indices), str(a)), default=None)
    rest = sorted(indices_of(e), key=str)
    return [*(largest.indices if largest is not None else ()), *rest]


__all__ = ["RULE", "WITHOUT", "without_diagonals"]
