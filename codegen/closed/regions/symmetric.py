# pyright: basic
"""Symmetric matrices: `x x^T`, what is made of one entry by entry, and cotangents that are. `D x + D^T x` is then `2 D x`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from codegen.closed.regions.cells import Cell


def symmetric_among(cells: Iterable[Cell], known: Collection[str] = ()) -> set[str]:
    """The names of the cells that are symmetric matrices, given those that are known to be."""
    found = {*known}
    for c in cells:
        if c.expr is not None and is_symmetric(c.expr, c.indices, c.shape, found):
            found.add(c.name)
    return found


def is_symmetric(e: Expr, indices: Sequence[Expr], shape: Sequence[Expr], known: Collection[str]) -> bool:
    """Whether an element at (i, j) is the one at (j, i), where the tensors of `known` are symmetric."""
    if len(indices) != 2 or 0 in indices or shape[0] != shape[1] or not e.has(Indexed):
        return False
    i, j = indices
    return bool(ordered(e, known) == ordered(cast("Expr", e.xreplace({i: j, j: i})), known))


def ordered(e: Any, known: Collection[str]) -> Any:
    """An expression with the indices of symmetric tensors, and of equalities, in one order, and bound ones by position."""
    if isinstance(e, Indexed):
        if name_of(e) not in known or len(e.indices) != 2:
            return e
        return e.func(e.base, *sorted(e.indices, key=sp.default_sort_key))
    if isinstance(e, Delta):
        return e.func(*sorted(e.args, key=sp.default_sort_key))
    if not e.args:
        return e
    out = on_places(rebuilt(e, lambda a: ordered(a, known)))
    for d in [f for f in sp.Mul.make_args(out) if isinstance(f, Delta) and all(isinstance(i, Index) for i in f.args)]:
        one, other = d.args  # a diagonal is that of the transpose, too
        out = d * (out / d).xreplace({other: one})
    if isinstance(out, Sigma):
        key, free = fact_key(out)
        return cast("Any", sp.Function("sum_of"))(key, sp.Tuple(*free))
    return out


def on_places(e: Any) -> Any:
    """A choice between zero and what is on a diagonal alone as that diagonal, of the choice."""
    if not isinstance(e, Where) or 0 not in e.args[1:]:
        return e
    condition, one, other = e.args
    places = sp.Mul(*[f for f in sp.Mul.make_args(one + other) if isinstance(f, Delta)])
    return places * Where(condition, one / places, other / places)


def joined(e: Expr, cot: str) -> Expr:
    """A sum of products with a symmetric cotangent, in which those that are equal for that reason are one.

    It is summed over its first index beside what is summed over its last one, as in `x D`, else over its second, as in `D x`.
    """
    first: dict[Any, Sigma] = {}

    def turned(x: Any) -> Any:
        if not isinstance(x, Sigma):
            return x if isinstance(x, Indexed) or not x.args else rebuilt(x, turned)
        inside = {i for i, _ in x.limits}
        read = x.body.atoms(Indexed)
        mine = [a for a in read if name_of(a) == cot and len(a.indices) == 2 and len(inside & {*a.indices}) == 1]
        last = {b.indices[-1] for b in read if name_of(b) != cot and len(b.indices) > 1}
        swap = {
            a: a.func(a.base, *a.indices[::-1])
            for a in mine
            if (a.indices[0] in inside) != (not last.isdisjoint(inside & {*a.indices}))
        }
        new = cast("Sigma", x.func(x.body.xreplace(swap), *x.args[1:]))
        return first.setdefault(fact_key(new), new)

    return cast("Expr", turned(e))


__all__ = ["is_symmetric", "joined", "symmetric_among"]
