# pyright: basic
"""Choices that are none: `(0 if [p = 0] else p f)` is `p f`, where f does not depend on p, and so is one beside a division by p."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import expanded, powers
from codegen.closed.regions.cells import at
from engine.indexed import Indexed
from engine.notation import Equal, Less, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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


DIVIDED = "a sum that is divided by zero in any case needs no choice there"


def where_divided(e: Expr, algebra: Algebra) -> Expr:
    """A sum in which nothing is chosen to be zero where v is, as another term is divided by v: of `d/v - x (0 if [v = 0] else y/v)`.

    No value of the sum is finite there, whatever the choice says. v may be the root of what is compared, with a choice of its own.
    """
    terms = sp.Add.make_args(e)
    if len(terms) < 2 or not e.has(Where):
        return e
    below = [
        b for t in terms for b, x in powers(t).items() if isinstance(b, Indexed) and x.is_negative and not chooses(t)
    ]
    roots = {v: (b, x) for b in below for v, x in root_of(b, algebra)}
    chosen = {f: by_root(f, roots) for t in terms for f in Mul.make_args(t) if chooses(f)}
    if all(new is f for f, new in chosen.items()):
        return e
    algebra.note(DIVIDED)
    factors = [[chosen.get(f, f) for f in Mul.make_args(t)] for t in terms]
    return cast("Expr", sp.Add(*[expanded(Mul(*some)) for some in factors]))


def chooses(term: Any) -> bool:
    """Whether a product has a choice of zero among its factors."""
    return any(isinstance(f, Where) and f.args[1] == 0 for f in Mul.make_args(term))


def root_of(b: Any, algebra: Algebra) -> list[tuple[Any, Any]]:
    """What is zero where a tensor is, and to which power it is the tensor: itself, and v of `0 if [v = 0] else sqrt(v)`."""
    cell = algebra.cells.get(name_of(b))
    e: Any = at(cell, b.indices) if cell is not None and cell.expr is not None else None
    inner = e.args[2].as_base_exp() if isinstance(e, Where) and e.args[1] == 0 else None
    found = [inner] if inner is not None and inner[0] in zeros(e.args[0]) and inner[1].is_positive else []
    return [(b, sp.S.One), *found]


def by_root(f: Any, roots: Mapping[Any, tuple[Any, Any]]) -> Any:
    """What is chosen where it is not zero, with a root for the powers of what it is the root of; the same object where none is known."""
    for v in zeros(f.args[0]):
        if v in roots:
            b, x = roots[v]
            power = powers(f.args[2]).get(v, sp.S.Zero)
            return f.args[2] * v**-power * b ** (power / x) if (power / x).is_Integer else f.args[2]
    return f


def zeros(condition: Any) -> list[Any]:
    """The tensors' elements that are zero where a condition holds."""
    found = [f.args for f in Mul.make_args(condition) if isinstance(f, Equal)]
    return [a if b == 0 else b for a, b in found if 0 in (a, b)]


def vanishes(e: Any, t: Any) -> bool:
    """Whether a product is zero with one of its factors: the others do not read it."""
    factors = Mul.make_args(e)
    own = [f for f in factors if f == t or (isinstance(f, sp.Pow) and f.base == t and f.exp.is_positive)]
    return bool(own) and not any(t in accesses(f) for f in factors if f not in own)
