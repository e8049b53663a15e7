# pyright: basic
"""Tensors of pairs that say of (j, i) what they say of (i, j), or its opposite: a sum over the first of a pair is one over the second.

Distances, and what is made of them element by element, are symmetric; differences `x_i - x_j` are antisymmetric. So with weights
g made of distances `Sum_j g_ij x_j + Sum_j g_ji x_j` is twice the first, and of `Sum_j g_ij u_ij - Sum_j g_ji u_ji` one is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.cells import substituted
from engine.indexed import Indexed
from engine.notation import Sigma, Sign, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codegen.closed.regions.cells import Cell

TERMS = 4
"""Terms at most of a sum that is written out to tell what it is with others, as `a_ij - m_j` is with `m_i` taken from it."""
RULE = "what pairs say of one another is the same, or the opposite"


def parities(cells: Iterable[Cell]) -> dict[str, int]:
    """1 for every cell that is symmetric in its first two indices, -1 for every one that is antisymmetric."""
    found: dict[str, int] = {}
    sums: dict[str, Cell] = {}
    for c in cells:
        if c.expr is None:
            continue
        e = cast("Expr", substituted(c.expr, sums))
        parity = parity_of(e, c.indices, c.shape, found)
        if parity is not None:
            found[c.name] = parity
        elif isinstance(e, sp.Add) and len(e.args) <= TERMS:
            sums[c.name] = replace(c, expr=e)
    return found


def parity_of(e: Expr, indices: Sequence[Expr], shape: Sequence[Expr], known: Mapping[str, int]) -> int | None:
    """1 where an element at (i, j, ...) is the one at (j, i, ...), -1 where it is the opposite, else None."""
    if len(indices) < 2 or 0 in indices[:2] or shape[0] != shape[1]:
        return None
    i, j = indices[:2]
    if not e.has(i) or not e.has(j):
        return None
    one, other = (in_order(x, known) for x in (e, e.xreplace({i: j, j: i})))
    return 1 if one == other else -1 if one == -other else None


def in_order(e: Any, known: Mapping[str, int]) -> Any:
    """An expression with the pairs of such tensors in one order, and sums by their shape."""
    if isinstance(e, Indexed):
        parity = known.get(name_of(e))
        pair = sorted(e.indices[:2], key=sp.default_sort_key)
        if parity is None or list(e.indices[:2]) == pair:
            return e
        return parity * e.func(e.base, *pair, *e.indices[2:])
    if not e.args:
        return e
    out = rebuilt(e, lambda a: in_order(a, known))
    if isinstance(out, Sign) and out.args[0].could_extract_minus_sign():
        return -Sign(-out.args[0])
    if isinstance(out, Sigma):
        key, free = fact_key(out)
        return cast("Any", sp.Function("sum_of"))(key, sp.Tuple(*free))
    return out


def mirrored(e: Expr, known: Mapping[str, int]) -> Expr:
    """An expression whose sums run over the second of a pair, in which those that are equal for that reason are one."""
    first: dict[Any, Any] = {}

    def turned(x: Any) -> Any:
        if isinstance(x, Indexed) or not x.args:
            return x
        if not isinstance(x, Sigma):
            return rebuilt(x, turned)
        inside = {i for i, _ in x.limits}
        swap = {
            a: known[name_of(a)] * a.func(a.base, a.indices[1], a.indices[0], *a.indices[2:])
            for a in sorted(x.body.atoms(Indexed), key=str)
            if name_of(a) in known and a.indices[0] in inside and a.indices[1] not in inside
        }
        sign, body = rebuilt(x.body, turned).xreplace(swap).as_coeff_Mul()
        new = x.func(body, *x.args[1:])
        return sign * first.setdefault(fact_key(new), new)

    return cast("Expr", turned(e)) if known and e.has(Sigma) else e


def turned(total: Sigma, known: Mapping[str, int]) -> tuple[Any, Sigma]:
    """A sum over the first of a pair as one over the second, and the sign in front of it."""
    sign, out = cast("Any", mirrored(total, known)).as_coeff_Mul()
    return sign, out


__all__ = ["RULE", "mirrored", "parities", "parity_of", "turned"]
