# pyright: basic
"""Ones at places as what they are: `(2 [i = j] - 1) x_ij` is -x with 2 x_ii added on its diagonal, without a tensor of ones.

So is a choice by place, `a if [j = y_i] else b`: b with `a - b` added where it holds, if that difference is shorter than a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import expanded
from codegen.closed.plan.backward import settled
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, Where, accesses

if TYPE_CHECKING:
    from collections.abc import Sequence


RULE = "ones at places of a product are what is added there"


def scattered_apart(e: Expr, indices: Sequence[Expr] = ()) -> Expr:
    """A product over an addition that holds deltas multiplied out: the terms with equal deltas become one scatter."""
    if not e.has(Delta):
        return e
    e = by_places(unchosen(e), indices)
    groups: dict[Any, list[Any]] = {}
    for t in put_together(list(sp.Add.make_args(expanded(e))), indices):
        deltas = Mul(*[f for f in Mul.make_args(t) if isinstance(f, Delta) or puts(f, indices)])
        groups.setdefault(deltas, []).append(cast("Any", t) / deltas)
    return cast(
        "Expr", sp.Add(*[d * settled(cast("Expr", sp.Add(*parts))) for d, parts in groups.items()], evaluate=False)
    )


def puts(f: Any, indices: Sequence[Expr]) -> bool:
    """Whether a sum is what is put at places of the output, `Sum_k [j = k] a_k`: it is zero elsewhere, and no tensor of ones."""
    outputs = {i for i in indices if i != 0}
    return isinstance(f, Sigma) and any(
        isinstance(d, Delta) and any(a in outputs for a in d.args) for d in Mul.make_args(f.body)
    )


def put_together(terms: list[Any], indices: Sequence[Expr]) -> list[Any]:
    """The terms, with sums of what is put where an integer tensor says, `Sum_l [j = y_l] a_l + Sum_l [j = y_l] b_l`, as one sum."""
    outputs = {i for i in indices if i != 0}
    found: dict[Any, list[tuple[Any, Any]]] = {}
    for t in terms:
        for f in Mul.make_args(t):
            at = put_at(f, outputs) if isinstance(f, Sigma) else None
            if at is not None:
                found.setdefault(at[0], []).append((t, at[1] * (t / f)))
                break
    for (limits, places), group in found.items():
        if len(group) > 1:
            gone = [t for t, _ in group]
            body = places * settled(cast("Expr", sp.Add(*[value for _, value in group])))
            terms = [*(t for t in terms if t not in gone), Sigma(body, *(sp.Tuple(*at) for at in limits))]
    return terms


def put_at(e: Any, outputs: set[Expr]) -> tuple[Any, Any] | None:
    """The limits and the places of a sum of what is put where an integer tensor says, and what is put there; with indices of their own."""
    where = [d for d in Mul.make_args(e.body) if isinstance(d, Delta) and any(a in outputs for a in d.args)]
    if not where or not all(any(isinstance(a, Indexed) for a in d.args) for d in where):
        return None
    own = {i: Index(f"at{k}") for k, (i, _) in enumerate(e.limits)}
    places = Mul(*where)
    return (tuple((own[i], n) for i, n in e.limits), places.xreplace(own)), (e.body / places).xreplace(own)


def unchosen(e: Any) -> Any:
    """An expression with what is zero but at places in front of the choices it stands in: `0 if c else [j = k] v` is `[j = k] (0 if c else v)`."""
    if isinstance(e, Indexed) or not e.args or not e.has(Where):
        return e
    e = rebuilt(e, unchosen)
    if not isinstance(e, Where) or 0 not in e.args[1:]:
        return e
    moving = e.args[2] if e.args[1] == 0 else e.args[1]
    deltas = Mul(*[f for f in Mul.make_args(moving) if isinstance(f, Delta)])
    return deltas * e.func(e.args[0], *[a / deltas for a in e.args[1:]])


def by_places(e: Any, indices: Sequence[Expr]) -> Any:
    """An expression whose terms say apart what they are at places of the output; the same object where none does."""
    if not e.has(Delta):
        return e
    outputs = {i for i in indices if i != 0}
    terms = sp.Add.make_args(e)
    parts = [(t, parted(t, outputs) or (added(t, outputs) if len(terms) > 1 else None)) for t in terms]
    return e if all(p is None for _, p in parts) else sp.Add(*[x for t, p in parts for x in p or (t,)])


def added(term: Any, outputs: set[Expr]) -> tuple[Any] | None:
    """A term that is zero but at places, `v if [i = j] else 0`, as what is added there to other terms; None for any other."""
    for f in Mul.make_args(term):
        if isinstance(f, Where) and is_place_of(f.args[0], outputs) and f.args[2] == 0 and not f.args[1].has(Delta):
            return (f.args[0] * (term / f) * f.args[1],)
    return None


def is_place_of(d: Any, outputs: set[Expr]) -> bool:
    """Whether a condition is an equality that stands for places of the output."""
    return isinstance(d, Delta) and is_place(d, outputs)


def parted(term: Any, outputs: set[Expr]) -> tuple[Any, Any] | None:
    """What a term is everywhere, and what is added to it at places; None where it says so already or is zero there."""
    for f in Mul.make_args(term):
        for d in sorted(f.atoms(Delta), key=str) if isinstance(f, (sp.Add, Where)) and not f.has(Sigma) else ():
            values = valued(f, d) if is_place(d, outputs) else None
            rest = term / f
            if values is None or 0 in values or not (rest * values[1]).has(Indexed):
                continue
            there, elsewhere = values
            more = sp.expand(there - elsewhere)
            if isinstance(f, sp.Add) or len(accesses(more)) < len(accesses(there)):
                return rest * elsewhere, d * rest * more
    return None


def valued(f: Any, d: Any) -> Any:
    """What a choice by an equality, or a sum of it and numbers, is where it holds and where it does not; None for anything else."""
    if isinstance(f, Where):
        return f.args[1:] if f.args[0] == d and not any(a.has(d) for a in f.args[1:]) else None
    mark = sp.Dummy()
    plain = f.xreplace({d: mark})
    return (
        None
        if plain.has(Indexed, Delta) or plain.atoms(Index)
        else (plain.xreplace({mark: 1}), plain.xreplace({mark: 0}))
    )


def is_place(d: Any, outputs: set[Expr]) -> bool:
    """Whether an equality stands for places of the output: of an index and an integer tensor, or of two indices."""
    one, other = sorted(d.args, key=lambda x: isinstance(x, Indexed))
    read = {i for i in other.free_symbols if isinstance(i, Index)}
    return one in outputs and one not in read and read <= outputs and (isinstance(other, Indexed) or other in outputs)


def is_linear(e: Any, a: Any) -> bool:
    """Whether an expression is a sum of multiples of a tensor's element, or a sum over such."""
    body = e.body if isinstance(e, Sigma) else e
    if isinstance(body, sp.Add):
        return all(not t.has(a) or is_linear(t, a) for t in body.args)
    if isinstance(body, Mul):
        return all(not f.has(a) or is_linear(f, a) for f in body.args)
    return bool(body == a)


__all__ = ["RULE", "by_places", "is_linear", "scattered_apart"]
