# pyright: basic
"""Products of powers and sums of them: what a product is made of, products multiplied out, common factors in front."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, bound, holds

if TYPE_CHECKING:
    from collections.abc import Mapping

ZERO, ONE = sp.S.Zero, sp.S.One


@lru_cache(maxsize=2**14)
def powers(term: Expr) -> Mapping[Expr, Expr]:
    """The atoms of a product with their exponents; numbers and sizes are left out."""
    out: dict[Expr, Expr] = {}
    for f in Mul.make_args(term):
        if holds(f, Indexed, Index):
            b, x = f.as_base_exp() if not isinstance(f, sp.exp) else (f, ONE)
            out[cast("Expr", b)] = out.get(cast("Expr", b), ZERO) + x
    return MappingProxyType(out)


@lru_cache(maxsize=2**14)
def indices_of(e: Expr) -> frozenset[Index]:
    """The indices that an expression depends on, without those that it sums over."""
    return frozenset(i for i in e.free_symbols if isinstance(i, Index)) - (
        bound(e) if holds(e, Sigma) else set[Index]()
    )


@lru_cache(maxsize=2**14)
def scalar_part(term: Expr) -> Expr:
    """The numbers and sizes of a product."""
    return cast("Expr", Mul(*[f for f in Mul.make_args(term) if not holds(f, Indexed, Index)]))


def like_terms(e: Any) -> Any:
    """A sum in which what stands before the same tensors is added up: `n a / (n - 1) - a / (n - 1)` is `a`.

    Each group of such terms is one where that takes no more operations, with those that add the terms up.
    """
    if not isinstance(e, sp.Add):
        return e
    groups: dict[Any, list[Any]] = {}
    for t in e.args:
        tensors = Mul(*[f for f in Mul.make_args(t) if holds(f, Indexed, Index)])
        groups.setdefault(tensors, []).append(scalar_part(cast("Expr", t)))
    if len(groups) == len(e.args):
        return e
    out: list[Any] = []
    for tensors, numbers in groups.items():
        whole = sp.factor(sp.cancel(sp.Add(*numbers))) if len(numbers) > 1 else numbers[0]
        less = operations(whole) < operations(*numbers) + len(numbers)
        out += [whole * tensors] if less else [n * tensors for n in numbers]
    return sp.Add(*out)


def operations(*numbers: Any) -> int:
    """What several numbers take to compute."""
    return sum(int(sp.count_ops(n)) for n in numbers)


WAVES = (sp.sin, sp.cos)
"""Functions whose slopes are one another: what holds one of them is read where the slope of the other is meant."""


def is_monomial(e: Expr) -> bool:
    """A product of powers of accesses and functions, also of positions, no sum on top."""
    table = powers(e)
    return (
        all(isinstance(b, (Indexed, sp.exp, Index, *WAVES)) and x.is_Rational for b, x in table.items())
        and any(not isinstance(b, Index) for b in table)
        and not e.is_Add
    )


def expanded(e: Any) -> Any:
    """Products over additions multiplied out; arguments of functions and sums are left alone."""
    if isinstance(e, sp.Add):
        return sp.Add(*[expanded(a) for a in e.args])
    if (
        isinstance(e, sp.Pow)
        and not isinstance(e, sp.exp)
        and isinstance(e.base, sp.Add)
        and e.exp.is_Integer
        and e.exp > 0
    ):
        return sp.Add(*[expanded(t) for t in sp.Add.make_args(sp.expand_multinomial(e))])
    if isinstance(e, sp.Mul) and any(
        isinstance(f, sp.Add) or (isinstance(f, sp.Pow) and isinstance(f.base, sp.Add)) for f in e.args
    ):
        terms: list[Any] = [ONE]
        for f in e.args:
            parts = sp.Add.make_args(expanded(f)) if not (isinstance(f, sp.Add) and not f.has(Indexed)) else (f,)
            terms = [t * p for t in terms for p in parts]
        return sp.Add(*terms)
    return e


SHORT = 3
"""How many digits more are worth a number in front of a sum."""


@lru_cache(maxsize=2**12)
def gathered(e: Expr, numbers: bool = True) -> Expr:
    """A sum of products with what all of them share in front: `w*r*(dz - A/n - xhat*B/n)`. Accesses decide, then `numbers`."""
    terms = sp.Add.make_args(e)
    if len(terms) < 2:
        return e
    tables = [powers(t) for t in terms]
    common: Any = ONE
    for b, x in tables[0].items():
        others = [t.get(b, ZERO) for t in tables[1:]]
        if isinstance(b, Delta):
            continue
        if x.is_number and all(o.is_number and o * x > 0 for o in others):
            common *= b ** (min([x, *others]) if x > 0 else max([x, *others]))
    rest = [cast("Expr", t / common) for t in terms]
    if not numbers:
        fronts = {abs(t.as_coeff_Mul()[0]) for t in rest}
        common *= fronts.pop() if len(fronts) == 1 else ONE
        return cast("Expr", common * sp.Add(*[t / common for t in terms])) if common != 1 else e
    ranked = sorted(
        rest, key=lambda t: (holds(t, Sigma), holds(t, Delta), not powers(t), len(powers(t)), str(scalar_part(t)))
    )
    scale = undivided(with_short_numbers(scalar_part(ranked[0]), rest), rest)
    if scale.could_extract_minus_sign() and not all(scalar_part(t).could_extract_minus_sign() for t in rest):
        scale = -scale
    inside = sp.Add(*[t / scale for t in rest])
    return cast("Expr", Mul(common * scale, inside, evaluate=True) if common * scale != 1 else inside)


def with_short_numbers(scale: Expr, terms: list[Expr]) -> Expr:
    """A scalar without its number, where dividing by that makes long numbers of short ones: `1.702 x + 1` stays.

    Among single numbers whole ones stay whole: `20 x - y` is as it is, and `6 x + 4 y` is `2 (3 x + 2 y)`. In front of a sum
    of tensors a number costs less than inside of it.
    """
    number = scale.as_coeff_Mul()[0]
    before = [scalar_part(t).as_coeff_Mul()[0] for t in terms]
    if not number.is_Rational or not all(b.is_Rational for b in before):
        return scale
    if all(b.is_Integer for b in before) and not any(map(indices_of, terms)):
        return cast("Expr", scale / number * sp.igcd(*before))
    after = [number, *[b / number for b in before]]
    digits = [sum(len(f"{abs(x.p)}{x.q}") - 2 for x in {abs(x) for x in xs}) for xs in (before, after)]
    return cast("Expr", scale / number) if digits[1] > digits[0] + SHORT else scale


def undivided(scale: Expr, terms: list[Expr]) -> Expr:
    """A scalar without the sizes that not all of the terms have, so that none of these is divided or multiplied by one."""
    sizes = {s: x for s, x in scale.as_powers_dict().items() if s.is_Symbol and x.is_number}
    if not sizes:
        return scale
    there = [scalar_part(t).as_powers_dict() for t in terms]
    shared: dict[Any, Any] = {}
    for s, x in sizes.items():
        all_of_them = [x, *[t.get(s, ZERO) for t in there]]
        shared[s] = max(ZERO, min(all_of_them)) if x.is_positive else min(ZERO, max(all_of_them))
    return cast("Expr", scale * Mul(*[s ** (shared[s] - x) for s, x in sizes.items()]))


__all__ = ["expanded", "gathered", "indices_of", "is_monomial", "like_terms", "operations", "powers", "scalar_part"]
