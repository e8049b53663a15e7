# pyright: basic
"""The algebra of finite sums: deltas summed out, sums pulled apart over additions, constant factors in front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.derive import Solver, distribute, only_places
from codegen.ranges import simplified
from engine.notation import Amax, Delta, Index, Less, Sigma

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


PUT = "a sum over all places of what is put at them is one over what is put there"
"""The rule of `gathered_up`."""


def rebuilt(e: Any, f: Callable[[Any], Any]) -> Any:
    """An expression with `f` applied to its arguments."""
    if not e.args or isinstance(e, (sp.Indexed, sp.IndexedBase)):
        return e
    args = [f(a) for a in e.args]
    return e.func(*args) if any(x is not y for x, y in zip(args, e.args, strict=True)) else e


def picks(i: Expr, place: Expr, bound: set[Index]) -> bool:
    """Whether an equality fixes a summed index, to what no summed index is in or to another tensor's value."""
    return i in bound and (not place.free_symbols & bound or (isinstance(place, sp.Indexed) and not place.has(i)))


def summed_term(term: Expr, limits: list[tuple[Index, Expr]], ranges: Mapping[Index, Expr]) -> Expr:
    """Sum of one product over `limits`: deltas of a summed index are solved, the rest of the sum stays."""
    term, places = only_places(term, dict(limits))
    limits = [(i, n) for i, n in limits if i not in places]
    bound = {i for i, _ in limits}
    deltas: list[tuple[Expr, Expr, Expr]] = []
    others: list[Any] = []
    for f in Mul.make_args(term):
        if isinstance(f, Delta) and f.free_symbols & bound and not f.has(sp.Indexed):
            a, b = cast("tuple[Expr, Expr]", f.args)
            e, k = (a, b) if a.free_symbols & bound else (b, a)
            if isinstance(e, Index) and e in bound and isinstance(k, Index) and k in bound:
                deltas.append((e, k, dict(limits)[k]))
                continue
            size = ranges.get(k) if isinstance(k, Index) else None
            deltas.append((e, k, size if size is not None else sp.S.One))
            continue
        if isinstance(f, Delta) and f.free_symbols & bound:
            a, b = cast("tuple[Expr, Expr]", f.args)
            one, other = (picks(a, b, bound), picks(b, a, bound))
            if one or other:
                e, k = (a, b) if one else (b, a)
                deltas.append((e, k, dict(limits)[cast("Index", e)]))
                continue
        others.append(f)
    if not deltas:
        used = term.free_symbols
        left = [(i, n) for i, n in limits if i in used]
        unused = [n for i, n in limits if i not in used]
        return Mul(*unused) * distribute(term, left)
    solver = Solver(dict(limits), ranges)
    rest = []
    for e, k, n in deltas:
        e, k = e.xreplace(solver.substitution), k.xreplace(solver.substitution)
        if isinstance(e, Index) and e in solver.limits and k.has(sp.Indexed):
            solver.put(e, k)  # a gather: the value of an integer tensor is a valid index of the dimension it reads
        else:
            rest.extend((a, b) for a, b in solver.solve([(e, k, n)]))
    body = Mul(*others, *[Delta(k, e) for e, k in rest]).xreplace(solver.substitution)
    body, kept = within(simplified(body, {**solver.known}), solver.limits)
    left = [(i, n) for i, n in kept.items() if i in body.free_symbols]
    unused = [n for i, n in kept.items() if i not in body.free_symbols]
    return Mul(*unused) * distribute(body, left)


def within(body: Expr, limits: Mapping[Index, Expr]) -> tuple[Expr, Mapping[Index, Expr]]:
    """A summand with `[i = j]` as the truth that i is a place of j, `[i < n]`, where nothing else has the summed index j < n.

    With it come the indices that are still summed over.
    """
    for d in [f for f in Mul.make_args(body) if isinstance(f, Delta)]:
        rest = body / d
        for j, i in (d.args, d.args[::-1]):
            if j in limits and isinstance(i, Index) and i not in limits and not rest.has(j):
                left = {k: n for k, n in limits.items() if k != j}
                return within(rest * Less(i, limits[cast("Index", j)]), left)
    return body, limits


def gathered_up(term: Any, limits: list[tuple[Index, Expr]]) -> tuple[Any, list[tuple[Index, Expr]]]:
    """A product and what it is summed over, where a sum over all places of what is put at them is one over what is put there.

    `Sum_i Sum_m [i = y_m] x_m` is `Sum_m x_m`: every place is one of the dimension that the integer tensor reads.
    """
    for i, _ in limits:
        factors = [f for f in Mul.make_args(term) if f.has(i)]
        if len(factors) != 1 or not isinstance(factors[0], Sigma):
            continue
        (total,) = factors
        inside = [f for f in Mul.make_args(total.body) if f.has(i)]
        places = [p for f in inside if isinstance(f, Delta) for p in f.args if p != i]
        if len(inside) == 1 and len(places) == 1 and isinstance(places[0], sp.Indexed) and not places[0].has(i):
            rest = total.body.xreplace({inside[0]: sp.S.One})
            inner = [(k, n) for k, n in total.limits]
            return gathered_up(term / total * rest, [*[(k, n) for k, n in limits if k != i], *inner])
    return term, limits


def single(e: Any) -> Any:
    """An expression in which an equality is multiplied with itself nowhere: it is zero or one."""
    return e.xreplace({p: p.base for p in e.atoms(sp.Pow) if isinstance(p.base, Delta) and p.exp.is_positive})


def resum(e: Any, ranges: Mapping[Index, Expr]) -> Any:
    """Every sum of an expression with its deltas summed out; a sum over an addition is taken apart where that helps."""
    if isinstance(e, Sigma):
        inner = {**ranges, **dict(e.limits)}
        body = resum(e.body, inner)
        whole = single(sp.expand(body)) if body.has(Delta) else body
        return (
            sp.Add(*[summed_term(t, list(e.limits), inner) for t in sp.Add.make_args(whole)])
            if whole.has(Delta) or (whole.is_Add and body.has(Delta))
            else summed_term(cast("Expr", whole), list(e.limits), inner)
        )
    if isinstance(e, Amax):
        return e
    return rebuilt(e, lambda a: resum(a, ranges))
